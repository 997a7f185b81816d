"""One idea a file. Run each from the root of the repository: ``python -m examples.<name>``."""
