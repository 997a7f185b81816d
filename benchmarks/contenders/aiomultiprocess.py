"""aiomultiprocess: coroutines in worker processes; it knows no chunks, so they are made by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

from aiomultiprocess import Pool

from benchmarks.contenders.base import Contender, Weigh, batches
from benchmarks.harness.work import keep, run_chunk


class Aio(Contender):
    """Workers by spawn (its default)."""

    title = "aiomultiprocess"
    by_hand = True
    starts = ("spawn",)

    async def __aenter__(self) -> Aio:
        given: dict[str, Any] = (
            {} if self.shared is None else {"initializer": keep, "initargs": (self.shared,)}
        )
        self._pool = Pool(self.workers, **given)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._pool.terminate()
        await self._pool.join()

    async def fold(self, payloads: Iterable[Any], *, chunk: int = 1, weigh: Weigh = int) -> tuple[int, float]:
        # Awaited as a whole: iterating over its results sleeps 5 ms for each of them.
        if chunk == 1:
            values = await self._pool.map(partial(as_coroutine, self.fn), payloads)
        else:
            work = partial(as_coroutine, partial(run_chunk, self.fn))
            lists = await self._pool.map(work, batches(payloads, chunk))
            values = chain.from_iterable(lists)
        count, total = 0, 0.0
        for value in values:
            count += 1
            total += weigh(value)
        return count, total

    def call(self, payload: Any) -> Awaitable[Any]:
        return self._pool.apply(as_coroutine, (self.fn, payload))


async def as_coroutine(fn: Callable[[Any], Any], payload: Any) -> Any:
    """A plain function, as this pool wants it."""
    return fn(payload)
