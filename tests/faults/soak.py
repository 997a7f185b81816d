"""The soak: `python -m tests.faults.soak [SHARDS [SEED]]`, or `make soak`.

Many shards on 2 workers, while another task kills a random runner process or nanny every 250 ms. Budgets are
unlimited, the timeout is 1 s. In the end every shard has exactly one outcome, and the sum over the values is right.

On a machine so loaded that 250 ms is less than a worker needs to start, the next kill waits for the next outcome.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from dispatch import DataParallelDispatchCenter, DispatchConfig, Done, Policy, Report, Retry
from tests.faults.scene import until

EVERY = 0.25  # seconds between kills
UNLIMITED = 1_000_000
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)


class Soaked(Struct):
    """What came of a soak."""

    report: Report[int]
    kills: Counter[str]
    seconds: float


def square(number: int) -> int:
    """A shard: a millisecond of work."""
    until = time.monotonic() + 0.001
    while time.monotonic() < until:
        pass
    return number * number


async def soak(shards: int, *, seed: int, every: float = EVERY) -> Soaked:
    """Run so many shards among kills. Raises AssertionError if a shard was lost, or told twice, or told wrongly."""
    policy = Policy(
        timeout=1.0,
        startup_timeout=5.0,  # a process that is stopped before it says hello is noticed by nothing else
        crash_budget=UNLIMITED,
        retry=Retry(attempts=UNLIMITED, on=("raised", "timed_out", "crashed", "out_of_memory")),
    )
    center = DataParallelDispatchCenter(square, config=DispatchConfig(data_parallel=2, policy=policy))
    kills: Counter[str] = Counter()
    began = time.monotonic()
    async with center:
        killing = asyncio.create_task(_kill(center, random.Random(seed), kills, every=every))
        report = await center.run(range(shards))
        killing.cancel()
    indexes = [outcome.index for outcome in report.outcomes]
    assert indexes == list(range(shards))
    assert [outcome for outcome in report.outcomes if not isinstance(outcome, Done)] == []
    assert sum(report.values()) == sum(number * number for number in range(shards))
    return Soaked(report, kills, time.monotonic() - began)


async def _kill(center: Any, dice: random.Random, kills: Counter[str], *, every: float) -> None:
    while True:
        await asyncio.sleep(every)  # the pace is the fault
        done = center.snapshot().counts["done"]
        await until(lambda before=done: center.snapshot().counts["done"] > before, within=60)
        nannies = _children(os.getpid())
        runners = [pid for nanny in nannies for pid in _children(nanny)]
        who, pids = dice.choice([("runner", runners), ("nanny", nannies)])
        if not pids:
            continue
        number = dice.choice(SIGNALS)
        with suppress(ProcessLookupError):
            os.kill(dice.choice(pids), number)
            kills[f"{who} {signal.Signals(number).name}"] += 1


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def main() -> None:
    """Soak, and say how it went."""
    shards, seed = [*map(int, sys.argv[1:]), *(20_000, int(time.time()))[len(sys.argv) - 1 :]]
    print(f"soak: {shards:,} shards on 2 workers, seed {seed}", flush=True)
    soaked = asyncio.run(soak(shards, seed=seed))
    print(soaked.report)
    attempts = Counter(len(outcome.attempts) for outcome in soaked.report.outcomes)
    print(
        f"\n{sum(soaked.kills.values())} kills in {soaked.seconds:.0f} s: {dict(sorted(soaked.kills.items()))}"
    )
    print(f"attempts: {dict(sorted(attempts.items()))}; every shard has one outcome, and the sum is right")


if __name__ == "__main__":
    main()
