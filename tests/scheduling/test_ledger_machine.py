"""The ledger, proved: random events in any order, and every shard ends with exactly one outcome.

The machine keeps a centre's books as `center/books.py` and `center/crew.py` do, and plays the workers: they start
what they were given, finish it, fail, give back, die, are fenced, and say things late. After every event each shard
is looked up in the queue and in the ledger. A move that TRANSITIONS does not know fails, and so does one that
happened to a shard that nothing was done to.
"""

from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dispatch.scheduling.ledger import TRANSITIONS, Ledger, Settle, blame, judge
from dispatch.scheduling.queue import ReadyQueue
from dispatch.terms.config import Policy, Retry
from dispatch.terms.outcome import Cause, Fault
from dispatch.terms.shard import Entry, Origin, WorkerInfo

POLICY = Policy(crash_budget=2, retry=Retry(attempts=3, wait=1.0))
WORKER = WorkerInfo("R", 1, 0.0)
SEATS = st.integers(0, 2)  # the first two run one shard at a time, the third runs several
DOORS = st.integers(1, 3)
PICK = st.integers(0, 10**6)


class Seat:
    """A worker as it knows itself: what it runs, what it started last, below what it starts nothing."""

    def __init__(self, number: int) -> None:
        self.number, self.several = number, number == 2
        self.alone = False
        self.born_anew()

    def born_anew(self) -> None:
        """Begin a life."""
        self.running: list[int] = []
        self.started = 0
        self.fences: list[int] = []  # those that are not answered yet


class Desk(RuleBasedStateMachine):
    """A centre's books, three workers, three doors."""

    seen: ClassVar[set[tuple[str, str, str]]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.ledger = ReadyQueue(), Ledger()
        self.seats = [Seat(number) for number in range(3)]
        self.shards: list[Entry] = []
        self.outcomes: Counter[int] = Counter()  # by position
        self.stopping: set[int] = set()
        self.doors = {1: 1, 2: 2, 3: 3}  # a door that was left is opened anew under another key
        self.now = 0.0
        self.places: dict[int, str] = {}
        self.events: dict[int, str] = {}  # what was done to a shard since the last look

    # What is looked at after every event.

    def look(self) -> dict[int, str]:
        """Return where each shard stands; fail if it stands in two places, or in none."""
        waiting = [one for lane in self.queue._turns for one in lane.entries()]
        waiting += [*self.queue.alone, *(item[2] for item in self.queue._delayed)]
        held = [
            one
            for hand in [self.ledger.hand(number).entries() for number in self.ledger.workers]
            for one in hand.values()
        ]
        found = [(one.index, "WAITING") for one in waiting] + [(one.index, "ASSIGNED") for one in held]
        found += [(index, "SETTLED") for index in self.outcomes.elements()]
        assert sorted(index for index, _place in found) == list(range(len(self.shards)))
        return dict(found)

    @invariant()
    def every_move_is_in_the_table(self) -> None:
        """A shard moves when something is done to it, as the table says."""
        before, self.places = self.places, self.look()
        for index, place in before.items():
            if self.places[index] != place:
                move = (place, self.events.pop(index), self.places[index])
                assert move[2] in TRANSITIONS[move[0], move[1]]
                self.seen.add(move)
        assert not self.events

    @invariant()
    def budgets_hold(self) -> None:
        """No shard is charged more than it has, and each attempt that failed is in its history once."""
        for one in self.shards:
            assert one.charged <= POLICY.retry.attempts
            assert one.deaths <= POLICY.crash_budget
            assert one.charged + one.deaths <= len(one.history) <= one.charged + one.deaths + 1

    @invariant()
    def suspects_run_alone(self) -> None:
        """A worker that holds a suspect holds nothing else."""
        for held in [self.ledger.hand(number).entries() for number in self.ledger.workers]:
            assert len(held) == 1 or not any(one.alone for one in held.values())

    @invariant()
    def the_queue_counts_right(self) -> None:
        """What is said to be ready can be taken."""
        assert self.queue.ready == sum(lane.ready for lane in self.queue._turns)

    # What a centre does.

    def settle(self, one: Entry, event: str) -> None:
        """Give a shard its outcome."""
        self.outcomes[one.index] += 1
        self.events[one.index] = event

    def back(self, entries: Iterable[Entry], event: str = "back") -> None:
        """Shards that were held and did not run wait again, unless nobody wants them."""
        wanted = []
        for one in entries:
            if one.withdrawn or one.origin.door in self.stopping:
                self.settle(one, "cancel")
            else:
                self.events[one.index] = event
                wanted.append(one)
        self.queue.put_back(wanted)

    def back_from(self, seat: Seat, seqs: list[int]) -> None:
        """A worker gives attempts back."""
        self.back(filter(None, [self.ledger.take(seat.number, seq) for seq in seqs]))

    def failed(self, one: Entry, fault: Fault) -> None:
        """An attempt failed."""
        decision = judge(one, fault, POLICY, worker=WORKER, started=self.now, seconds=0.0, roll=0.0)
        if isinstance(decision, Settle):
            self.settle(one, "fault")
        elif one.withdrawn or one.origin.door in self.stopping:
            self.settle(one, "cancel")
        else:
            self.events[one.index] = "fault"
            self.queue.delay(one, self.now + decision.wait)

    @rule(door=DOORS, number=st.integers(1, 4))
    def come(self, door: int, number: int) -> None:
        """Shards come through a door."""
        start, origin = len(self.shards), Origin(self.doors[door], bytes)
        new = [Entry(start + n, b"\xc0", origin) for n in range(number)]
        self.shards += new
        self.places |= {one.index: "WAITING" for one in new}
        self.queue.push(new, special=False)

    @rule(number=SEATS, most=st.integers(1, 4))
    def feed(self, number: int, most: int) -> None:
        """A worker that asks gets a suspect if it is empty, else the next frame, unless it has one for itself."""
        seat = self.seats[number]
        held = self.ledger.hand(number).entries()
        seat.alone = seat.alone and bool(held)
        lone = None if held else self.queue.take_alone("R")
        lane = next(self.queue.lanes_for("R"), None)
        if lone is not None:
            seat.alone = True
            given = [lone]
        elif seat.alone or lane is None:
            return
        else:
            given = self.queue.take(lane, most)
        self.ledger.assign(number, given)
        self.events |= {one.index: "assign" for one in given}

    @precondition(lambda self: any(map(self.held, self.seats)))
    @rule(number=SEATS)
    def start(self, number: int) -> None:
        """A worker starts the next attempt that it holds; what a fence forbids it gives back on the way."""
        seat = self.seats[number]
        if seat.running and not seat.several:
            return
        below = max(seat.fences, default=0)
        self.back_from(seat, [seq for seq in self.held(seat) if seat.started < seq < below])
        following = [seq for seq in self.held(seat) if seq > seat.started]
        if following:
            seat.started = following[0]
            seat.running.append(following[0])

    def held(self, seat: Seat) -> dict[int, Entry]:
        """Return the attempts that a worker holds."""
        return self.ledger.hand(seat.number).entries()

    @precondition(lambda self: any(seat.running for seat in self.seats))
    @rule(number=SEATS, pick=PICK)
    def finish(self, number: int, pick: int) -> None:
        """An attempt that runs is done."""
        seat = self.seats[number]
        if seat.running:
            seq = seat.running.pop(pick % len(seat.running))
            (one,) = self.ledger.done(number, [seq])
            assert one is not None
            seat.alone = False
            self.settle(one, "done")

    @precondition(lambda self: any(seat.running for seat in self.seats))
    @rule(
        number=SEATS,
        pick=PICK,
        cause=st.sampled_from(["raised", "timed_out", "undeliverable"]),
        final=st.booleans(),
        after=st.none() | st.floats(0, 5),
    )
    def fail(self, *, number: int, pick: int, cause: Cause, final: bool, after: float | None) -> None:
        """An attempt that runs fails, and the worker lives."""
        seat = self.seats[number]
        if seat.running:
            one = self.ledger.take(number, seat.running.pop(pick % len(seat.running)))
            assert one is not None
            seat.alone = False
            self.failed(one, Fault(cause=cause, final=final, after=after))

    @rule(number=SEATS, pick=PICK)
    def say_late(self, number: int, pick: int) -> None:
        """What is said of an attempt that this worker does not hold, or never did, is dropped."""
        stale = [seq for seq in range(self.ledger.next_seq + 2) if seq not in self.held(self.seats[number])]
        seq = stale[pick % len(stale)]
        assert self.ledger.done(number, [seq]) == [None]
        assert self.ledger.take(number, seq) is None

    @precondition(lambda self: any(map(self.held, self.seats)))
    @rule(number=SEATS)
    def give_back(self, number: int) -> None:
        """A worker gives back what it did not start: a frame took longer than it was sized for."""
        seat = self.seats[number]
        self.back_from(seat, [seq for seq in self.held(seat) if seq > seat.started])

    @precondition(lambda self: any(self.held(seat) for seat in self.seats[:2]))
    @rule(number=st.integers(0, 1))
    def fence(self, number: int) -> None:
        """A worker is told to start nothing more of what it was given so far."""
        self.seats[number].fences.append(self.ledger.next_seq)

    @precondition(lambda self: any(seat.fences for seat in self.seats))
    @rule(number=SEATS)
    def answer_fence(self, number: int) -> None:
        """A fenced worker says what it started last: the rest below the fence goes elsewhere."""
        seat = self.seats[number]
        if seat.fences:
            self.back(self.ledger.take_unstarted(number, seat.started, seat.fences.pop(0)))

    @rule(number=SEATS, pick=PICK, how=st.sampled_from(["crashed", "out_of_memory", "timed_out", "killed"]))
    def die(self, number: int, pick: int, how: str) -> None:
        """A worker dies: the guilty is charged, suspects run alone, the innocent wait again uncharged."""
        seat = self.seats[number]
        if how == "timed_out" and not seat.running:
            return
        running = seat.running[pick % len(seat.running)] if seat.running else 0
        several = seat.several
        held = self.ledger.take_all(number)
        seat.alone = False
        seat.born_anew()
        if how == "killed":
            self.back(held.values())
            return
        charges = {one.index: (one.charged, one.deaths) for one in held.values()}
        found = blame(held, running=running, several=several, exact=how == "timed_out")
        for one in found.suspects:
            one.alone = True
        self.back(found.suspects, "suspect")
        self.back(found.innocent)
        if found.charged is not None:
            assert len(held) == 1 or held[running] is found.charged
            self.failed(found.charged, Fault(cause=how))  # type: ignore[arg-type]  # one of its literals
        spared = [one for one in held.values() if one is not found.charged]
        assert all((one.charged, one.deaths) == charges[one.index] for one in spared)

    @precondition(lambda self: self.queue.delayed)
    @rule(seconds=st.floats(0.1, 20))
    def wait(self, seconds: float) -> None:
        """Time passes: what is due is ready."""
        self.now += seconds
        following = self.queue.due(self.now)
        assert following is None or following > self.now

    @precondition(lambda self: self.shards)
    @rule(pick=PICK)
    def withdraw(self, pick: int) -> None:
        """A submitter goes away: what waits is cancelled, what is held is when it comes back."""
        one = self.shards[pick % len(self.shards)]
        one.withdrawn = True
        if self.queue.withdraw(one):
            self.settle(one, "cancel")
        else:
            found = self.ledger.find(one)
            assert (found is None) == (one.index in self.outcomes)

    @precondition(lambda self: len(self.shards) > 8)
    @rule(door=DOORS)
    def stop_door(self, door: int) -> None:
        """A door is left: what waits is cancelled, what async workers hold is given back."""
        key, self.doors[door] = self.doors[door], self.doors[door] + 3
        self.stopping.add(key)
        for one in self.queue.drop_door(key):
            self.settle(one, "cancel")
        for number, seqs in self.ledger.holders(key).items():
            if self.seats[number].several:
                seat = self.seats[number]
                seat.running = [seq for seq in seat.running if seq not in seqs]
                self.back_from(seat, seqs)

    def teardown(self) -> None:
        """Let everything go its way: every shard has one outcome, and nothing is left on the books."""
        for _ in range(3 * len(self.shards) + 3):
            self.wait(1e6)
            for seat in self.seats:
                while seat.fences:
                    self.answer_fence(seat.number)
                self.feed(seat.number, 100)
                self.start(seat.number)
                while seat.running:
                    self.finish(seat.number, 0)
                    self.start(seat.number)
        self.events.clear()
        assert set(self.look().values()) <= {"SETTLED"}
        assert all(number == 1 for number in self.outcomes.values())
        assert (self.queue.ready, self.queue.delayed, len(self.queue.alone)) == (0, 0, 0)
        assert not self.ledger.in_flight


MOVES = {(place, event, after) for (place, event), afters in TRANSITIONS.items() for after in afters}


def test_every_shard_ends_with_exactly_one_outcome() -> None:
    """Whatever happens in whatever order, no shard is lost, held twice, charged too much or settled twice."""
    Desk.seen.clear()
    run_state_machine_as_test(
        Desk, settings=settings(max_examples=150, stateful_step_count=60, deadline=None)
    )
    assert Desk.seen <= MOVES
    assert len(Desk.seen) > len(MOVES) // 2  # the machine is no idle one


def test_no_move_of_the_table_is_idle() -> None:
    """Everything that TRANSITIONS allows does happen: a walk that takes each move."""
    Desk.seen.clear()
    desk = Desk()

    def then(*_done: None) -> None:
        desk.every_move_is_in_the_table()

    then(desk.come(1, 6), desk.feed(2, 3), desk.feed(0, 2))
    then(desk.start(0), desk.finish(0, 0))  # done
    then(desk.give_back(0))  # back
    then(desk.feed(0, 1), desk.start(0))
    then(desk.fail(number=0, pick=0, cause="raised", final=False, after=None))  # fault, and again
    then(desk.feed(0, 1), desk.start(0))
    then(desk.fail(number=0, pick=0, cause="raised", final=True, after=None))  # fault, and out
    then(desk.start(2), desk.die(2, 0, "crashed"))  # suspects
    then(desk.feed(2, 1), desk.feed(0, 1), desk.start(0))
    then(desk.stop_door(1))  # what waits, and what an async worker holds, is cancelled
    desk.teardown()
    assert Desk.seen == MOVES
