"""Shards per second against how long a shard takes, 0 to 10 ms: the picture. A peer's best chunk at each point."""

from __future__ import annotations

from benchmarks.contenders import find, peers
from benchmarks.contenders.base import Contender
from benchmarks.harness.machine import cores
from benchmarks.harness.measures import opened, timed
from benchmarks.harness.row import Entry, Goal, Sample, Table
from benchmarks.harness.work import spin

UNIT = "shards/s"
BETTER = "more"
REPEATS = 1
POINTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # ms
SECONDS = 0.3
FREE = 1e-5  # seconds that we allow a shard of no duration, to choose a number
CHUNKS = {
    0.0: (256, 1024),
    0.03: (64,),
    0.1: (16, 64),
    0.3: (16,),
    1.0: (1, 4, 16),
    3.0: (1, 4),
    10.0: (1,),
}


def entries(tiny: bool) -> list[Entry]:
    keys = ["ours", "bare", *peers(tiny)]
    return [Entry(name=find(key).title, contender=key, tiny=tiny) for key in keys]


async def measure(entry: Entry) -> Sample:
    points: dict[str, float] = {}
    most = 0
    async with opened(entry, spin) as pool:
        for point in POINTS[::3] if entry.tiny else POINTS:
            chunks = (1,) if entry.contender == "ours" else CHUNKS[point]
            seconds = point / 1e3
            wanted = cores() * (0.01 if entry.tiny else SECONDS) / max(seconds, FREE)
            work = [seconds] * max(8, int(wanted))
            most = max(most, len(work))
            points[str(point)] = max([await rate(pool, entry, work, chunk=chunk) for chunk in chunks])
    return Sample(n=most, values=[points["0.0"]], extra={"points": points})


async def rate(pool: Contender, entry: Entry, work: list[float], *, chunk: int) -> float:
    """Shards per second, warm."""
    sized = Entry(name=entry.name, contender=entry.contender, chunks=(chunk,))
    warm = work[: max(8, len(work) // 10)]
    await timed(pool, sized, warm, expected=sum(warm), weigh=float)
    return len(work) / await timed(pool, sized, work, expected=sum(work), weigh=float)


def goals(table: Table) -> list[Goal]:
    return []
