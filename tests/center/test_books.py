"""Where every shard stands: retries by cause, each with its wait, and exactly one outcome at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dispatch import (
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    Failed,
    GiveUp,
    Policy,
    Retry,
    Retrying,
    Shard,
    WorkerDied,
)
from tests.center.facts import Gate, on_both_loops, on_one_loop
from tests.center.runners import Actor, AsyncActor, Job, lines

POLICY = Policy(retry=Retry(attempts=3, wait=0.1, factor=3), crash_budget=2)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[Actor, AsyncActor], ids=["sync", "async"]
)
async def patient(request: Any) -> AsyncIterator[Any]:
    """A centre that tries three times; in both lanes."""
    config = DispatchConfig(data_parallel=1, policy=POLICY)
    async with DataParallelDispatchCenter(request.param, config=config) as center:
        yield center


@asynccontextmanager
async def retries(center: Any) -> AsyncIterator[list[Retrying]]:
    """What is said of retries meanwhile."""
    told: list[Retrying] = []

    def hear(event: Any) -> None:
        if isinstance(event, Retrying):
            told.append(event)

    center._opening.bus.join(hear)
    try:
        yield told
    finally:
        center._opening.bus.leave(hear)


def pauses(outcome: Any) -> list[float]:
    """Seconds between the end of each attempt and the start of the next."""
    attempts = outcome.attempts
    return [after.started_at - (before.started_at + before.seconds) for before, after in pairwise(attempts)]


@on_both_loops
async def test_an_attempt_that_raises_is_tried_again_after_a_growing_wait(
    patient: Any, tmp_path: Path
) -> None:
    """Waits of 0.1 and 0.3 s, then it succeeds; each attempt is on the books with its fault."""
    path = str(tmp_path / "log")
    async with retries(patient) as told:
        outcome = await patient.submit_outcome(Job("raise until", [path, 3]))
    assert isinstance(outcome, Done)
    assert outcome.value == 3
    assert [attempt.fault and attempt.fault.message for attempt in outcome.attempts] == [
        "attempt 1",
        "attempt 2",
        None,
    ]
    assert [(event.attempt, event.wait) for event in told] == [(1, 0.1), (2, pytest.approx(0.3))]
    first, second = pauses(outcome)
    assert first >= 0.099
    assert second >= 0.299


@on_both_loops
async def test_the_last_attempt_is_the_outcome(patient: Any, tmp_path: Path) -> None:
    """After `attempts` attempts the shard has failed, with the fault of the last one."""
    outcome = await patient.submit_outcome(Job("raise until", [str(tmp_path / "log"), 99]))
    assert isinstance(outcome, Failed)
    assert outcome.fault.message == "attempt 3"
    assert len(outcome.attempts) == len(lines(tmp_path / "log")) == 3


@on_both_loops
async def test_a_shard_sees_which_attempt_it_is(patient: Any, tmp_path: Path) -> None:
    """The fields of a shard survive a retry; `attempt` counts deaths and failures alike."""
    shard = Shard(Job("die", [str(tmp_path / "log"), 2]), id="again", timeout=30)
    outcome = await patient.submit_outcome(shard)
    assert isinstance(outcome, Done)
    assert [attempt.fault and attempt.fault.cause for attempt in outcome.attempts] == ["crashed", None]
    assert (
        outcome.attempts[0].pid == int(lines(tmp_path / "log")[0]) != outcome.attempts[1].pid == outcome.value
    )
    assert (outcome.shard_id, outcome.payload) == ("again", shard.payload)


@on_both_loops
async def test_giving_up_ends_a_shard_at_once(patient: Any, tmp_path: Path) -> None:
    """`raise GiveUp` fails it without another attempt."""
    outcome = await patient.submit_outcome(Job("give up", str(tmp_path / "log")))
    assert isinstance(outcome, Failed)
    assert (outcome.fault.type, outcome.fault.message, len(outcome.attempts)) == ("GiveUp", "no use", 1)
    assert len(lines(tmp_path / "log")) == 1
    with pytest.raises(GiveUp):
        outcome.unwrap()


@on_both_loops
async def test_a_runner_may_ask_for_a_later_attempt(patient: Any, tmp_path: Path) -> None:
    """`raise RetryLater(after=0.2)` gets another attempt then, and not by the policy's own wait."""
    async with retries(patient) as told:
        outcome = await patient.submit_outcome(Job("later", [str(tmp_path / "log"), 0.2]))
    assert isinstance(outcome, Done)
    assert outcome.value == 2
    assert [event.wait for event in told] == [0.2]
    assert pauses(outcome)[0] >= 0.199


@on_both_loops
async def test_deaths_have_a_budget_of_their_own(patient: Any, tmp_path: Path) -> None:
    """With `crash_budget=2` the second death is the outcome, however many attempts `retry` would allow."""
    outcome = await patient.submit_outcome(Job("die", [str(tmp_path / "log"), 99]))
    assert isinstance(outcome, Failed)
    assert (outcome.fault.cause, outcome.fault.exit_code) == ("crashed", 7)
    assert len(outcome.attempts) == len(set(lines(tmp_path / "log"))) == 2
    with pytest.raises(WorkerDied, match="exited with code 7"):
        outcome.unwrap()


@on_both_loops
async def test_a_timeout_is_tried_again(patient: Any, gate: Gate) -> None:
    """Each attempt has the whole timeout; the fault says where it hung."""
    outcome = await patient.submit_outcome(gate.job, timeout=0.05)
    assert isinstance(outcome, Failed)
    assert [attempt.fault.cause for attempt in outcome.attempts] == ["timed_out"] * 3
    assert all(attempt.seconds > 0.04 for attempt in outcome.attempts)
    assert len(gate.pids) == 3
    assert "runners.py" in outcome.fault.stack


@on_one_loop
async def test_only_the_causes_named_are_tried_again(tmp_path: Path) -> None:
    """`on` without "raised" makes the first exception the outcome; an undeliverable value is not tried again."""
    policy = Policy(retry=Retry(attempts=5, on=("timed_out",)), crash_budget=1)
    config = DispatchConfig(data_parallel=1, policy=policy, max_value_bytes=1000)
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        raised = await center.submit_outcome(Job("raise until", [str(tmp_path / "a"), 2]))
        died = await center.submit_outcome(Job("die", [str(tmp_path / "b"), 2]))
        large = await center.submit_outcome(Job("bytes", 2000))
        assert [len(outcome.attempts) for outcome in (raised, died, large)] == [1, 1, 1]
        assert large.fault.cause == "undeliverable"
        assert "over max_value_bytes=1000" in large.fault.message


@on_both_loops
async def test_every_shard_has_one_outcome_whatever_happens(patient: Any, tmp_path: Path) -> None:
    """A run in which shards raise, die, give up and succeed counts each of them once."""
    jobs: list[Job] = []
    for n in range(60):
        path = str(tmp_path / str(n))
        jobs.append([Job(arg=n), Job("raise until", [path, 2]), Job("give up", path)][n % 3])
    jobs[30] = Job("die", [str(tmp_path / "30"), 2])
    report = await patient.run(jobs)
    assert report.counts == {"done": 40, "failed": 20, "raised": 20}
    assert [outcome.index for outcome in report] == list(range(60))
    assert [len(outcome.attempts) for outcome in report][:4] == [1, 2, 1, 1]
    assert len(lines(tmp_path / "30")) == 2
    assert report.unfinished == [str(n) for n in range(2, 60, 3)]
