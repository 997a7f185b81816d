"""What a row asks of a contender: open a pool for one function, fold many payloads, answer one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

Weigh = Callable[[Any], float]


class WrongResult(Exception):
    """A contender that loses work does not win."""


class Contender:
    """A pool of `workers` processes that runs `fn`. `async with` opens and closes it."""

    title: ClassVar[str]
    backend: ClassVar[str] = "asyncio"
    chunks: ClassVar[tuple[int, ...]] = (1, 64, 512)  # sizes worth trying
    starts: ClassVar[tuple[str, ...]] = ("",)  # ways of starting workers, where there are several
    by_hand: ClassVar[bool] = False  # it knows no chunks: they are lists that its user makes
    runs: ClassVar[int] = 99  # at the most; a peer that is slow to start and far behind needs no more
    blocks: ClassVar[bool] = False  # `fold` holds the event loop until all is done

    def __init__(self, fn: Callable[..., Any], workers: int, *, start: str = "", shared: Any = None) -> None:
        """`shared` is given to `work.keep` in every worker, in the way that suits this pool best."""
        self.fn, self.workers, self.start, self.shared = fn, workers, start, shared

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass

    async def fold(self, payloads: Iterable[Any], *, chunk: int = 1, weigh: Weigh = int) -> tuple[int, float]:
        """How many values came back, and the sum of what they weigh; in any order."""
        count, total = 0, 0.0
        for value in self.values(payloads, chunk):
            count += 1
            total += weigh(value)
        return count, total

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        """For a pool that is iterated without an event loop: its values."""
        raise NotImplementedError

    def call(self, payload: Any) -> Awaitable[Any]:
        """One value, awaited."""
        raise NotImplementedError

    ask: Callable[[Any], Any] | None = None
    """One value, waited for without an event loop, where a pool can do that."""


def batches(payloads: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    """The payloads in lists of `size`."""
    left = iter(payloads)
    while batch := list(islice(left, size)):
        yield batch
