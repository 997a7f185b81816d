"""Parallel efficiency of CPU-bound shards: the ideal makespan divided by what it took, in %.

Two kinds of work: 1 ms each, and heavy-tailed (0.1 to 50 ms, mean about 3). A shard is so much *processor* time,
so what a contender burns itself, in the parent or in its workers, shows as lost efficiency.
The ideal: all work divided by the processors, or the longest shard if that is more.
"""

from __future__ import annotations

import random

from benchmarks.contenders import find, peers
from benchmarks.harness.machine import cores
from benchmarks.harness.measures import opened, timed
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import spin

UNIT = "% of ideal"
BETTER = "more"
REPEATS = 3
KINDS = {"1 ms": (1, 4, 16), "heavy tail": (1, 2)}  # the chunks that are worth trying
NEEDED = {"1 ms": 97.5, "heavy tail": 97.0}


def durations(kind: str, *, tiny: bool) -> list[float]:
    """The work, in seconds, the same in every run."""
    if kind == "1 ms":
        return [0.001] * (20 if tiny else 1000)
    rng = random.Random(4)
    drawn = [0.0001 * rng.paretovariate(0.6) for _ in range(20 if tiny else 600)]
    return [min(0.005 if tiny else 0.05, seconds) for seconds in drawn]


def entries(tiny: bool) -> list[Entry]:
    own: list[Entry] = []
    for kind, chunks in KINDS.items():
        own.append(Entry(name=f"{kind}: dispatch", contender="ours", tiny=tiny))
        own.append(Entry(name=f"{kind}: bare socket, frames of 1", contender="bare", tiny=tiny))
        for key in peers(tiny):
            tried = (1,) if tiny else chunks
            own.append(Entry(name=f"{kind}: {find(key).title}", contender=key, chunks=tried, tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    work = durations(entry.name.partition(":")[0], tiny=entry.tiny)
    ideal = max(sum(work) / cores(), *work)
    warm = [0.001] * (8 if entry.tiny else 64)
    async with opened(entry, spin) as pool:
        await timed(pool, entry, warm, expected=sum(warm), weigh=float)
        seconds = await timed(pool, entry, work, expected=sum(work), weigh=float)
    return Sample(n=len(work), values=[100 * ideal / seconds], extra={"ideal": ideal})


def goals(table: Table) -> list[Goal]:
    found: list[Goal] = []
    for kind, needed in NEEDED.items():
        own = table.middle(f"{kind}: dispatch")
        bare = table.middle(f"{kind}: bare socket, frames of 1")
        rivals = [line for line in table.peers() if line.entry.name.startswith(kind)]
        best = max(rivals, key=lambda line: table.middle(line.entry.name), default=None)
        found.append(goal(f"{kind}: at least {needed} % of ideal", own, at_least=needed))
        found.append(goal(f"{kind}: the bare socket, for comparison (%)", bare))
        if best is not None:
            text = f"{kind}: no peer ahead (times the best, {best.entry.name.partition(': ')[2]})"
            found.append(goal(text, own / table.middle(best.entry.name), at_least=1.0))
    return found
