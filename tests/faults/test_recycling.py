"""`recycle_after`: a worker is replaced in peace, and its successor serves before it stops."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig, Done, Policy, WorkerEnded, WorkerReady
from dispatch.testing.traces import is_alive
from tests.faults.culprits import Juggler, SignsTheBook, Task
from tests.faults.forked import ForkedCulprit
from tests.faults.scene import Lateness, config, until

pytestmark = pytest.mark.asyncio


class Lives:
    """The beginnings and ends of a centre's workers, as they are told."""

    def __init__(self, center: Any) -> None:
        self.told: list[WorkerReady | WorkerEnded] = []
        self._task = asyncio.create_task(self._listen(center))

    async def _listen(self, center: Any) -> None:
        async for event in center.events():
            if isinstance(event, WorkerReady | WorkerEnded):
                self.told.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if type(event) is kind]


@pytest.mark.parametrize(
    ("runner", "isolation"), [(SignsTheBook, "worker"), (Juggler, "worker"), (ForkedCulprit, "fork")]
)
async def test_no_worker_serves_for_ever(runner: type, isolation: str) -> None:
    """In both lanes and with forks, a worker is replaced after recycle_after shards, in peace and for good."""
    center = DataParallelDispatchCenter(runner, config=config(1, recycle_after=5, isolation=isolation))
    served: Counter[int] = Counter()
    async with center:
        lives = Lives(center)
        for number in count():
            outcome = await center.submit_outcome(Task(number))
            assert isinstance(outcome, Done)
            assert len(outcome.attempts) == 1
            served[outcome.attempts[0].pid] += 1
            if len(served) == 4:
                break
        await until(lambda: len(lives.of(WorkerEnded)) >= 3)
        ended = [event.pid for event in lives.of(WorkerEnded)]
        assert all(event.expected for event in lives.of(WorkerEnded))
        assert not [pid for pid in ended if is_alive(pid)]
    assert ended[:3] == list(served)[:3]
    assert min(served[pid] for pid in ended[:3]) >= 5


async def test_the_successor_starts_before_the_predecessor_stops(tmp_path: Path, lateness: Lateness) -> None:
    """There is no gap while a worker is replaced: the next one serves before it stops, though setup takes 0.3 s."""
    policy = Policy(recycle_after=30)
    settings = DispatchConfig(data_parallel=1, policy=policy, env={"BOOK": str(tmp_path), "SETUP": "0.3"})
    async with DataParallelDispatchCenter(SignsTheBook, config=settings) as center:
        lives = Lives(center)
        report = await center.run([Task(n, "works", 0.02) for n in range(80)])
        await until(lambda: lives.of(WorkerEnded))
    assert report.counts == {"done": 80}
    assert isinstance(lives.told[0], WorkerReady)
    assert isinstance(lives.told[1], WorkerEnded)
    assert lives.told[0].worker != lives.told[1].worker
    assert str(lives.told[1].pid) in {path.name for path in tmp_path.iterdir()}  # it left by its teardown
    ends = sorted(attempt.started_at + attempt.seconds for outcome in report for attempt in outcome.attempts)
    assert max(b - a for a, b in pairwise(ends)) < 0.25 + lateness.slack


async def test_a_death_while_a_successor_starts() -> None:
    """A worker that dies while its successor is starting is replaced once, and no shard is lost."""
    shards = [Task(n, "exits" if n % 15 == 14 else "works", 0.005) for n in range(75)]
    center = DataParallelDispatchCenter(SignsTheBook, config=config(2, recycle_after=12, crash_budget=1))
    async with center:
        report = await center.run(shards)
        serving = [worker for worker in center.snapshot().workers if worker.state in ("ready", "starting")]
        assert 2 <= len(serving) <= 4  # two, and the successors of the two
    assert report.counts == {"done": 70, "failed": 5, "crashed": 5}
    assert {outcome.fault.exit_code for outcome in report.failures} == {1}
    assert {len(outcome.attempts) for outcome in report.outcomes} == {1}
