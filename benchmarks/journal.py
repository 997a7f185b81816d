"""What it costs to record a run: outcomes per second with a work_dir and without, of no-op shards and of 1 ms.

Recorded: each outcome is durable (WAL, synchronous=FULL) before the consumer has it. Work is processor time, so what
the parent takes is taken from the workers: on a machine with processors to spare it costs less.
"""

from __future__ import annotations

import tempfile

from benchmarks.harness.machine import cores
from benchmarks.harness.measures import grown, opened, timed
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import items, noop, number_of, spin, sum_below

UNIT = "outcomes/s"
BETTER = "more"
REPEATS = 3
MOST = 300_000
WORK = 0.001  # seconds
SECONDS = 2.0

KINDS = ("no-op shards, recorded", "no-op shards", "1 ms shards, recorded", "1 ms shards")


def entries(tiny: bool) -> list[Entry]:
    return [Entry(name=name, contender="ours", tiny=tiny) for name in KINDS]


async def measure(entry: Entry) -> Sample:
    with tempfile.TemporaryDirectory() as directory:
        more = {"work_dir": directory, "resume": "none"} if "recorded" in entry.name else {}
        if "no-op" in entry.name:
            payloads = items(20 if entry.tiny else MOST)
            async with opened(entry, noop, **more) as pool:
                number, seconds = await grown(pool, entry, payloads, expects=sum_below, weigh=number_of)
        else:
            number = 20 if entry.tiny else int(SECONDS / WORK) * cores()
            work = [WORK] * number
            async with opened(entry, spin, **more) as pool:
                await timed(pool, entry, work[: number // 10], expected=WORK * (number // 10), weigh=float)
                seconds = await timed(pool, entry, work, expected=WORK * number, weigh=float)
    return Sample(n=number, values=[number / seconds])


def goals(table: Table) -> list[Goal]:
    recorded, plain, busy, bare = (table.middle(name) for name in KINDS)
    return [
        goal("no-op outcomes recorded per second", recorded, at_least=40_000),
        goal("no-op, recorded (share of not recorded)", recorded / plain),
        goal("1 ms of work, recorded (share of not recorded)", busy / bare, at_least=0.97),
    ]
