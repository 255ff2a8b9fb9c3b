"""`python -m dimgpt`: starts the command line.

Each worker process that encodes texts imports this file again, so it imports nothing at the top.
"""

if __name__ == "__main__":
    from dimgpt.cli import main

    main()
