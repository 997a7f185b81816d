"""multiprocessing.Pool: `imap_unordered` with a chunk size; one by one `apply`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from multiprocessing import get_context
from typing import Any

from benchmarks.contenders.base import Contender
from benchmarks.harness.work import keep


class Pool(Contender):
    """Workers by fork (the default on Linux before Python 3.14), or by spawn."""

    title = "multiprocessing.Pool"
    starts = ("fork", "spawn")
    blocks = True

    async def __aenter__(self) -> Pool:
        given: tuple[Any, ...] = ()
        if self.start == "fork":
            keep(self.shared)  # a fork has it already
        elif self.shared is not None:
            given = (keep, (self.shared,))
        self._pool = get_context(self.start or None).Pool(self.workers, *given)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.terminate()

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        return self._pool.imap_unordered(self.fn, payloads, chunksize=chunk)

    def call(self, payload: Any) -> Awaitable[Any]:
        waiter = self._loop.create_future()
        tell = self._loop.call_soon_threadsafe
        self._pool.apply_async(
            self.fn,
            (payload,),
            callback=lambda value: tell(waiter.set_result, value),
            error_callback=lambda error: tell(waiter.set_exception, error),
        )
        return waiter

    def ask(self, payload: Any) -> Any:
        return self._pool.apply(self.fn, (payload,))
