"""Ray: a remote function, results as they are ready; chunks by hand. Takes part only where it is installed."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any

import ray

from benchmarks.contenders.base import Contender, Weigh, batches
from benchmarks.harness import work


class Ray(Contender):
    """Workers by Ray's own daemon."""

    title = "Ray"
    by_hand = True
    runs = 1
    starts = ("spawn",)
    blocks = True

    async def __aenter__(self) -> Ray:
        ray.init(num_cpus=self.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self._shared = None if self.shared is None else ray.put(self.shared)
        self._remote = ray.remote(chunk_with)
        return self

    async def __aexit__(self, *error: object) -> None:
        ray.shutdown()

    async def fold(self, payloads: Iterable[Any], *, chunk: int = 1, weigh: Weigh = int) -> tuple[int, float]:
        count, total = 0, 0.0
        waiting = [self._remote.remote(self.fn, batch, self._shared) for batch in batches(payloads, chunk)]
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=min(len(waiting), 100))
            for values in ray.get(ready):
                for value in values:
                    count += 1
                    total += weigh(value)
        return count, total

    def call(self, payload: Any) -> Awaitable[Any]:
        return self._one(payload)

    async def _one(self, payload: Any) -> Any:
        return (await self._remote.remote(self.fn, [payload]))[0]

    def ask(self, payload: Any) -> Any:
        return ray.get(self._remote.remote(self.fn, [payload]))[0]


def chunk_with(fn: Any, payloads: list[Any], shared: Any = None) -> list[Any]:
    """A chunk, with what is shared where the other pools keep it."""
    if shared is not None:
        work.keep(shared)
    return work.run_chunk(fn, payloads)
