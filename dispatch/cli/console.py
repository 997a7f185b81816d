"""Where rich prints: ids, paths and messages stand there as they are, never as markup or as codes for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from dispatch.record.progress import printable

__all__ = ("console", "plain")


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that adds nothing to what it is given."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False, highlight=False)


def plain(text: str, style: str = "") -> Text:
    """A text of somebody else's, its control characters escaped."""
    return Text(printable(text), style=style)
