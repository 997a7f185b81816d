"""Each check can say no: engines and centres that break one promise are caught by the check of that promise."""

import pytest

from dispatch import DataParallelDispatchCenter
from dispatch.engines.inline import InlineEngine
from dispatch.engines.process import ProcessEngine
from dispatch.testing import (
    CENTER_PROMISES,
    ENGINE_PROMISES,
    check_center,
    check_engine,
    contract,
    engine_promises,
    proof,
    traces,
)
from tests.contract import broken
from tests.contract.broken import retrying, telling

ENGINES = [  # the engine, the promise that it breaks, what the check says
    (telling(InlineEngine, broken.NeverReady), "a_life_begins_with_ready", "no Ready"),
    (telling(InlineEngine, broken.FromAThread), "a_life_begins_with_ready", "outside the event loop"),
    (telling(InlineEngine, broken.SilentAboutFailedStarts), "a_failed_start_is_told", "the reason is not in"),
    (telling(InlineEngine, broken.EndsFirst), "a_runner_is_told_before_its_end", "after the end"),
    (telling(InlineEngine, broken.EndsTwice), "kill_ends_a_life_once", "2 ends"),
    (broken.ByeKills, "bye_ends_a_life_in_peace", "not finished"),
    (broken.DeafToFences, "a_fence_holds", "delivered"),
    (broken.FenceAlwaysKills, "a_fence_kills_only_what_it_names", "not answered"),
    (broken.OneLife, "one_life_follows_another", "no Ready"),
    (broken.DeadMenRaise, "the_dead_hear_nothing", "KeyError"),
    (broken.KillsAll, "workers_are_apart", "was lost"),
    (broken.KeepsTheReleased, "a_released_worker_keeps_nothing", "were 4 processes"),
    (broken.Leaves, "closing_is_bounded", "left behind"),
    (broken.LeakyOpening, "a_cancelled_opening_leaves_nothing", "left behind"),
    (telling(ProcessEngine, broken.WrongExitCode), "a_death_is_told_exactly", "exit_code=8"),
    (telling(ProcessEngine, broken.NoStack), "a_deadline_ends_a_runner", "where it hung"),
]
UNTRIED = {"the_whole_tree_goes"}  # it takes a broken nanny, and that runs in another process: tried by hand

CENTERS = [  # the centre, the promise that it breaks, what the check says
    (broken.Loses, "each_shard_has_one_outcome", "1 of 200 outcomes are missing"),
    (broken.Repeats, "each_shard_has_one_outcome", "two outcomes"),
    (broken.Reverses, "order_is_kept", "run: "),
    (broken.Eager, "an_endless_source_is_read_lazily", "ReadTooFar"),
    (broken.Brakeless, "an_endless_source_is_read_lazily", "ReadTooFar"),
    (broken.StandsStill, "the_consumers_pace_is_the_brake", "stood still"),
    (retrying(-1), "retries_keep_their_budget", "third attempt"),
    (retrying(+1), "retries_keep_their_budget", "4 were made"),
    (retrying(+1), "runners_steer_their_retries", "passed its budget"),
    (broken.ChargesInnocents, "faults_cost_themselves_only", "Exit"),
    (broken.AnswersTheOneBefore, "submit_gives_the_value", "its own number"),
    (broken.NeverClosed, "submit_gives_the_value", "closed centre"),
    (broken.OneAtATime, "doors_are_apart", "Not over within 2 s"),
    (broken.ColdWorkers, "workers_stay_warm", "processes"),
    (broken.LeavesItsEngine, "leaving_early_leaves_nothing", "left behind"),
    (broken.PostsTwice, "post_process_is_called_once", "after a run"),
    (broken.SwallowsSourceErrors, "a_broken_source_loses_nothing", "as if it had not"),
    (broken.AnyId, "ids_are_unique", "nobody complained"),
    (broken.ClosesAtOnce, "closing_finishes_what_was_accepted", "Cancelled"),
    (broken.NeverDrains, "draining_starts_nothing_new", "were cancelled"),
]


@pytest.fixture
def impatient(monkeypatch):
    """What does not happen soon is taken not to happen: threads are fast, or broken; processes get their time."""

    def wait_less(subject) -> None:
        monkeypatch.setattr(engine_promises, "RELEASING", 0.3)
        if not issubclass(subject, ProcessEngine | DataParallelDispatchCenter):
            monkeypatch.setattr(proof, "PATIENCE", 0.8)
            monkeypatch.setattr(traces, "WITHIN", 0.5)
        if subject is broken.OneAtATime:
            monkeypatch.setattr(contract, "PATIENCE", 2.0)

    return wait_less


def named(promises, name):
    """The promise of this name."""
    return [promise for promise in promises if promise.__name__ == name]


@pytest.mark.asyncio
@pytest.mark.parametrize(("engine", "promise", "says"), ENGINES)
async def test_a_broken_engine_is_caught(impatient, engine, promise, says) -> None:
    """An engine that breaks a promise fails its check, and the error names the promise and what was seen."""
    impatient(engine)
    with pytest.raises(AssertionError, match=f"(?s)broken promise: .*{says}"):
        await check_engine(engine, promises=named(ENGINE_PROMISES, promise))
    if hasattr(engine, "tidy"):
        await engine.tidy()


@pytest.mark.asyncio
@pytest.mark.parametrize(("center", "promise", "says"), CENTERS)
async def test_a_broken_centre_is_caught(impatient, center, promise, says) -> None:
    """A centre that breaks a promise fails its check, and the error names the promise and what was seen."""
    impatient(center)
    with pytest.raises(AssertionError, match=f"(?s)broken promise: .*{says}"):
        await check_center(center, promises=named(CENTER_PROMISES, promise))
    await broken.Leaves.tidy()


def test_every_promise_is_tried() -> None:
    """No promise is without an engine or a centre that breaks it."""
    assert {row[1] for row in ENGINES} | UNTRIED == {promise.__name__ for promise in ENGINE_PROMISES}
    assert {row[1] for row in CENTERS} == {promise.__name__ for promise in CENTER_PROMISES}
