"""What several rows do in their child: open a contender, warm it, fold payloads against the clock, check the sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.contenders import find
from benchmarks.contenders.base import Contender, Weigh, WrongResult
from benchmarks.harness.machine import cores
from benchmarks.harness.row import Entry

FIRST = 256  # shards of the first try
SECONDS = 0.5  # that a measurement should take at least, if there are shards enough


def opened(entry: Entry, fn: Callable[..., Any], **more: Any) -> Contender:
    """The entry's contender for `fn`, with as many workers as there are processors."""
    return find(entry.contender)(fn, cores(), **entry.options, **more)


async def timed(
    pool: Contender, entry: Entry, payloads: Sequence[Any], *, expected: float, weigh: Weigh = int
) -> float:
    """Seconds that the payloads took. Raises WrongResult if any were lost or done twice."""
    begun = time.perf_counter()
    count, total = await pool.fold(payloads, chunk=entry.chunk, weigh=weigh)
    seconds = time.perf_counter() - begun
    check(count, total, number=len(payloads), expected=expected)
    return seconds


def check(count: int, total: float, *, number: int, expected: float) -> None:
    """Raises WrongResult unless so many values came back, and their sum is right."""
    if count != number or abs(total - expected) > 1e-6 * max(1.0, abs(expected)):
        raise WrongResult(f"{count} of {number} values, sum {total:,} instead of {expected:,}")


async def grown(
    pool: Contender,
    entry: Entry,
    payloads: Sequence[Any],
    *,
    expects: Callable[[int], float],
    weigh: Weigh = int,
) -> tuple[int, float]:
    """As many of the payloads as take SECONDS, found by trying more and more, which warms the pool; their seconds."""
    seconds = 0.01 if entry.tiny else SECONDS
    number = min(FIRST, len(payloads))
    while True:
        took = await timed(pool, entry, payloads[:number], expected=expects(number), weigh=weigh)
        if number == len(payloads) or took > seconds / 2:
            break
        number = min(len(payloads), max(number * 2, min(number * 8, int(number * seconds / took))))
    took = await timed(pool, entry, payloads[:number], expected=expects(number), weigh=weigh)
    return number, took
