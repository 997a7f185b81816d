"""Faults among shards that share a worker and its event loop: a deadline costs one task, stubbornness the worker."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from dispatch import DataParallelDispatchCenter, Done, Shard
from tests.faults import culprits
from tests.faults.culprits import Juggler, Task
from tests.faults.scene import Lateness, config, failed, run, uncharged, until

pytestmark = pytest.mark.asyncio


async def test_a_deadline_cancels_one_task(lateness: Lateness) -> None:
    """A task over its deadline is cancelled in its worker; its neighbours there go on, and so does the worker."""
    shards = [Task(n, "hangs" if n == 3 else "rests", 0.3) for n in range(8)]
    report = await run(
        Juggler, [Shard(task, timeout=0.2 if task.number == 3 else None) for task in shards], workers=1
    )
    outcome = failed(report, 3)
    assert outcome.fault.cause == "timed_out"
    assert 0.199 <= outcome.attempts[0].seconds < 0.4 + lateness.slack
    uncharged(report, but=[3])
    assert len(report.workers[0].pids) == 1


async def test_the_await_chain_of_a_task_that_hung() -> None:
    """The fault of a task that hung shows its await chain, outermost first, down to where it waits."""
    fault = failed(await run(Juggler, [Task(0, "hangs")], timeout=0.1), 0).fault
    assert fault.stack.index("in do_run") < fault.stack.index("in hangs") < fault.stack.index("in innermost")
    assert "/dispatch/worker/" not in fault.stack


async def test_a_task_that_cleans_up_in_time() -> None:
    """A task that needs less than cancel_grace to end after its cancellation costs no worker."""
    shards = [Task(0, "cleans_up", 0.05), Task(1, "rests", 0.01)]
    report = await run(Juggler, shards, workers=1, timeout=0.1, cancel_grace=2.0)
    assert failed(report, 0).fault.cause == "timed_out"
    assert len(report.workers[0].pids) == 1


async def test_a_task_that_answers_its_cancellation_with_a_value() -> None:
    """A value that a task returns after its deadline counts: the work was done, and is not thrown away."""
    report = await run(Juggler, [Task(0, "turns_it_into_a_value")], workers=1, timeout=0.1, cancel_grace=2.0)
    assert report.total == 1
    assert sum(report.counts.get(kind, 0) for kind in ("done", "failed")) == 1


async def test_a_task_that_refuses_to_end(lateness: Lateness) -> None:
    """A task that outlives cancel_grace costs its worker and is charged; its neighbours run again uncharged."""
    shards = [Task(n, "refuses" if n == 3 else "rests", 0.4) for n in range(8)]
    report = await run(
        Juggler,
        [Shard(task, timeout=0.2 if task.number == 3 else None) for task in shards],
        workers=1,
        cancel_grace=0.1,
    )
    outcome = failed(report, 3)
    assert outcome.fault.cause == "timed_out"
    assert 0.3 <= outcome.attempts[0].seconds < 0.2 + 0.1 + 0.2 + lateness.slack
    assert "in refuses" in outcome.fault.stack
    assert "Await chain" in outcome.fault.stack
    assert "killed after 0." in outcome.fault.message
    uncharged(report, but=[3])
    assert len(report.workers[0].pids) == 2


async def test_two_tasks_that_refuse_to_end() -> None:
    """Of two late tasks in one worker the one whose time was up first is charged; the other has its turn after it."""
    shards = [
        Shard(Task(0, "refuses"), timeout=0.3),
        Shard(Task(1, "refuses"), timeout=0.2),
        Shard(Task(2, "cleans_up", 0.05), timeout=0.25),
        *(Task(n, "rests", 0.3) for n in range(3, 6)),
    ]
    report = await run(Juggler, shards, workers=1, cancel_grace=0.2)
    assert report.counts == {"done": 3, "failed": 3, "timed_out": 3}
    assert {len(outcome.attempts) for outcome in report.outcomes} == {1}
    uncharged(report, but=[0, 1, 2])


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (culprits.leaves, "SystemExit"),
        (culprits.raises_keyboard_interrupt, "KeyboardInterrupt"),
        (culprits.raises_generator_exit, "GeneratorExit"),
        (culprits.raises_cancelled, "CancelledError"),
    ],
)
async def test_an_exception_that_would_end_the_loop(act: Any, kind: str) -> None:
    """A SystemExit in one task, and its kind, is that task's alone: the loop and the neighbours go on."""
    shards = [Task(n, act.__name__ if n == 3 else "rests", 0.05) for n in range(8)]
    report = await run(Juggler, shards, workers=1)
    fault = failed(report, 3).fault
    assert (fault.cause, fault.type) == ("raised", kind)
    uncharged(report, but=[3])
    assert len(report.workers[0].pids) == 1


@pytest.mark.parametrize(
    "act", [culprits.returns_a_lock, culprits.returns_too_much, culprits.returns_another_shape]
)
async def test_a_value_that_cannot_travel(act: Any) -> None:
    """What cannot be encoded is undeliverable in the async lane too, and its neighbours are Done."""
    shards = [Task(n, act.__name__ if n == 3 else "rests", 0.01) for n in range(8)]
    report = await run(Juggler, shards, workers=1)
    assert failed(report, 3).fault.cause == "undeliverable"
    uncharged(report, but=[3])


@pytest.mark.parametrize("act", ["hangs", "refuses"])
async def test_cancelling_a_submit_stops_its_task_only(act: str) -> None:
    """A submit that is cancelled ends its task in the worker, at the worker's cost if need be, and no other's."""
    center = DataParallelDispatchCenter(Juggler, config=config(1))
    async with center:
        import asyncio

        neighbour = asyncio.create_task(center.submit_outcome(Task(1, "rests", 0.5)))
        victim = asyncio.create_task(center.submit(Task(0, act)))
        await until(lambda: center.snapshot().in_flight == 2)
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim
        outcome = await neighbour
        assert isinstance(outcome, Done)
        assert len(outcome.attempts) == 1


async def test_a_stopped_loop_is_killed(lateness: Lateness) -> None:
    """A task that stops its process is found out within a second; alone again it is charged, neighbours are Done."""
    shards = [Task(n, "stops_itself" if n == 3 else "rests", 0.05) for n in range(8)]
    report = await run(Juggler, shards, workers=1, crash_budget=1)
    outcome = failed(report, 3)
    assert (outcome.fault.cause, outcome.fault.signal) == ("crashed", signal.SIGSTOP)
    uncharged(report, but=[3])


async def test_a_task_that_swallows_memory() -> None:
    """Past `memory_limit` the worker is killed; the shard that held the loop is charged, its neighbours run again."""
    shards = [Task(n, "swallows_memory" if n == 5 else "rests", 0.05) for n in range(40)]
    report = await run(Juggler, shards, workers=1, memory_limit=128 << 20, crash_budget=1)
    uncharged(report, but=[5])
    assert failed(report, 5).fault.cause == "out_of_memory"
