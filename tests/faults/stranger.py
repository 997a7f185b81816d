"""A module that only workers load."""


class StrangerError(Exception):
    """An exception of it."""
