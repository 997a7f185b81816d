"""Dask distributed on this machine: an asynchronous client, `map` with a batch size; chunks by hand."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.contenders.base import Contender, Weigh, batches
from benchmarks.harness import work


class Dask(Contender):
    """Workers by spawn, each under a nanny, one thread each."""

    title = "Dask"
    by_hand = True
    runs = 1
    starts = ("spawn",)

    async def __aenter__(self) -> Dask:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._cluster = await LocalCluster(
            n_workers=self.workers, threads_per_worker=1, dashboard_address=None, asynchronous=True
        )
        self._client = await Client(self._cluster, asynchronous=True)
        if self.shared is not None:
            self._shared = await self._client.scatter(Whole(self.shared), broadcast=True, hash=False)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()
        await self._cluster.close()

    async def fold(self, payloads: Iterable[Any], *, chunk: int = 1, weigh: Weigh = int) -> tuple[int, float]:
        count, total = 0, 0.0
        given = {} if self.shared is None else {"shared": self._shared}
        task = partial(chunk_with, self.fn)
        futures = self._client.map(task, list(batches(payloads, chunk)), pure=False, batch_size=1000, **given)
        for values in await self._client.gather(futures):
            for value in values:
                count += 1
                total += weigh(value)
        return count, total

    def call(self, payload: Any) -> Awaitable[Any]:
        return self._client.submit(self.fn, payload, pure=False)  # type: ignore[no-any-return]


class Whole:
    """Something that Dask shall not take apart: a large dict would travel entry by entry, for minutes."""

    def __init__(self, param: Any) -> None:
        self.param = param


def chunk_with(fn: Any, payloads: list[Any], shared: Whole | None = None) -> list[Any]:
    """A chunk, with what is shared where the other pools keep it."""
    if shared is not None:
        work.keep(shared.param)
    return work.run_chunk(fn, payloads)
