"""Who is next: doors take turns, delayed shards have their time, those that must run alone wait apart."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.scheduling.queue import Lane, ReadyQueue
from dispatch.terms.shard import Entry, Origin

CALLS, STREAM, RUN = 1, 2, 3


def waiting(queue: ReadyQueue) -> set[int]:
    """The doors that have a shard in the queue, ready or delayed."""
    doors = {lane.door for lane in queue._turns if lane.ready}
    doors.update(entry.origin.door for entry in queue.alone)
    doors.update(item[2].origin.door for item in queue._delayed)
    return doors


def entry(door: int, index: int, *, runner: str | None = None, alone: bool = False) -> Entry:
    """Return a shard of a door."""
    return Entry(index, b"\xc0", Origin(door, bytes), runner=runner, alone=alone)


def entries(door: int, number: int, *, start: int = 0, runner: str | None = None) -> list[Entry]:
    """Return shards of a door, in order."""
    return [entry(door, index, runner=runner) for index in range(start, start + number)]


def push(queue: ReadyQueue, new: list[Entry]) -> list[Entry]:
    """Push shards, and return them."""
    queue.push(new, special=False)
    return new


def first_lane(queue: ReadyQueue, runner: str = "R") -> Lane | None:
    """Return the lane whose turn it is."""
    return next(queue.lanes_for(runner), None)


def take(queue: ReadyQueue, number: int = 1, runner: str = "R") -> list[tuple[int, int]]:
    """Take a frame as a worker would: door and index of each shard, nothing if nothing is ready."""
    lane = first_lane(queue, runner)
    return [] if lane is None else names(queue.take(lane, number))


def names(found: Iterable[Entry]) -> list[tuple[int, int]]:
    """Return door and index of each shard."""
    return [(one.origin.door, one.index) for one in found]


# --------------------------------------------------------------------------------------- one door


def test_shards_of_a_door_are_taken_in_their_order() -> None:
    """First in, first out; a frame carries fewer when there are fewer."""
    queue = ReadyQueue()
    push(queue, entries(RUN, 3))
    push(queue, entries(RUN, 2, start=3))
    assert queue.ready == 5
    assert take(queue, 2) == [(RUN, 0), (RUN, 1)]
    assert take(queue, 10) == [(RUN, 2), (RUN, 3), (RUN, 4)]
    assert queue.ready == 0
    assert take(queue) == []


def test_what_is_put_back_was_here_first() -> None:
    """Shards that come back stand before those that wait, in the order of the input."""
    queue = ReadyQueue()
    taken = push(queue, entries(RUN, 4))
    take(queue, 3)
    queue.put_back([taken[2], taken[0], taken[1]])
    assert queue.ready == 4
    assert take(queue, 10) == [(RUN, 0), (RUN, 1), (RUN, 2), (RUN, 3)]


def test_a_pace_lives_as_long_as_its_door() -> None:
    """The pace that a lane is served by is the door's own, and is forgotten with the door."""
    queue = ReadyQueue()
    queue.pace(RUN).ran(1, 0.5)
    push(queue, entries(RUN, 1))
    lane = first_lane(queue)
    assert lane is not None
    assert lane.pace is queue.pace(RUN)
    queue.drop_door(RUN)
    assert queue.pace(RUN).seconds is None


def test_a_lane_is_special_once_a_special_shard_was_in_it() -> None:
    """Rare fields are looked for where a shard may have some, also when a retry brought it."""
    queue = ReadyQueue()
    push(queue, entries(RUN, 1))
    lane = first_lane(queue)
    assert lane is not None
    assert not lane.special
    again = entry(RUN, 7)
    again.special = True
    queue.put_back([again])
    assert lane.special
    queue.push(entries(STREAM, 1), special=True)
    assert [lane.special for lane in queue.lanes_for("R")] == [True, True]


# -------------------------------------------------------------------------------------- fairness


def test_doors_take_turns_a_frame_each() -> None:
    """Two long doors alternate, whatever their frames carry."""
    queue = ReadyQueue()
    push(queue, entries(STREAM, 100))
    push(queue, entries(RUN, 100))
    doors = [take(queue, number)[0][0] for number in (1, 10, 3, 3, 1, 1)]
    assert doors == [STREAM, RUN] * 3


def test_a_submit_waits_for_one_frame_of_a_stream_at_most() -> None:
    """However far a stream has read ahead, a shard that is submitted is taken after its next frame."""
    queue = ReadyQueue()
    push(queue, entries(STREAM, 10_000))
    take(queue, 100)
    push(queue, entries(CALLS, 1))
    taken = [take(queue, 100)[0][0] for _ in range(3)]
    assert taken == [STREAM, CALLS, STREAM]


def test_a_worker_without_room_costs_a_door_no_turn() -> None:
    """Asking whose turn it is changes nothing: only taking ends a turn."""
    queue = ReadyQueue()
    push(queue, entries(CALLS, 5))
    push(queue, entries(STREAM, 5))
    for _ in range(3):  # a busy worker is offered the first lane, has no room, and leaves
        assert [lane.door for lane in queue.lanes_for("R")] == [CALLS, STREAM]
    assert take(queue) == [(CALLS, 0)]
    assert [lane.door for lane in queue.lanes_for("R")] == [STREAM, CALLS]


def test_a_worker_may_take_from_a_later_lane_and_the_first_keeps_its_turn() -> None:
    """Taking out of turn moves the lane that was taken from, and no other."""
    queue = ReadyQueue()
    for door in (CALLS, STREAM, RUN):
        push(queue, entries(door, 5))
    second = list(queue.lanes_for("R"))[1]
    queue.take(second, 1)
    assert [lane.door for lane in queue.lanes_for("R")] == [CALLS, RUN, STREAM]


def test_a_door_that_was_empty_queues_up_behind_the_others() -> None:
    """A door gains no turn by running empty between its shards."""
    queue = ReadyQueue()
    push(queue, entries(CALLS, 1))
    push(queue, entries(STREAM, 5))
    assert take(queue) == [(CALLS, 0)]
    push(queue, entries(CALLS, 1, start=1))
    assert [take(queue)[0][0] for _ in range(2)] == [STREAM, CALLS]


@given(
    frames=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=40),
    sizes=st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
)
def test_a_waiting_door_is_passed_over_by_each_other_door_once(
    frames: list[tuple[int, int]], sizes: tuple[int, int, int]
) -> None:
    """Between two frames of a door that has shards, no other door gets two, also when shards keep coming."""
    queue, came = ReadyQueue(), {1: 0, 2: 0, 3: 0}
    for door, size in enumerate(sizes, 1):
        if size:
            push(queue, entries(door, size))
            came[door] = size
    passed: dict[int, list[int]] = {door: [] for door in came}
    for door, number in frames:
        more = push(queue, entries(door + 1, 1, start=came[door + 1]))
        came[door + 1] += len(more)
        served = take(queue, number)[0][0]
        for other in waiting(queue) - {served}:
            assert served not in passed[other]
            passed[other].append(served)
        passed[served] = []


# -------------------------------------------------------------------------------- runner classes


def test_a_shard_that_names_a_runner_waits_for_one() -> None:
    """A worker takes shards of its own class and of none; the others are not in its way."""
    queue = ReadyQueue()
    push(queue, entries(RUN, 2, runner="Other"))
    push(queue, entries(RUN, 1, start=2))
    assert take(queue, runner="R") == [(RUN, 2)]
    assert take(queue, runner="R") == []
    assert take(queue, 5, runner="Other") == [(RUN, 0), (RUN, 1)]


def test_workers_of_another_class_cost_a_lane_no_turn() -> None:
    """A lane that only one class may take stays first for that class, however often others ask."""
    queue = ReadyQueue()
    push(queue, entries(RUN, 2, runner="Other"))
    push(queue, entries(STREAM, 50))
    for _ in range(5):
        assert take(queue, runner="R")[0][0] == STREAM
    assert take(queue, runner="Other") == [(RUN, 0)]


# ----------------------------------------------------------------------------------------- alone


def test_a_shard_that_must_run_alone_waits_apart() -> None:
    """No frame carries it; it is asked for by a worker with nothing else, and comes once."""
    queue = ReadyQueue()
    queue.put_back([entry(RUN, 1, alone=True), entry(RUN, 0, alone=True), entry(RUN, 2)])
    assert queue.ready == 1
    assert take(queue, 10) == [(RUN, 2)]
    assert names(filter(None, [queue.take_alone("R") for _ in range(3)])) == [(RUN, 0), (RUN, 1)]


@pytest.mark.parametrize("runner", [None, "", "R"])
def test_a_lone_shard_is_for_its_class_or_for_all(runner: str | None) -> None:
    """A shard that must run alone goes to a worker that may run it; no name, or an empty one, means any."""
    queue = ReadyQueue()
    queue.put_back([entry(RUN, 0, runner="Other", alone=True), entry(RUN, 1, runner=runner, alone=True)])
    assert queue.has_alone("R")
    assert queue.take_alone("R") is not None
    assert not queue.has_alone("R")
    assert queue.take_alone("R") is None
    assert queue.has_alone("Other")
    assert queue.take_alone("Other") is not None


# ------------------------------------------------------------------------------------------ time


def test_a_delayed_shard_is_ready_at_its_time_and_not_before() -> None:
    """`due` makes ready what is due, and says when it must be asked again."""
    queue = ReadyQueue()
    queue.delay(entry(RUN, 0), 10.0)
    queue.delay(entry(RUN, 1), 20.0)
    assert (queue.delayed, queue.due(9.99), queue.ready) == (2, 10.0, 0)
    assert (queue.due(10.0), queue.ready, queue.delayed) == (20.0, 1, 1)
    assert take(queue, 5) == [(RUN, 0)]
    assert (queue.due(1e9), queue.ready, queue.delayed) == (None, 1, 0)
    assert queue.due(1e9) is None


def test_a_delayed_shard_begins_to_queue_when_it_is_due() -> None:
    """`ready_at` is the time of the question, so the wait of a retry is not counted as queueing."""
    queue, late = ReadyQueue(), entry(RUN, 0)
    queue.delay(late, 10.0)
    queue.due(12.5)
    assert late.ready_at == 12.5


def test_a_delayed_shard_goes_before_those_that_wait() -> None:
    """A retry was here first; one that must run alone waits for an empty worker."""
    queue = ReadyQueue()
    push(queue, entries(RUN, 2, start=5))
    queue.delay(entry(RUN, 1), 1.0)
    queue.delay(entry(RUN, 2, alone=True), 1.0)
    queue.due(1.0)
    assert take(queue, 5) == [(RUN, 1), (RUN, 5), (RUN, 6)]
    assert names([*queue.alone]) == [(RUN, 2)]


@given(due=st.lists(st.integers(0, 50), max_size=30), step=st.integers(1, 20))
def test_delayed_shards_come_out_in_the_order_of_their_times(due: list[int], step: int) -> None:
    """Whatever order they were delayed in, none comes early, none late, none twice."""
    queue, came = ReadyQueue(), list[int]()
    for index, at in enumerate(due):
        queue.delay(entry(RUN, index), float(at))
    for now in range(0, 80, step):
        following = queue.due(float(now))
        came += [index for _door, index in take(queue, 100)]
        assert sorted(came) == [index for index, at in enumerate(due) if at <= now]
        assert following == min((float(at) for at in due if at > now), default=None)


# --------------------------------------------------------------------------------- leaving early


@pytest.mark.parametrize("where", ["ready", "alone", "delayed"])
def test_a_waiting_shard_can_be_withdrawn_wherever_it_waits(where: str) -> None:
    """It is out at once, the others stay, and the second time it is not there."""
    queue = ReadyQueue()
    gone = entry(CALLS, 1, alone=where == "alone")
    push(queue, [entry(CALLS, 0), *([gone] if where == "ready" else []), entry(CALLS, 2)])
    if where == "alone":
        queue.put_back([gone])
    elif where == "delayed":
        queue.delay(gone, 1.0)
    assert queue.withdraw(gone)
    assert not queue.withdraw(gone)
    queue.due(2.0)
    assert (queue.ready, queue.delayed, len(queue.alone)) == (2, 0, 0)
    assert take(queue, 5) == [(CALLS, 0), (CALLS, 2)]


def test_a_lane_that_a_withdrawal_empties_is_no_lane() -> None:
    """The last shard of a door can be withdrawn, and the door is as if it had none."""
    queue = ReadyQueue()
    (only,) = push(queue, entries(CALLS, 1))
    assert queue.withdraw(only)
    assert (queue.ready, waiting(queue), take(queue)) == (0, set(), [])
    push(queue, entries(STREAM, 1))
    push(queue, entries(CALLS, 1))
    assert [lane.door for lane in queue.lanes_for("R")] == [STREAM, CALLS]


def test_a_shard_that_was_taken_cannot_be_withdrawn() -> None:
    """What a worker holds is the ledger's."""
    queue = ReadyQueue()
    (only,) = push(queue, entries(CALLS, 1))
    take(queue)
    assert not queue.withdraw(only)


def test_dropping_a_door_gives_back_everything_of_it_and_nothing_else() -> None:
    """Ready, delayed and lone shards of every runner class; other doors keep theirs and their turns."""
    queue = ReadyQueue()
    push(queue, entries(RUN, 2))
    push(queue, entries(RUN, 1, start=2, runner="Other"))
    queue.put_back([entry(RUN, 3, alone=True), entry(STREAM, 3, alone=True)])
    queue.delay(entry(RUN, 4), 5.0)
    queue.delay(entry(STREAM, 4), 6.0)
    push(queue, entries(STREAM, 1))
    assert waiting(queue) == {RUN, STREAM}
    assert sorted(names(queue.drop_door(RUN))) == [(RUN, index) for index in range(5)]
    assert queue.drop_door(RUN) == []
    assert waiting(queue) == {STREAM}
    assert (queue.ready, queue.delayed, names(queue.alone)) == (1, 1, [(STREAM, 3)])
    assert take(queue, 5) == [(STREAM, 0)]
    assert queue.due(5.5) == 6.0
