"""concurrent.futures.ProcessPoolExecutor: `map` with a chunk size; from asyncio `run_in_executor`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.contenders.base import Contender
from benchmarks.harness.work import keep


class Executor(Contender):
    """Workers by fork (the default on Linux before Python 3.14), or by spawn."""

    title = "ProcessPoolExecutor"
    starts = ("fork", "spawn")
    blocks = True

    async def __aenter__(self) -> Executor:
        context = get_context(self.start) if self.start else None
        given: dict[str, Any] = {}
        if self.start == "fork":
            keep(self.shared)  # a fork has it already
        elif self.shared is not None:
            given = {"initializer": keep, "initargs": (self.shared,)}
        self._pool = ProcessPoolExecutor(self.workers, mp_context=context, **given)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.shutdown()

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        return self._pool.map(self.fn, payloads, chunksize=chunk)

    def call(self, payload: Any) -> Awaitable[Any]:
        return self._loop.run_in_executor(self._pool, self.fn, payload)

    def ask(self, payload: Any) -> Any:
        return self._pool.submit(self.fn, payload).result()
