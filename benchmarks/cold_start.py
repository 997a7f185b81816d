"""Cold: from opening a pool to its first outcome, ms; and from a worker's death to the next worker, ms.

Imports that stand at the top of a program are done before. With one worker for each processor; `all ready` says
when the last of them was, against one worker alone.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import find, peers
from benchmarks.harness.machine import cores
from benchmarks.harness.measures import check
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import die, items, noop, number_of
from dispatch import DataParallelDispatchCenter, DispatchConfig, Policy
from dispatch.terms.event import WorkerReady

UNIT = "ms"
BETTER = "less"
REPEATS = 5
DEATHS = 20


def entries(tiny: bool) -> list[Entry]:
    own = [Entry(name="first: dispatch", contender="ours", tiny=tiny)]
    keys = [*peers(tiny), "to_process"] if tiny else peers(tiny)
    own += [Entry(name=f"first: {find(key).title}", contender=key, tiny=tiny) for key in keys]
    own.append(Entry(name="all ready: dispatch, 1 worker", contender="ours", chunks=(1,), tiny=tiny))
    own.append(Entry(name="all ready: dispatch, a worker each", contender="ours", chunks=(0,), tiny=tiny))
    own.append(Entry(name="replaced: dispatch", contender="ours", tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    what = entry.name.partition(":")[0]
    if what == "first":
        return await first(entry)
    if what == "replaced":
        return await replaced(3 if entry.tiny else DEATHS)
    return await all_ready(entry.chunk or cores())


async def first(entry: Entry) -> Sample:
    """Until the first value is there."""
    payload = items(2)[1]
    kind = find(entry.contender)
    begun = time.perf_counter()
    async with kind(noop, cores()) as pool:
        value = await pool.call(payload)
        seconds = time.perf_counter() - begun
        check(1, number_of(value), number=1, expected=1)
    return Sample(n=1, values=[seconds * 1e3])


async def all_ready(workers: int) -> Sample:
    """Until the last worker says that it is."""
    center = DataParallelDispatchCenter(noop, config=DispatchConfig(data_parallel=workers))
    begun = time.perf_counter()
    async with center:
        while any(state.state != "ready" for state in center.snapshot().workers):
            await asyncio.sleep(0.0005)
        seconds = time.perf_counter() - begun
    return Sample(n=workers, values=[seconds * 1e3])


async def replaced(deaths: int) -> Sample:
    """From the last line that a worker ran to the next worker's being ready."""
    config = DispatchConfig(data_parallel=1, policy=Policy(crash_budget=1))
    values: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        async with DataParallelDispatchCenter(die, config=config) as center:
            ready: asyncio.Queue[float] = asyncio.Queue()

            async def listen() -> None:
                async for event in center.events():
                    if isinstance(event, WorkerReady):
                        ready.put_nowait(event.at)

            listener = asyncio.create_task(listen())
            await asyncio.sleep(0)
            for turn in range(deaths):
                note = Path(directory, str(turn))
                outcome = await center.submit_outcome(os.fspath(note))
                check(1, outcome.fault.exit_code, number=1, expected=7)
                values.append((await ready.get() - float(note.read_text(encoding="ascii"))) * 1e3)
            listener.cancel()
    return Sample(n=deaths, values=values)


def goals(table: Table) -> list[Goal]:
    own, raw = table.middle("first: dispatch"), table.middle("first: raw to_process")
    one = table.middle("all ready: dispatch, 1 worker")
    each = table.middle("all ready: dispatch, a worker each")
    return [
        goal("first outcome: at most 1.5 times a bare to_process first call", own / raw, at_most=1.5),
        goal("workers start side by side: all ready, times one alone", each / one, at_most=1.5),
        goal(
            "replacing a dead worker of a bare runner: under 20 ms",
            table.middle("replaced: dispatch"),
            at_most=20,
        ),
    ]
