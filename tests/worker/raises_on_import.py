"""Cannot be imported."""

raise ZeroDivisionError("on import")
