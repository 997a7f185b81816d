"""The centre's bookkeeping, proved on itself: a real Session, workers that are played, random events in any order.

`tests/scheduling/test_ledger_machine.py` proves the plain functions; here it is the session, books, crew and seats
that join them. The engine is a stage: it remembers what it was told, and the machine decides what workers make of it.
The clock and the loop's timers are numbers.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct

from dispatch.center import books, crew
from dispatch.center.seat import Seat
from dispatch.center.session import Session
from dispatch.engines.base import Engine, Start
from dispatch.record.bus import Bus
from dispatch.scheduling.ledger import Ledger
from dispatch.terms.config import Policy, Retry
from dispatch.terms.outcome import Fault
from dispatch.terms.shard import Batch, Entry, Origin
from dispatch.wire import frames
from dispatch.wire.calls import CallTable
from dispatch.wire.codec import Codec
from dispatch.worker.spec import Lease

CODEC = Codec("R", Any, Any, limit=10**6)
PICK = st.integers(0, 10**6)
WAYS_TO_DIE = [("", 9, None), ("", None, 1), ("", None, 0), ("timed_out", 9, None), ("memory", 9, None)]
WAYS_TO_DIE += [("stopped", 19, None), ("nanny", None, None), ("hung up", None, 0)]


class Timers:
    """An event loop that only has timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[list[Any]] = []

    def call_later(self, delay: float, call: Callable[..., None], *args: Any) -> "Timers._Handle":
        """Remember a call."""
        item = [self.now + delay, call, args]
        self._waiting.append(item)
        return Timers._Handle(self._waiting, item)

    def pass_by(self, seconds: float) -> None:
        """Let time pass, and call what is due, in its order."""
        until = self.now + seconds
        while due := [item for item in self._waiting if item[0] <= until]:
            item = min(due, key=lambda item: item[0])
            self._waiting.remove(item)
            self.now = max(self.now, item[0])
            item[1](*item[2])
        self.now = until

    class _Handle:
        def __init__(self, waiting: list[list[Any]], item: list[Any]) -> None:
            self._waiting, self._item = waiting, item

        def cancel(self) -> None:
            """Forget the call."""
            if self._item in self._waiting:
                self._waiting.remove(self._item)


class Player:
    """A worker's life as it is played."""

    def __init__(self) -> None:
        self.greeted = self.killed = self.leaving = False
        self.given: deque[list[int]] = deque()  # frames, and what is left of the first
        self.running: list[int] = []
        self.last = 0  # started last
        self.fence = 0
        self.fences: deque[tuple[int, Sequence[int]]] = deque()  # not answered yet
        self.withdrawn: deque[frames.Withdraw] = deque()


class Stage(Engine):
    """Remembers what it was told."""

    name, contains_faults = "stage", True

    def __init__(self) -> None:
        self.players: dict[int, Player] = {}

    async def open(self, tasks: Any, host: Any) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""

    def launch(self, start: Start) -> None:
        assert start.number not in self.players, "launched twice"
        self.players[start.number] = Player()

    def send(self, worker: int, frame: Struct) -> None:
        player = self.players.get(worker)
        if player is not None and isinstance(frame, frames.Withdraw):
            player.withdrawn.append(frame)
        elif player is not None and isinstance(frame, frames.Bye):
            player.leaving = True

    def send_work(self, worker: int, work: frames.Work[Any], payloads: Sequence[bytes]) -> None:
        player = self.players[worker]
        assert player.greeted, "sent to a worker that does not serve"
        assert not player.leaving, "sent to a worker that was told to leave"
        assert len(work.indexes) in (0, len(payloads))
        assert payloads
        player.given.append(list(range(work.first, work.first + len(payloads))))

    def fence(self, worker: int, upto: int, *, kill: Sequence[int] = ()) -> None:
        player = self.players.get(worker)
        if player is not None:
            player.fence = max(player.fence, upto)
            player.fences.append((upto, kill))

    def kill(self, worker: int) -> None:
        player = self.players.get(worker)
        if player is not None:
            player.killed = True

    def release(self, worker: int) -> None:
        assert worker not in self.players


def hands(ledger: Ledger) -> dict[int, dict[int, Entry]]:
    """What each worker holds, without taking its batches apart."""
    found = {}
    for worker, hand in ledger._hands.items():
        found[worker] = dict(hand._entries)
        for begun, batch, ended in hand._batches:
            found[worker] |= {begun + n: batch.entry(n) for n in range(ended, len(batch))}
    return found


class Door:
    """Counts outcomes."""

    def __init__(self, outcomes: Counter[int]) -> None:
        self.stopping = False
        self.recorder = None
        self._outcomes = outcomes

    def take(self, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Hear of outcomes."""
        self._outcomes.update(outcome.index for outcome in outcomes)

    def halt(self) -> None:
        """Read no more: there is nothing to read."""


class House(RuleBasedStateMachine):
    """A session, one worker or two, of the sync or the async lane, and doors."""

    @initialize(recycle=st.sampled_from([None, None, 3]), lanes=st.sampled_from(["ss", "sa", "a", "aa"]))
    def open(self, *, recycle: int | None, lanes: str) -> None:
        """Open a session."""
        self.timers, self.stage = Timers(), Stage()
        self.patches = ExitStack()
        for module in (books, crew):
            self.patches.enter_context(patch.object(module, "monotonic", lambda: self.timers.now))
        self.patches.callback(asyncio._set_running_loop, None)
        asyncio._set_running_loop(self.timers)  # type: ignore[arg-type]  # all of a loop that is used
        self.policy = Policy(crash_budget=2, retry=Retry(attempts=2, wait=1.0), recycle_after=recycle)
        starts = [
            Start(number=n, lease=Lease(runner="R"), targets=(None, None), env={}, startup_timeout=1.0)
            for n in range(len(lanes))
        ]
        seats = [Seat(start, CODEC, "R") for start in starts]
        self.session = Session(self.stage, seats, policy=self.policy, calls=CallTable(None), bus=Bus())
        self.books, self.crew = self.session.books, self.session.crew
        self.async_slots = {n for n, lane in enumerate(lanes) if lane == "a"}
        self.shards: list[Entry | None] = []  # None: in a batch
        self.outcomes: Counter[int] = Counter()
        self.doors = 0
        for seat in seats:
            self.crew._launch(seat)

    # What must always hold.

    @invariant()
    def every_shard_is_in_one_place(self) -> None:
        """It waits, or one worker that serves holds it once, or it has one outcome."""
        queue = self.books.queue
        found = [one.index for lane in queue._turns for one in lane.entries()] + [
            one.index for one in queue.alone
        ]
        found += [item[2].index for item in queue._delayed]
        for worker, held in hands(self.books.ledger).items():
            assert not held or self.stage.players[worker].greeted
            found += [one.index for one in held.values()]
        assert sorted(found + list(self.outcomes.elements())) == list(range(len(self.shards)))

    @invariant()
    def budgets_hold(self) -> None:
        """Nobody is charged more than there is; a suspect has its worker for itself."""
        for one in filter(None, self.shards):
            assert one.deaths <= self.policy.crash_budget
            assert one.charged <= self.policy.retry.attempts
        for held in hands(self.books.ledger).values():
            assert len(held) == 1 or not any(one.alone for one in held.values())

    # What users do.

    @rule(number=st.integers(1, 20), new=st.booleans(), together=st.booleans())
    def push(self, *, number: int, new: bool, together: bool) -> None:
        """Shards come through a door, a new one or the last, each by itself or as a batch."""
        if self.books.draining or self.session.startup_fault is not None:
            return
        if new or not self.doors or self.books.doors[self.doors].stopping:
            self.doors += 1
            self.books.doors[self.doors] = Door(self.outcomes)
        start, origin = len(self.shards), Origin(self.doors, bytes)
        entries = [Entry(start + n, b"\xc0", origin, self.timers.now) for n in range(number)]
        if together:
            self.shards += [None] * number
            self.session.push(Batch(start, [b"\xc0"] * number, origin, self.timers.now))
        else:
            self.shards += entries
            self.session.push(entries)

    @precondition(lambda self: self.shards)
    @rule(pick=PICK)
    def withdraw(self, pick: int) -> None:
        """A submitter goes away."""
        one = self.shards[pick % len(self.shards)]
        if one is not None:
            self.session.withdraw(one)

    @precondition(lambda self: self.doors)
    @rule(pick=PICK)
    def stop_door(self, pick: int) -> None:
        """A stream is left early."""
        self.session.stop_door(1 + pick % self.doors)

    @precondition(lambda self: len(self.shards) > 30)
    @rule()
    def drain(self) -> None:
        """No new shard starts."""
        self.session.drain()

    @rule(seconds=st.floats(0.001, 3))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.timers.pass_by(seconds)

    # What workers do.

    def player(
        self, pick: int, holds: Callable[[Player], Any] = lambda player: True
    ) -> tuple[int, Player] | None:
        """Choose a worker of which something holds."""
        able = [(number, player) for number, player in self.stage.players.items() if holds(player)]
        return able[pick % len(able)] if able else None

    def say(self, number: int, frame: Struct) -> None:
        """A runner sends a frame."""
        self.crew.on_frame(number, frames.encode(frame)[4:])

    def several(self, number: int) -> bool:
        """Whether this worker has an event loop."""
        return self.crew.seats[number].slot in self.async_slots

    @rule(pick=PICK)
    def greet(self, pick: int) -> None:
        """A worker is ready."""
        if found := self.player(pick, lambda player: not player.greeted):
            found[1].greeted = True
            several = self.several(found[0])
            self.say(found[0], frames.Ready(1000 + pick % 1000, 3 if several else 1, several=several))

    @rule(pick=PICK, most=st.integers(1, 8))
    def work(self, pick: int, most: int) -> None:
        """A worker runs what it was given: a sync one in order, up to a fence; an async one begins several."""
        found = self.player(pick, lambda player: player.given)
        if not found:
            return
        number, player = found
        if self.several(number):
            while player.given and len(player.running) < 3:
                player.running.append(self._next(player))
            return
        if player.running:
            return
        frame = player.given[0]
        ran: list[int] = []
        while frame and len(ran) < most:
            player.last = max(player.last, frame[0])
            if frame[0] < player.fence:
                self.say(number, frames.Back(player.given.popleft()))
                frame = []
            else:
                ran.append(frame.pop(0))
        if player.given and not player.given[0]:
            player.given.popleft()
        if ran and most % 2:
            player.running.append(ran.pop())  # this one takes longer
        if ran:
            now = self.timers.now
            ends = [now + 0.001 * n for n in range(len(ran))]
            self.say(number, frames.Results(ran[0], [], [now], ends, [None] * len(ran)))

    def _next(self, player: Player) -> int:
        seq = player.given[0].pop(0)
        if not player.given[0]:
            player.given.popleft()
        return seq

    @rule(pick=PICK, number=st.integers(1, 3))
    def finish(self, pick: int, number: int) -> None:
        """What runs is done: some of it, in any order."""
        if found := self.player(pick, lambda player: player.running):
            ran = [
                found[1].running.pop(pick % len(found[1].running))
                for _ in range(min(number, len(found[1].running)))
            ]
            now = [self.timers.now] * len(ran)
            self.say(found[0], frames.Results(0, ran, now, now, [None] * len(ran)))

    @rule(pick=PICK, cause=st.sampled_from(["raised", "timed_out", "undeliverable"]))
    def fail(self, pick: int, cause: Any) -> None:
        """What runs fails, and the worker lives."""
        if found := self.player(pick, lambda player: player.running):
            seq = found[1].running.pop(pick % len(found[1].running))
            self.say(found[0], frames.Fail(seq, self.timers.now, 0.1, Fault(cause=cause)))

    @rule(pick=PICK, seqs=st.lists(st.integers(0, 400), min_size=1, max_size=5))
    def babble(self, pick: int, seqs: list[int]) -> None:
        """A worker says late what it was not asked any more."""
        if found := self.player(pick, lambda player: player.greeted):
            held = hands(self.books.ledger).get(found[0], {})
            stale = [seq for seq in seqs if seq not in held]
            now = [0.0] * len(stale)
            self.say(
                found[0],
                frames.Results(0, stale, now, now, [None] * len(stale)) if stale else frames.Back([]),
            )
            self.say(found[0], frames.Back(stale))

    @rule(pick=PICK)
    def obey(self, pick: int) -> None:
        """A worker does the next thing that it was told: a fence, a withdrawal, a kill, to leave."""
        found = self.player(pick, lambda one: one.fences or one.withdrawn or one.killed or one.leaving)
        if not found:
            return
        number, player = found
        if player.killed:
            self.end(number, "killed")
        elif player.fences:
            upto, kill = player.fences.popleft()
            if set(player.running) & set(kill):
                self.end(number, "killed")
            self.crew.on_fenced(number, frames.Fenced(upto, player.last))
        elif player.withdrawn:
            told = player.withdrawn.popleft()
            kept = [[seq for seq in frame if seq not in told.seqs] for frame in player.given]
            back = [seq for frame in player.given for seq in frame if seq in told.seqs]
            if not told.waiting:
                back += [seq for seq in player.running if seq in told.seqs]
                player.running = [seq for seq in player.running if seq not in told.seqs]
            player.given = deque(frame for frame in kept if frame)
            self.say(number, frames.Back(back))
        elif not player.running and not player.given:
            self.end(number, "", exit_code=0)

    @rule(pick=PICK, way=st.sampled_from(WAYS_TO_DIE))
    def die(self, pick: int, way: tuple[str, int | None, int | None]) -> None:
        """A worker dies, busy or idle, also before it is ready."""
        why, number, code = way
        if found := self.player(
            pick, lambda player: player.running or why not in ("timed_out", "memory", "stopped")
        ):
            self.end(found[0], why, number=number, exit_code=code, pick=pick)

    @rule(pick=PICK)
    def spoil(self, pick: int) -> None:
        """A worker's stream is spoiled."""
        if found := self.player(pick, lambda player: player.greeted):
            self.crew.on_frame(found[0], b"\xc1")

    def end(
        self, worker: int, why: str, *, number: int | None = 9, exit_code: int | None = None, pick: int = 0
    ) -> None:
        """Tell how a life ended."""
        player = self.stage.players.pop(worker)
        seq = player.running[pick % len(player.running)] if player.running else 0
        now = self.timers.now
        self.crew.on_ended(worker, frames.Ended(1, 1, why, number, exit_code, seq, now, now, "", ""), None)

    def teardown(self) -> None:
        """Let everything go its way: every shard has exactly one outcome."""
        if not hasattr(self, "session"):
            return
        try:
            for turn in range(40 * (len(self.shards) + 3)):
                self.timers.pass_by(1.0)
                self.greet(turn)
                for pick in range(len(self.stage.players)):
                    self.obey(pick)
                    self.work(pick, 8)
                    self.finish(pick, 3)
                self.every_shard_is_in_one_place()
                if self.books.idle:
                    break
            assert self.books.idle
            assert [self.outcomes[n] for n in range(len(self.shards))] == [1] * len(self.shards)
        finally:
            self.patches.close()


def test_every_shard_of_a_session_ends_with_exactly_one_outcome() -> None:
    """Whatever users, workers and time do in whatever order, nothing is lost, held twice, or sent to the dead."""
    run_state_machine_as_test(
        House, settings=settings(max_examples=120, stateful_step_count=60, deadline=None)
    )
