"""`python -m opsd`: the command line."""

from opsd.cli.main import main

if __name__ == "__main__":
    main()
