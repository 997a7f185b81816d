"""Signals to cancel scopes: the first asks, the second insists. The only place that touches signals."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio import CancelScope

__all__ = ("interrupts",)


@asynccontextmanager
async def interrupts(on_first: Callable[[], None]) -> AsyncGenerator[CancelScope]:
    """Within this block, the first SIGINT or SIGTERM calls `on_first`; the second cancels the scope it gives.

    Only in the main thread.
    """
    async with anyio.create_task_group() as tasks:
        with CancelScope() as scope:

            async def listen() -> None:
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    heard = 0
                    async for _ in signals:
                        heard += 1
                        if heard == 1:
                            on_first()
                        else:
                            scope.cancel()

            tasks.start_soon(listen)
            yield scope
        tasks.cancel_scope.cancel()
