"""What became of a shard, as its caller sees it: values, errors, evidence, history."""

from typing import Any

import pytest

from dispatch.terms.errors import (
    OutOfMemory,
    ShardCancelled,
    ShardError,
    ShardTimeout,
    StartupFailed,
    Undeliverable,
    WorkerDied,
)
from dispatch.terms.outcome import Attempt, Cancelled, Done, Failed, Fault
from dispatch.terms.shard import Entry, Origin, WorkerInfo

ORIGIN = Origin(1, lambda data: ("decoded", data))


def entry(**known: Any) -> Entry:
    """Return a shard on the books."""
    return Entry(**{"index": 4, "payload": b"\x07", "origin": ORIGIN, "ready_at": 5.0, **known})


# --------------------------------------------------------------------------------------- the causes


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("timed_out", ShardTimeout),
        ("crashed", WorkerDied),
        ("lost", WorkerDied),
        ("out_of_memory", OutOfMemory),
        ("undeliverable", Undeliverable),
        ("startup", StartupFailed),
    ],
)
def test_each_cause_has_its_error(cause: Any, kind: type[ShardError]) -> None:
    """`unwrap` raises the error that stands for the cause; shard, message and fault are in it."""
    fault = Fault(cause=cause, message="it hung", stack="File x, line 3")
    with pytest.raises(kind, match="shard q17: it hung") as raised:
        Failed(fault=fault, entry=entry(id="q17")).unwrap()
    assert (raised.value.shard, raised.value.fault) == ("q17", fault)
    assert "line 3" in str(raised.value.__cause__)  # where it hung


def test_a_timeout_is_a_timeout_error() -> None:
    """Whoever catches TimeoutError catches it."""
    with pytest.raises(TimeoutError):
        Failed(fault=Fault(cause="timed_out", message="late")).unwrap()


def test_without_evidence_there_is_no_cause_to_show() -> None:
    """An error with neither traceback nor stack has no empty one."""
    with pytest.raises(WorkerDied) as raised:
        Failed(fault=Fault(cause="crashed", message="gone")).unwrap()
    assert raised.value.__cause__ is None


def test_a_fault_is_one_line() -> None:
    """The cause, the type where there is one, and the first line of the message."""
    assert str(Fault(cause="raised", type="ValueError", message="a\nb")) == "raised: ValueError: a"
    assert str(Fault(cause="crashed", message="died of SIGKILL")) == "crashed: died of SIGKILL"
    assert str(Fault(cause="lost")) == "lost: "


# ---------------------------------------------------------------------------------------- accessors


def test_done_gives_its_value_and_its_last_attempt() -> None:
    """Times on the wall clock, how long it ran and queued, and the attempts before it."""
    before = Attempt(runner="R", pid=1, started_at=1.0, seconds=0.5, queued=0.0, fault=Fault(cause="raised"))
    done = Done("value", entry(history=(before,)), 7.0, 7.25, WorkerInfo("R", 412, 1000.0))
    assert done.unwrap() == "value"
    assert done.attempts == (
        before,
        Attempt(runner="R", pid=412, started_at=1007.0, seconds=0.25, queued=2.0),
    )


def test_every_outcome_knows_its_shard() -> None:
    """Id, position, payload and where it came from; the payload is decoded when somebody asks."""
    fault = Fault(cause="raised")
    for outcome in (Done(1, entry()), Failed(fault=fault, entry=entry()), Cancelled(entry=entry())):
        assert (outcome.shard_id, outcome.index, outcome.reused) == ("4", 4, False)
        assert outcome.payload == ("decoded", b"\x07")
        assert outcome.attempts == ()
    named = Cancelled(entry=entry(id="q17", reused=True, unencoded={"lock"}))
    assert (named.shard_id, named.reused, named.payload) == ("q17", True, {"lock"})


def test_an_outcome_made_by_hand_belongs_to_no_shard() -> None:
    """It can be matched, unwrapped and shown; what only a shard knows is an AttributeError that says so."""
    assert Done(1).unwrap() == 1
    for outcome in (Done(1), Failed(fault=Fault(cause="lost")), Cancelled()):
        with pytest.raises(AttributeError, match="made by hand"):
            _ = outcome.shard_id
        assert repr(outcome).startswith(type(outcome).__name__)


def test_outcomes_show_themselves() -> None:
    """In a debugger: which shard, and what became of it."""
    assert repr(Done([1], entry())) == "Done(shard_id='4', value=[1])"
    assert (
        repr(Failed(fault=Fault(cause="lost", message="m"), entry=entry()))
        == "Failed(shard_id='4', fault='lost: m')"
    )
    assert repr(Cancelled(entry=entry(id="q"))) == "Cancelled(shard_id='q')"


def test_outcomes_are_matched_by_kind() -> None:
    """As the contract writes it."""
    told = []
    for outcome in (Done(1), Failed(fault=Fault(cause="lost")), Cancelled()):
        match outcome:
            case Done(value=value):
                told.append(value)
            case Failed(fault=fault):
                told.append(fault.cause)
            case Cancelled():
                told.append("cancelled")
    assert told == [1, "lost", "cancelled"]


def test_a_cancelled_shard_has_nothing_to_unwrap() -> None:
    """It raises ShardCancelled, which names the shard."""
    with pytest.raises(ShardCancelled, match="shard q17: cancelled before it was done"):
        Cancelled(entry=entry(id="q17")).unwrap()
