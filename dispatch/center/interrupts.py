"""Signals to cancel scopes: the first asks, the second insists. The only place that touches signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from anyio import CancelScope

from dispatch.center.typed import Opened
from dispatch.terms.report import Report
from dispatch.terms.shard import Shards

__all__ = ("interrupts", "run_with_signals")

HEARD = (signal.SIGINT, signal.SIGTERM)


@asynccontextmanager
async def interrupts(on_first: Callable[[], None]) -> AsyncGenerator[CancelScope]:
    """Within this block, the first SIGINT or SIGTERM calls `on_first`; the second cancels the scope it gives.

    Only in the main thread. The host's handlers are put back.
    """
    hosts = [(number, signal.getsignal(number)) for number in HEARD]
    try:
        with anyio.open_signal_receiver(*HEARD) as signals, CancelScope() as scope:

            async def listen() -> None:
                await anext(signals)
                on_first()
                async for _ in signals:
                    scope.cancel()

            listener = asyncio.create_task(
                listen()
            )  # not a group's: what the block raises comes out as it is
            try:
                yield scope
            finally:
                listener.cancel()
    finally:
        for number, handler in hosts:
            signal.signal(number, handler)  # the event loop leaves Python's default behind


async def run_with_signals(
    opened: AbstractAsyncContextManager[Opened],
    shards: Shards[Any] | None,
    *,
    collect: bool,
    post_process: Callable[[Report[Any]], Awaitable[None]],
) -> Report[Any]:
    """One run: the first signal drains its centre, or ends it while it starts up; the second stops everything."""
    openings: list[Opened] = []
    doors: list[Any] = []

    def first() -> None:
        if openings:
            openings[0].session.drain()
        else:
            scope.cancel()

    reports: list[Report[Any]] = []
    async with interrupts(first) as scope, opened as opening:
        openings.append(opening)
        reports.append(await opening.run(shards, collect=collect, doors=doors))
    if not reports and doors:
        reports.append(doors[0].report())
    if not reports:
        reports.append(Report(interrupted=True))
        await post_process(reports[0])
    return reports[0]
