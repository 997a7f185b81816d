"""What can be said to have happened: frozen, tagged, and readable from JSON where it holds no outcomes."""

import msgspec
import pytest

from dispatch.terms import event
from dispatch.terms.event import Event, Snapshot, WorkerState
from dispatch.terms.outcome import Cancelled, Fault

FAULT = Fault(cause="crashed", message="worker 412 died of SIGKILL", signal=9)
ONE_OF_EACH: list[Event] = [
    event.Opened(at=1.0, workers=2),
    event.WorkerReady(at=1.0, worker=0, runner="R", pid=412, seconds=0.1),
    event.WorkerEnded(at=1.0, worker=0, runner="R", pid=412, expected=False, fault=FAULT),
    event.Settled(at=1.0, outcomes=[]),
    event.Retrying(at=1.0, shard_id="q17", attempt=1, fault=FAULT, wait=4.0),
    event.Progressed(at=1.0, shard_id="q17", done=3, total=None, pid=412),
    event.Printed(at=1.0, shard_id=None, pid=412, text="hé\n", cut=7),
    event.Draining(at=1.0),
    event.Closed(at=1.0),
]


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=lambda one: type(one).__name__)
def test_an_event_can_be_written_down_and_read_again(one: Event) -> None:
    """Its tag is its name in small letters, so a log of events is a log of one type."""
    line = msgspec.json.encode(one)
    assert msgspec.json.decode(line)["type"] == type(one).__name__.lower()
    assert msgspec.json.decode(line, type=Event) == one


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=lambda one: type(one).__name__)
def test_an_event_cannot_be_changed(one: Event) -> None:
    """Every listener hears the same."""
    with pytest.raises(AttributeError):
        one.at = 2.0  # type: ignore[misc]  # that is the question


def test_there_is_one_of_each_above() -> None:
    """No event is left out, and all are public."""
    said = {type(one).__name__ for one in ONE_OF_EACH}
    assert said | {"Event", "Snapshot", "WorkerState"} == set(event.__all__)


def test_settled_shards_are_heard_with_their_outcomes() -> None:
    """The outcomes themselves, not copies."""
    outcome = Cancelled()
    assert event.Settled(at=1.0, outcomes=[outcome]).outcomes[0] is outcome


def test_a_snapshot_is_plain_data() -> None:
    """What a centre looks like now can be sent to whoever watches it."""
    worker = WorkerState(
        runner="R", pid=412, state="ready", shard_id="q17", seconds=1.5, rss=10**7, in_flight=2
    )
    snapshot = Snapshot(
        counts={"done": 3},
        ready=1,
        delayed=0,
        in_flight=2,
        seconds=9.0,
        rate=0.3,
        draining=False,
        workers=(worker,),
    )
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot
