"""What runners say, ask and hear while they work costs no worker, no value and no neighbour."""

from __future__ import annotations

import logging
import signal
from typing import Any

import anyio
import pytest

from dispatch import DataParallelDispatchCenter, Done, Event, Failed, Progressed, Shard, StartupFailed
from tests.faults import culprits
from tests.faults.culprits import Culprit, Task
from tests.faults.scene import Lateness, config, failed, run, uncharged
from tests.faults.talkers import (
    Answers,
    AsksInAHandler,
    Busy,
    Cancels,
    FromAThread,
    Impatient,
    LeavesAThread,
    LongPoll,
    NoKey,
    NoNumber,
    Pool,
    Surrogates,
)

pytestmark = pytest.mark.asyncio
PATIENCE = 30.0  # seconds


async def test_what_is_printed_need_not_be_unicode(caplog: pytest.LogCaptureFixture) -> None:
    """Lone surrogates are shown escaped, and what a failing async shard printed is known to be its own."""
    with caplog.at_level(logging.INFO, logger="dispatch.runner"), anyio.fail_after(PATIENCE):
        report = await run(Surrogates, range(4), workers=1)
    assert report.counts == {"done": 2, "failed": 2, "raised": 2}
    said: dict[Any, str] = {vars(each)["dispatch_shard"]: each.getMessage() for each in caplog.records}
    assert said == {str(n): f"caf\\udce9 {n}" for n in range(4)}
    assert [outcome.fault.output for outcome in report.failures if isinstance(outcome, Failed)] == [
        f"caf\\udce9 {n}\n" for n in (1, 3)
    ]


async def test_a_thread_that_waits_for_an_answer_holds_nobody_up() -> None:
    """While a runner's thread waits for an answer that does not come, shards come, ask and are answered."""
    async with Answers(LongPoll, config=config(1, grace=0.1)) as center:
        with anyio.fail_after(PATIENCE):
            assert [await center.submit(n) for n in range(100)] == list(range(100))


async def test_an_answer_that_is_cancelled_is_told() -> None:
    """A @remote method that ends by somebody else's cancellation is an exception for its runner, and no silence."""
    with anyio.fail_after(PATIENCE):
        report = await Answers(Cancels, [1], config=config(1)).run()
    fault = failed(report, 0).fault
    assert fault.cause == "raised"
    assert "CancelledError" in fault.message


@pytest.mark.parametrize("isolation", ["worker", "fork"])
async def test_threads_of_one_shard_get_their_own_answers(isolation: str) -> None:
    """Questions from several threads at once are each answered with their own answer."""
    with anyio.fail_after(PATIENCE):
        report = await Answers(Pool, [1, 2], config=config(1, isolation=isolation)).run()
    assert [outcome.unwrap() for outcome in report] == [list(range(8))] * 2


async def test_a_question_that_is_given_up_holds_nobody_up() -> None:
    """A thread still gets its answer when the one that read for it has left its question by an exception."""
    with anyio.fail_after(PATIENCE):
        report = await Answers(Impatient, [5, 6], config=config(1)).run()
    assert [outcome.unwrap() for outcome in report] == [5, 6]


@pytest.mark.parametrize("isolation", ["worker", "fork"])
async def test_a_signal_handler_that_asks_within_a_question(isolation: str) -> None:
    """It is refused, with the reason: what it would read, the wait below it could not see."""
    with anyio.fail_after(PATIENCE):
        report = await Answers(AsksInAHandler, [1], config=config(1, isolation=isolation)).run()
    assert "a signal handler may not ask the centre" in failed(report, 0).fault.message


async def test_progress_that_is_no_number_fails_its_shard_only() -> None:
    """What is no number is an error where it is said; the worker lives, and its neighbours are Done."""
    report = await run(NoNumber, range(6), workers=1)
    assert failed(report, 1).fault.type == "ValueError"
    uncharged(report, but=[1])
    assert len(report.workers[0].pids) == 1


async def test_progress_from_a_thread_of_an_async_runner() -> None:
    """It comes through the loop, in order, and with the shard that it is of."""
    center = DataParallelDispatchCenter(FromAThread, range(20), config=config(1))
    told: dict[str, list[float]] = {}

    def hear(event: Event) -> None:
        if isinstance(event, Progressed):
            told.setdefault(event.shard_id, []).append(event.done)

    center.on_event = hear
    report = await center.run()
    assert report.counts == {"done": 20}
    assert {shard_id: steps[-1] for shard_id, steps in told.items()} == {str(n): 100.0 for n in range(20)}
    assert all(steps == sorted(steps) for steps in told.values())


async def test_a_thread_that_is_left_behind_does_not_hold_up_the_end() -> None:
    """A centre closes long before its grace is over, whatever threads an async runner has left in its worker."""
    with anyio.fail_after(PATIENCE):
        report = await DataParallelDispatchCenter(LeavesAThread, [1], config=config(1, grace=600.0)).run()
    assert report.counts == {"done": 1}


async def test_what_an_async_setup_raises_is_told() -> None:
    """With its message, as from a sync one."""
    with pytest.raises(StartupFailed, match="there is no key"):
        await run(NoKey, [1], workers=1)


async def test_a_host_that_ignores_sigchld(lateness: Lateness) -> None:
    """Nannies do not inherit that their children are nobody's: a deadline is charged, exactly once."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with anyio.fail_after(PATIENCE):
            report = await run(Culprit, [Task(0, culprits.sleeps.__name__), Task(1)], workers=1, timeout=0.3)
    finally:
        signal.signal(signal.SIGCHLD, handler)
    outcome = failed(report, 0)
    assert outcome.fault.cause == "timed_out"
    assert outcome.attempts[0].seconds < 0.5 + lateness.slack


async def test_a_busy_neighbour_is_not_charged() -> None:
    """Who holds the loop for a part of the grace only is not what keeps a late task from ending."""
    shards = [Shard("refuses", id="refuses", timeout=0.25), Shard("works", id="works")]
    with anyio.fail_after(PATIENCE):
        center = DataParallelDispatchCenter(Busy, shards, config=config(1, cancel_grace=0.5))
        report = await center.run()
    refused, worked = report.outcomes
    assert isinstance(refused, Failed)
    assert refused.fault.cause == "timed_out"
    assert isinstance(worked, Done)
    assert len(worked.attempts) == 1
