"""trio-parallel: `run_sync` from trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
import trio_parallel

from benchmarks.contenders.byhand import ByHand
from benchmarks.harness.work import keep


class Trio(ByHand):
    """Workers by spawn."""

    title = "trio-parallel"
    backend = "trio"
    starts = ("spawn",)

    async def __aenter__(self) -> Trio:
        given = {} if self.shared is None else {"init": partial(keep, self.shared)}
        self._manager = trio_parallel.open_worker_context(**given)
        self._context = await self._manager.__aenter__()
        self._limiter = trio.CapacityLimiter(self.workers)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._manager.__aexit__(None, None, None)

    async def call_with(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await self._context.run_sync(fn, *args, limiter=self._limiter)

    def call(self, payload: Any) -> Awaitable[Any]:
        return self._context.run_sync(self.fn, payload, limiter=self._limiter)
