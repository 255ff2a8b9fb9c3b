"""`python -m dimgpt`: hands over to the command line.

Each process that encodes texts loads this file again: what it imports, they would wait for.
"""

if __name__ == "__main__":
    from dimgpt.cli import main

    main()
