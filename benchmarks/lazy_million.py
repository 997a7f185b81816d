"""1,000,000 lazily generated shards: by how many MB the parent's peak resident memory grows.

`ahead` is how many shards were generated and not yet answered at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders import find, is_installed
from benchmarks.harness.measures import check, opened, timed
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import items, noop, number_of, sum_below
from dispatch import DispatchConfig

UNIT = "MB"
BETTER = "less"
REPEATS = 1
EXTRAS = ("ahead",)
SHARDS = 1_000_000
BUNCH = 1024  # outcomes that the consumer has in hand


def entries(tiny: bool) -> list[Entry]:
    keys = ["ours", "bare", "executor", *(() if tiny else ("pool", "mpire", "pebble"))]
    return [
        Entry(name=find(key).title, contender=key, chunks=(1 if key == "ours" else 256,), tiny=tiny)
        for key in keys
        if is_installed(key)
    ]


async def measure(entry: Entry) -> Sample:
    number = 2000 if entry.tiny else SHARDS
    warm = items(2000)
    made = answered = ahead = 0

    def shards() -> Iterator[dict[str, Any]]:
        nonlocal made
        for index in range(number):
            made += 1
            yield {"n": index, "text": f"shard {index:034d}"}

    def weigh(value: dict[str, Any]) -> int:
        nonlocal answered, ahead
        ahead = max(ahead, made - answered)
        answered += 1
        return number_of(value)  # type: ignore[no-any-return]

    async with opened(entry, noop) as pool:
        await timed(pool, entry, warm, expected=sum_below(len(warm)), weigh=number_of)
        await asyncio.sleep(0)
        before = resident("VmRSS")
        forget_peak()
        count, total = await pool.fold(shards(), chunk=entry.chunk, weigh=weigh)
        check(count, total, number=number, expected=sum_below(number))
        grown = max(0, resident("VmHWM") - before)
    return Sample(n=number, values=[grown / 1e6], extra={"ahead": ahead})


def resident(name: str) -> int:
    """Bytes, now (VmRSS) or at the most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Let VmHWM begin anew from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def goals(table: Table) -> list[Goal]:
    own = table.find("dispatch")
    bound = DispatchConfig().max_pending + BUNCH
    return [
        goal("the parent's peak RSS grows by under 20 MB", table.middle("dispatch"), at_most=20),
        goal(
            f"read-ahead: at most max_pending and a bunch ({bound:,} shards)",
            own.extra("ahead") if own else float("nan"),
            at_most=bound,
        ),
    ]
