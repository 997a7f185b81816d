"""Programs that hold a centre, to be interrupted from outside: `python -m tests.faults.programs NAME [WORDS]`.

Each says what it has reached, a line for a fact, and is ended by whoever reads that.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

from dispatch import (
    DataParallelDispatchCenter,
    DispatchConfig,
    JournalError,
    LocalDispatchCenter,
    WorkerState,
)
from tests.faults.culprits import Culprit, Juggler, Task, double
from tests.faults.scene import A_LOOK, config, until, wait_until

DAEMONS = [
    Task(20, "leaves_a_child"),
    Task(21, "leaves_a_daemon"),
    Task(22, "leaves_a_stubborn_daemon"),
]


def say(*words: Any) -> None:
    """Tell a fact."""
    print(*words, flush=True)


async def ctrl_c(_words: list[str]) -> None:
    """An application that handles Ctrl-C and goes on: says `wrong` for every answer that is not to its question."""
    heard = 0

    def hear() -> None:
        nonlocal heard
        heard += 1

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, hear)
    async with DataParallelDispatchCenter(Culprit, config=config(2)) as center:
        say("open")
        number = 0
        for interrupts in range(1, 101):
            os.killpg(0, signal.SIGINT)
            answers = await asyncio.gather(*(center.submit(Task(number + n)) for n in range(4)))
            for n, answer in enumerate(answers):
                if answer.double != 2 * (number + n):
                    say("wrong", number + n, answer)
            number += 4
            await until(lambda wanted=interrupts: heard >= wanted)
        pids = {seat.pid for seat in center.snapshot().workers}
        say("asked", number, "interrupted", heard, "pids", len(pids))
    say("closed")


async def ctrl_c_while_starting(_words: list[str]) -> None:
    """The same while workers start: ten openings, each interrupted as soon as its first process is there."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    for opening in range(10):
        center = DataParallelDispatchCenter(Culprit, config=config(2))
        task = asyncio.create_task(center.open())
        await until(_has_child)
        for _ in range(opening):
            await asyncio.sleep(0)
        os.killpg(0, signal.SIGINT)
        await task
        answers = [await center.submit(Task(n)) for n in range(4)]
        if [answer.double for answer in answers] != [0, 2, 4, 6]:
            say("wrong", answers)
        await center.aclose()
    say("closed")


def _has_child() -> bool:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return bool(file.read().strip())


async def stopped_host(_words: list[str]) -> None:
    """Runs shards of 0.2 s with a timeout of 0.6 s; is stopped and continued from outside meanwhile."""
    center = DataParallelDispatchCenter(Culprit, config=config(2, timeout=0.6))
    async with center:
        say("open")
        report = await center.run([Task(n, "sleeps_for", 0.2) for n in range(16)])
    say("counts", report.counts, max(len(outcome.attempts) for outcome in report.outcomes))


async def stalled_loop(_words: list[str]) -> None:
    """The same, with an event loop that something blocks for 3 s in the middle."""
    center = DataParallelDispatchCenter(Culprit, config=config(2, timeout=0.6))
    async with center:
        running = asyncio.create_task(center.run([Task(n, "sleeps_for", 0.2) for n in range(16)]))
        await until(lambda: center.snapshot().counts["done"] >= 2)
        time.sleep(3)
        report = await running
    say("counts", report.counts, max(len(outcome.attempts) for outcome in report.outcomes))


async def busy(words: list[str]) -> None:
    """Runs shards that leave children, daemons and hang; says `busy` when every worker hangs."""
    kind, act = words
    runner = Juggler if kind == "juggler" else Culprit
    center = DataParallelDispatchCenter(
        runner, config=config(2, isolation="fork" if kind == "fork" else "worker")
    )
    say("opening")
    async with center:
        say("open")
        await center.run([*map(Task, range(20)), *DAEMONS])
        async with center.stream(Task(number, act) for number in count()):
            await until(lambda: all(_has_work(worker, kind) for worker in center.snapshot().workers))
            say("busy")
            await asyncio.get_running_loop().create_future()


def _has_work(worker: WorkerState, kind: str) -> bool:
    return bool(worker.in_flight >= 8 if kind == "juggler" else worker.shard_id)


async def closing(_words: list[str]) -> None:
    """Says `closing` while its workers are in their teardown, which takes long."""
    from tests.faults.culprits import SlowTeardown

    center = DataParallelDispatchCenter(SlowTeardown, config=config(2, grace=60.0))
    async with center:
        await center.run([Task(n) for n in range(20)])
        say("closing")


async def recorded(words: list[str]) -> None:
    """Ten shards that wait at a gate, recorded; says `running` when two are there, and `attempts` at the end."""
    work_dir, gate = words
    shards = [[gate, n] for n in range(10)]
    one = DispatchConfig(data_parallel=2, work_dir=work_dir)
    async with DataParallelDispatchCenter(at_a_gate, config=one) as center:
        run = asyncio.create_task(center.run(shards))
        while not run.done() and not all(os.path.exists(f"{gate}.{n}") for n in range(2)):
            await asyncio.sleep(A_LOOK)
        say("running")
        report = await run
    say("attempts", *(len(outcome.attempts) for outcome in report))


def at_a_gate(where: tuple[str, int]) -> None:
    """Come to a gate, and wait until it is open."""
    gate, number = where
    Path(f"{gate}.{number}").touch()
    wait_until(Path(f"{gate}.go").exists, within=30)


async def full_disk(words: list[str]) -> None:
    """A recorded run that may write files of 1 MiB; says what its caller has seen, then the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    one = DispatchConfig(work_dir=words[0], max_pending=100)
    try:
        async with LocalDispatchCenter(double, range(20_000), config=one).stream() as outcomes:
            async for outcome in outcomes:
                say(outcome.shard_id)
    except JournalError as error:
        say(type(error).__name__, error)


def start(words: list[str]) -> None:
    """A run under `start()`: the first two shards are quick; the others tell that they start, and take their time."""
    seconds, grace, *more = words
    total = int(more[0]) if more else 20
    shards = (Task(n, "announces" if n > 1 else "", float(seconds)) for n in range(total))
    DataParallelDispatchCenter(Culprit, shards, config=config(2, grace=float(grace))).start()


PROGRAMS: dict[str, Callable[[list[str]], Any]] = {
    program.__name__: program
    for program in (
        ctrl_c,
        ctrl_c_while_starting,
        stopped_host,
        stalled_loop,
        busy,
        closing,
        recorded,
        full_disk,
    )
}

if __name__ == "__main__":
    name, *words = sys.argv[1:]
    if name == "start":
        start(words)
    elif words and words[0] == "uvloop":
        uvloop.run(PROGRAMS[name](words[1:]))
    else:
        asyncio.run(PROGRAMS[name](words))
