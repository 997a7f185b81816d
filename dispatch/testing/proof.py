"""How a check waits for a fact, and how it says what is broken. `python -O` takes none of it away."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import anyio

__all__ = ("MOMENT", "expected", "require", "until")

A_LOOK = 0.005  # seconds between looks
MOMENT = 0.1  # seconds in which what must not happen is given the chance to
PATIENCE = 20.0  # seconds in which what must happen has to, on a loaded machine
E = TypeVar("E", bound=Exception)


async def until(holds: Callable[[], object], *, within: float | None = None) -> bool:
    """Wait until something holds, looking again and again; whether it did, `within` so many seconds (PATIENCE)."""
    with anyio.move_on_after(PATIENCE if within is None else within):
        while not holds():  # noqa: ASYNC110  (files and processes of others set no event)
            await anyio.sleep(A_LOOK)
        return True
    return bool(holds())


def require(condition: object, detail: str) -> None:
    """Raise AssertionError with the detail unless the condition holds."""
    if not condition:
        raise AssertionError(detail)


@contextmanager
def expected(kind: type[E], otherwise: str) -> Generator[list[E]]:
    """A block that raises `kind`, and a list that holds the error then. Raises AssertionError if it does not."""
    raised: list[E] = []
    try:
        yield raised
    except kind as error:
        raised.append(error)
    else:
        raise AssertionError(otherwise)
