"""Who is charged for a worker's death: the shard that ran, by the slot and no guess; where nobody knows, nobody."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from dispatch import DataParallelDispatchCenter, Done, Failed, Report, Retry, Shard
from tests.faults.culprits import Culprit, Juggler, Task
from tests.faults.scene import Lateness, config, failed, run, uncharged

pytestmark = pytest.mark.asyncio


def causes(report: Report[Any], index: int) -> list[str]:
    """Why each failed attempt of a shard failed."""
    return [attempt.fault.cause for attempt in report.outcomes[index].attempts if attempt.fault is not None]


async def test_a_poison_rate_of_a_fifth() -> None:
    """Where every fifth shard kills its worker, each of them spends its crash budget, no innocent one an attempt."""
    poison = range(0, 200, 5)
    shards = [Task(n, "exits" if n in poison else "") for n in range(200)]
    report = await run(Culprit, shards)
    uncharged(report, but=poison)
    for n in poison:
        assert isinstance(report.outcomes[n], Failed)
        assert causes(report, n) == ["crashed", "crashed"]
        assert {attempt.fault.exit_code for attempt in report.outcomes[n].attempts} == {1}
    assert report.counts == {"done": 160, "failed": 40, "crashed": 40}


@pytest.mark.parametrize("budget", [1, 3])
async def test_the_crash_budget_ends_a_poison_shard(budget: int) -> None:
    """A shard that always kills its worker runs exactly crash_budget times, each time in another process."""
    shards = [Task(n, "kills_itself" if n == 9 else "") for n in range(40)]
    report = await run(Culprit, shards, crash_budget=budget)
    outcome = failed(report, 9)
    assert causes(report, 9) == ["crashed"] * budget
    assert len({attempt.pid for attempt in outcome.attempts}) == budget
    uncharged(report, but=[9])


@pytest.mark.parametrize(
    ("act", "isolation"),
    [("kills_its_nanny", "worker"), ("kills_its_nanny_from_a_fork", "fork")],
)
async def test_a_shard_that_kills_its_nanny(act: str, isolation: str) -> None:
    """Nobody saw what ran: whoever was there twice runs alone, so the poison ends, and nobody else is charged."""
    shards = [Task(n, act if n == 9 else "") for n in range(40)]
    report = await run(Culprit, shards, crash_budget=1, isolation=isolation)
    uncharged(report, but=[9])
    outcome = failed(report, 9)
    assert causes(report, 9) == ["crashed"]
    assert "its nanny died" in outcome.fault.message


async def test_a_long_shard_that_undid_our_handlers_is_done() -> None:
    """What we signal a long shard for (its neighbours' outcomes) does not kill it."""
    report = await run(
        Culprit, [Task(0), Task(1, "undoes_our_handlers", 0.4), Task(2)], workers=1, crash_budget=1
    )
    assert report.counts == {"done": 3}


async def test_deaths_and_failures_have_budgets_of_their_own() -> None:
    """A shard may die crash_budget - 1 times and raise attempts - 1 times, and still be Done."""
    report = await run(
        Culprit, [Task(0, "dies_then_raises_then_works")], crash_budget=2, retry=Retry(attempts=2)
    )
    assert report.counts == {"done": 1}
    assert causes(report, 0) == ["crashed", "raised"]
    assert report.outcomes[0].value.attempt == 3


async def test_a_death_while_outcomes_wait_to_be_sent() -> None:
    """Shards whose outcomes died with their worker run again uncharged: run at least once, told once."""
    shards = [Task(n, "exits" if n % 50 == 49 else "") for n in range(1000)]
    report = await run(Culprit, shards, workers=1, crash_budget=1)
    uncharged(report, but=range(49, 1000, 50))
    assert report.counts["crashed"] == 20


async def test_a_worker_that_is_killed_from_outside_while_it_idles() -> None:
    """A worker that dies between two shards costs nobody an attempt."""
    center = DataParallelDispatchCenter(Culprit, config=config(1, crash_budget=1))
    async with center:
        first = await center.submit(Task(1))
        os.kill(first.pid, signal.SIGKILL)
        second = await center.submit_outcome(Task(2))
        assert isinstance(second, Done)
        assert len(second.attempts) == 1
        assert second.value.pid != first.pid


# The async lane: several shards run in the worker that dies.


async def test_a_sole_async_shard_is_charged() -> None:
    """An async shard that was alone in the worker it killed is charged at once."""
    report = await run(Juggler, [Task(0, "exits")], crash_budget=1)
    assert causes(report, 0) == ["crashed"]
    assert len(report.outcomes[0].attempts) == 1


async def test_every_suspect_runs_again_alone() -> None:
    """When a worker dies with several async shards, nobody is charged; alone, the guilty one is, and only it."""
    shards = [Task(n, "rests_then_exits" if n == 5 else "rests", 0.05) for n in range(8)]
    report = await run(Juggler, shards, workers=1, crash_budget=1)
    assert causes(report, 5) == ["crashed"]
    assert len(report.outcomes[5].attempts) == 1
    uncharged(report, but=[5])
    assert len(report.workers[0].pids) == 3  # the shared death, the death alone, and the last one


async def test_a_fifth_of_async_shards_is_poison() -> None:
    """Under a poison rate of 20 % in the async lane every innocent shard ends Done without a charged attempt."""
    poison = range(0, 40, 5)
    shards = [Task(n, "rests_then_exits" if n in poison else "rests", 0.01) for n in range(40)]
    report = await run(Juggler, shards, crash_budget=1)
    uncharged(report, but=poison)
    assert report.counts["crashed"] == len(poison)


async def test_a_task_that_blocks_the_loop(lateness: Lateness) -> None:
    """A task that holds its loop past its deadline is charged, with the line where; the tasks beside it run again."""
    shards = [Task(n, "blocks" if n == 2 else "rests", 0.2) for n in range(6)]
    report = await run(Juggler, shards, workers=1, timeout=0.5)
    outcome = failed(report, 2)
    assert outcome.fault.cause == "timed_out"
    assert "in blocks" in outcome.fault.stack
    assert outcome.attempts[0].seconds < 0.5 + 0.1 + 0.2 + lateness.slack
    uncharged(report, but=[2])


async def test_the_blocker_is_charged_and_not_whose_deadline_it_broke() -> None:
    """Where a task without a deadline holds the loop past its neighbours' deadlines, the blocker is charged."""
    shards = [
        *(Shard(Task(n, "rests", 0.1), timeout=0.4) for n in range(3)),
        Shard(Task(3, "blocks"), timeout=60.0),
    ]
    report = await run(Juggler, shards, workers=1)
    assert failed(report, 3).fault.cause == "timed_out"
    uncharged(report, but=[3])
