"""Pools that know only single calls: a loop for each worker feeds it, in chunks that the user makes by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio

from benchmarks.contenders.base import Contender, Weigh, batches
from benchmarks.harness.work import run_chunk


class ByHand(Contender):
    """`call_with(fn, *args)` is what such a pool offers."""

    by_hand = True

    async def call_with(self, fn: Callable[..., Any], *args: Any) -> Any:
        """The value of `fn(*args)` in a worker."""
        raise NotImplementedError

    async def fold(self, payloads: Iterable[Any], *, chunk: int = 1, weigh: Weigh = int) -> tuple[int, float]:
        count, total = 0, 0.0
        left = batches(payloads, chunk)

        async def feed() -> None:
            nonlocal count, total
            for batch in left:
                if chunk == 1:
                    values = [await self.call_with(self.fn, batch[0])]
                else:
                    values = await self.call_with(run_chunk, self.fn, batch)
                for value in values:
                    count += 1
                    total += weigh(value)

        async with anyio.create_task_group() as tasks:
            for _ in range(self.workers):
                tasks.start_soon(feed)
        return count, total
