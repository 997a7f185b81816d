"""`python -m dispatch`: the command line. Workers import this module too, under another name."""

from dispatch.cli import main

if __name__ == "__main__":
    main()
