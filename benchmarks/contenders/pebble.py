"""pebble: a pool whose tasks have timeouts; `map` with a chunk size, one by one `schedule`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from multiprocessing import get_context
from typing import Any

from pebble import ProcessPool

from benchmarks.contenders.base import Contender
from benchmarks.harness.work import keep


class Pebble(Contender):
    """Workers by fork (the default on Linux before Python 3.14), or by spawn."""

    title = "pebble"
    starts = ("fork", "spawn")
    blocks = True

    async def __aenter__(self) -> Pebble:
        given: dict[str, Any] = {"context": get_context(self.start)} if self.start else {}
        if self.start == "fork":
            keep(self.shared)  # a fork has it already
        elif self.shared is not None:
            given |= {"initializer": keep, "initargs": [self.shared]}
        self._pool = ProcessPool(max_workers=self.workers, **given)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.stop()
        self._pool.join()

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        return self._pool.map(self.fn, payloads, chunksize=chunk).result()  # type: ignore[no-any-return]

    def call(self, payload: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(self._pool.schedule(self.fn, args=[payload]))

    def ask(self, payload: Any) -> Any:
        return self._pool.schedule(self.fn, args=[payload]).result()
