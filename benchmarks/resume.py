"""A million recorded shards and ten new ones: seconds from the call until the first new shard's outcome is there.

`grown`: MB by which the parent's peak resident memory grows meanwhile. The centre is open and has run a shard.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

from benchmarks.harness.machine import cores
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.lazy_million import forget_peak, resident
from dispatch import DataParallelDispatchCenter, DispatchConfig

UNIT = "s"
BETTER = "less"
REPEATS = 3
EXTRAS = ("grown",)
SHARDS = 1_000_000
NEW = 10

ORDERS = ("in the recorded order", "in the reverse order")


def entries(tiny: bool) -> list[Entry]:
    return [Entry(name=name, contender="ours", tiny=tiny) for name in ORDERS]


def double(x: int) -> int:
    return 2 * x


def center(work_dir: str) -> DataParallelDispatchCenter[int, int]:
    return DataParallelDispatchCenter(double, config=DispatchConfig(work_dir=work_dir, data_parallel=cores()))


async def record(work_dir: str, number: int) -> None:
    """Record a run, in a process of its own: its memory is not ours."""
    await center(work_dir).run(range(number), collect=False)


async def measure(entry: Entry) -> Sample:
    number = 2000 if entry.tiny else SHARDS
    shards: Iterable[int] = range(number + NEW)
    if entry.name == ORDERS[1]:
        shards = range(number + NEW - 1, -1, -1)
    with tempfile.TemporaryDirectory() as directory:
        code = f"import asyncio; from benchmarks.resume import record; asyncio.run(record({directory!r}, {number}))"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
        async with center(directory) as opened:
            await opened.submit(-1)
            before = resident("VmRSS")
            forget_peak()
            begun = time.perf_counter()
            first, count, total = 0.0, 0, 0
            async with opened.stream(shards) as outcomes:
                async for outcome in outcomes:
                    count += 1
                    total += outcome.unwrap()
                    if not first and not outcome.reused:
                        first = time.perf_counter() - begun
            grown = max(0, resident("VmHWM") - before)
    if (count, total) != (number + NEW, (number + NEW) * (number + NEW - 1)):
        return Sample(error=f"{count} outcomes, sum {total}")
    return Sample(n=number, values=[first], extra={"grown": grown / 1e6})


def goals(table: Table) -> list[Goal]:
    lines = [table.find(name) for name in ORDERS]
    grown = [line.extra("grown") for line in lines if line]
    return [
        goal("the first new shard behind a million recorded ones, s", table.middle(ORDERS[0]), at_most=5),
        goal("the parent's peak RSS grows by, MB", max(grown, default=float("nan")), at_most=100),
    ]
