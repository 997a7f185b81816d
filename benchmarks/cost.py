"""Processor time for each shard, µs: what parent, workers and nannies use, and what nobody does.

No-op shards, and shards of 1 ms. Where all of them share few processors it is the sum that decides how fast a pool
is, and this says whose it is. `unused` is what a processor idles.
"""

from __future__ import annotations

import os
from typing import Any

import anyio

from benchmarks.harness.machine import cores
from benchmarks.harness.measures import opened, timed
from benchmarks.harness.processes import children, descendants, processor_seconds
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import items, noop, number_of, spin, sum_below

UNIT = "µs"
BETTER = "less"
REPEATS = 3
EXTRAS = ("parent", "workers", "nannies", "unused")
KINDS = {"no-op": 256, "1 ms": 1}  # and the chunk that suits the bare socket
A_LOOK = 0.01  # seconds


def entries(tiny: bool) -> list[Entry]:
    own: list[Entry] = []
    for kind, chunk in KINDS.items():
        own.append(Entry(name=f"{kind}: dispatch, stream", contender="ours", tiny=tiny))
        own.append(Entry(name=f"{kind}: bare socket", contender="bare", chunks=(chunk,), tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    ours, me = entry.contender == "ours", os.getpid()
    work: list[Any]
    if entry.name.startswith("no-op"):
        fn, weigh, work = noop, number_of, items(200 if entry.tiny else 200_000)
        expected = sum_below(len(work))
    else:
        fn, weigh, work = spin, float, [0.001] * (20 if entry.tiny else 2000)
        expected = sum(work)
    async with opened(entry, fn) as pool:
        while len(descendants(me)) < cores() * (2 if ours else 1):
            await anyio.sleep(A_LOOK)
        await timed(pool, entry, work, expected=expected, weigh=weigh)
        nannies = children(me) if ours else set()
        parties = {"parent": {me}, "workers": descendants(me) - nannies, "nannies": nannies}
        before = {name: sum(map(processor_seconds, pids)) for name, pids in parties.items()}
        seconds = await timed(pool, entry, work, expected=expected, weigh=weigh)
        used = {name: sum(map(processor_seconds, pids)) - before[name] for name, pids in parties.items()}
    used["unused"] = cores() * seconds - sum(used.values())
    each = {name: spent / len(work) * 1e6 for name, spent in used.items()}
    return Sample(n=len(work), values=[sum(each.values()) - each["unused"]], extra=each)


def goals(table: Table) -> list[Goal]:
    found: list[Goal] = []
    for kind in KINDS:
        ratio = table.middle(f"{kind}: dispatch, stream") / table.middle(f"{kind}: bare socket")
        found.append(goal(f"{kind}: times the bare socket's, for comparison", ratio))
    return found
