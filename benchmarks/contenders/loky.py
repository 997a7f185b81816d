"""loky: an executor that survives its workers; cloudpickle, spawned workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from loky import get_reusable_executor

from benchmarks.contenders.base import Contender
from benchmarks.harness.work import keep


class Loky(Contender):
    """Workers by loky's own spawn."""

    title = "loky"
    starts = ("spawn",)
    blocks = True

    async def __aenter__(self) -> Loky:
        given = {} if self.shared is None else {"initializer": keep, "initargs": (self.shared,)}
        self._pool = get_reusable_executor(self.workers, **given)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.shutdown(kill_workers=True)

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        return self._pool.map(self.fn, payloads, chunksize=chunk)

    def call(self, payload: Any) -> Awaitable[Any]:
        return self._loop.run_in_executor(self._pool, self.fn, payload)

    def ask(self, payload: Any) -> Any:
        return self._pool.submit(self.fn, payload).result()
