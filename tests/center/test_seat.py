"""One place for a worker: how much it takes, and what is known of it across its lives."""

from typing import Any

import pytest

from dispatch.center.seat import Seat
from dispatch.engines.base import Start
from dispatch.scheduling.batching import FRAMES_IN_FLIGHT
from dispatch.scheduling.ledger import Hand
from dispatch.scheduling.queue import Lane, ReadyQueue
from dispatch.terms.shard import Entry, Origin
from dispatch.wire.codec import Codec
from dispatch.wire.frames import Pulse, Ready
from dispatch.worker.spec import Lease

CODEC = Codec("R", Any, Any, limit=1000)


def seat(**fields: Any) -> Seat:
    """A seat whose worker has just become ready; `fields` are those of Ready."""
    start = Start(number=3, lease=Lease(runner="m:R"), targets=(None, None), env={}, startup_timeout=1.0)
    made = Seat(start, CODEC, "R")
    made.asked_at = 5.0
    made.ready(Ready(**{"pid": 77, "concurrency": 1, "several": False, **fields}), 7.5)
    return made


def entries(door: int, number: int) -> list[Entry]:
    """Shards of one door."""
    return [Entry(n, b"\x01", Origin(door, CODEC.decode_payload)) for n in range(number)]


def lane(door: int, number: int, *, seconds: float | None = None) -> Lane:
    """A lane with so many ready shards; each takes so many seconds, as far as is known."""
    queue = ReadyQueue()
    queue.push(entries(door, number), special=False)
    if seconds is not None:
        queue.pace(door).ran(1000, 1000 * seconds)
    [made] = queue.lanes_for("R")
    return made


def room(seat: Seat, lane: Lane, held: list[Entry] | None = None) -> int:
    """What the seat takes when two workers serve and this one alone may be idle."""
    return seat.room(lane, hand(held or []), workers=2, idle=1)


def hand(shards: list[Entry], first: int = 1) -> Hand:
    """These shards, with seqs from `first` on."""
    made = Hand()
    if shards:
        made.give(first, shards)
    return made


def test_a_new_pace_is_tried_with_one_shard() -> None:
    """As long as nobody knows what a shard takes, one is sent, and none behind it."""
    sitter, first = seat(), entries(1, 1)
    assert room(sitter, lane(1, 100)) == 1
    sitter.frames.append(1)
    assert room(sitter, lane(1, 100), first) == 0


def test_quick_shards_travel_in_frames_two_of_them_at_most() -> None:
    """A worker that has its frames in hand is full until one of them has landed."""
    sitter = seat()
    number = room(sitter, lane(1, 10_000, seconds=1e-6))
    assert number > 100
    held = entries(1, 2 * number)
    sitter.frames.append(number)
    assert room(sitter, lane(1, 10_000, seconds=1e-6), held) > 100
    sitter.frames.append(2 * number)
    assert len(sitter.frames) == FRAMES_IN_FLIGHT
    assert sitter.is_full
    assert room(sitter, lane(1, 10_000, seconds=1e-6), held) == 0
    sitter.landed(hand(held[-1:], 2 * number))
    assert not sitter.is_full
    assert list(sitter.frames) == [2 * number]
    sitter.landed(hand([]))
    assert not sitter.frames


def test_another_door_has_its_turn_behind_a_frame() -> None:
    """A door that has one shard only is not starved by another door's frames."""
    sitter = seat()
    sitter.frames.append(1)
    assert room(sitter, lane(2, 1), entries(1, 1)) == 1
    assert room(sitter, lane(1, 1), entries(1, 1)) == 0


def test_a_shard_that_runs_alone_has_the_worker_for_itself() -> None:
    """Nothing is sent beside it; when it has ended things go on."""
    sitter = seat()
    sitter.alone = True
    assert room(sitter, lane(1, 100, seconds=1e-6)) == 0
    sitter.heard(9.0)
    assert room(sitter, lane(1, 100, seconds=1e-6)) > 0


def test_a_worker_with_tasks_is_full_when_its_tasks_are() -> None:
    """Of slow shards it takes as many as it has places."""
    sitter = seat(concurrency=4, several=True)
    assert not sitter.is_full
    taken = 0
    while number := room(sitter, lane(1, 100, seconds=1.0), entries(1, taken)):
        taken += number
    assert taken == 4


def test_lives_are_counted_and_figures_kept() -> None:
    """A seat knows the processes that sat on it; a new life begins with nothing in hand."""
    sitter = seat()
    assert (sitter.state, sitter.start_seconds, sitter.lives) == ("ready", 2.5, 1)
    sitter.ran(10, 0.5)
    sitter.frames.append(9)
    sitter.alone = sitter.nonsense = True
    sitter.ended()
    assert (sitter.state, sitter.alone, sitter.nonsense, sitter.serves) == ("starting", False, False, False)
    assert not sitter.frames
    sitter.ready(Ready(78, 1, several=False), 9.0)
    assert sitter.pids == [77, 78]
    assert (sitter.life_shards, sitter.lives, sitter.serves) == (0, 3, True)


def test_an_heir_goes_on_where_its_predecessor_stood() -> None:
    """The same slot and figures under a number of its own; it does not serve yet."""
    sitter = seat()
    sitter.ran(10, 0.5)
    heir = sitter.heir(8)
    assert (heir.number, heir.start.number, heir.slot) == (8, 8, 3)
    assert (heir.pids, heir.state) == ([77], "starting")


@pytest.mark.parametrize(("running", "told"), [(2, "1"), (0, None), (99, None)])
def test_what_it_does_now(running: int, told: str | None) -> None:
    """The pulse names the attempt; one that has settled meanwhile is told no more."""
    sitter = seat()
    sitter.pulse = Pulse(running, 3.0, 5_000_000)
    now = sitter.now(hand(entries(1, 3)), 4.5)
    assert (now.shard_id, now.seconds) == (told, 1.5 if told else 0.0)
    assert (now.runner, now.pid, now.rss, now.in_flight) == ("R", 77, 5_000_000, 3)


def test_how_long_a_worker_has_been_idle() -> None:
    """Since it became ready, or since its last shard ended; while it holds shards that are not known, nobody says."""
    sitter = seat()
    assert (sitter.now({}, 9.5).shard_id, sitter.now({}, 9.5).seconds) == (None, 2.0)
    sitter.heard(10.0)
    assert sitter.now({}, 13.0).seconds == 3.0
    assert sitter.now({1: entries(1, 1)[0]}, 13.0).seconds == 0.0
