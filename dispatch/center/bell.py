"""What a task waits for until somebody rings; nothing is remembered from before the wait.

For waits that come with every frame: an `anyio.Event` serves once, and to make one for each wait costs several
times what the wait does.
"""

from __future__ import annotations

import asyncio

__all__ = ("Bell",)


class Bell:
    """Wakes all who wait."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next ring."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def ring(self) -> None:
        """Wake who waits now."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
