"""No-op shards per second through 1,000 concurrent `submit`s: what a service costs.

Each of 1,000 tasks submits, waits for its value, and submits again. Peers: a single call each, awaited.
"""

from __future__ import annotations

import time

import anyio

from benchmarks.contenders import find, peers
from benchmarks.harness.measures import check, opened
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import items, noop, number_of, sum_below

UNIT = "shards/s"
BETTER = "more"
REPEATS = 3
TASKS = 1000
MOST = 100_000
SECONDS = 1.0


def entries(tiny: bool) -> list[Entry]:
    own = [Entry(name="dispatch, submit", contender="ours", tiny=tiny)]
    if not tiny:
        own.append(Entry(name="dispatch, submit, uvloop", contender="ours", uvloop=True))
    rivals = [Entry(name=find(key).title, contender=key, tiny=tiny) for key in peers(tiny)]
    return own + rivals


async def measure(entry: Entry) -> Sample:
    most = 40 if entry.tiny else MOST
    payloads = items(most)
    async with opened(entry, noop) as pool:
        number = min(most, TASKS)
        while True:
            left = iter(payloads[:number])
            count, total = 0, 0.0

            async def ask() -> None:
                nonlocal count, total
                for payload in left:  # noqa: B023  (the tasks end before the next turn)
                    value = await pool.call(payload)
                    total += number_of(value)
                    count += 1

            begun = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for _ in range(min(TASKS, number)):
                    tasks.start_soon(ask)
            seconds = time.perf_counter() - begun
            check(count, total, number=number, expected=sum_below(number))
            if number == most or seconds > SECONDS / 2:
                return Sample(n=number, values=[number / seconds])
            number = min(most, number * 8, int(number * max(2, SECONDS / seconds)))


def goals(table: Table) -> list[Goal]:
    own = table.middle("dispatch, submit")
    others = table.middle("ProcessPoolExecutor")
    return [
        goal("at least 10 times run_in_executor on a ProcessPoolExecutor", own / others, at_least=10),
        goal("at least 100,000 shards/s", own, at_least=100_000),
    ]
