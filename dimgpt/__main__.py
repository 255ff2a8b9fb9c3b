"""`python -m dimgpt`: starts the command line.

Each process that encodes texts loads this file again, so it imports nothing at the top.
"""

if __name__ == "__main__":
    from dimgpt.cli import main

    main()
