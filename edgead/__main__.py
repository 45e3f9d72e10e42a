"""`python -m edgead` is the command `edgead`."""

from edgead.cli.main import main

if __name__ == "__main__":
    main()
