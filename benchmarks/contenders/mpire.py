"""mpire: `imap_unordered` with a chunk size. Payloads in a tuple each, or mpire would spread a dict as keywords."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from mpire import WorkerPool

from benchmarks.contenders.base import Contender
from benchmarks.harness.work import keep


class Mpire(Contender):
    """Workers by fork (its default), or by spawn."""

    title = "mpire"
    starts = ("fork", "spawn")
    blocks = True

    async def __aenter__(self) -> Mpire:
        given = {"start_method": self.start} if self.start else {}
        self._pool = WorkerPool(self.workers, **given)
        if self.start == "fork":
            keep(self.shared)  # a fork has it already
        elif self.shared is not None:
            self._pool.set_shared_objects(self.shared)
            self.fn = partial(with_shared, self.fn)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.terminate()

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        wrapped = [(payload,) for payload in payloads]
        return self._pool.imap_unordered(self.fn, wrapped, chunk_size=chunk)

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


def with_shared(fn: Callable[[Any], Any], shared: Any, payload: Any) -> Any:
    """Mpire hands what is shared to every call."""
    keep(shared)
    return fn(payload)
