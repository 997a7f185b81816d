"""An opening that is under way, and that somebody may give up from another task."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import anyio
from anyio import CancelScope

from dispatch.terms.errors import CenterClosed

__all__ = ("Starting",)

T = TypeVar("T")


class Starting:
    """The scope of one opening, and its end."""

    def __init__(self) -> None:
        self._scope = CancelScope()
        self._ended = anyio.Event()

    async def through(self, opening: Awaitable[T]) -> T:
        """Await the opening. Raises CenterClosed if it was given up."""
        try:
            with self._scope:
                return await opening
            raise CenterClosed("open", "was given up: somebody closed the centre meanwhile")
        finally:
            self._ended.set()

    async def give_up(self) -> None:
        """End it, and wait until nothing of it is left."""
        self._scope.cancel()
        await self._ended.wait()
