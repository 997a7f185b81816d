"""Every shard of one opening: the queue, the ledger, and the way of an outcome to its door.

Decisions come from `scheduling`; here they are performed. Of workers only their seats' numbers are known.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from itertools import chain, count, repeat
from time import monotonic
from typing import Any, Protocol

from dispatch.center.seat import Seat
from dispatch.record.bus import Bus
from dispatch.scheduling.ledger import Again, Hand, Ledger, Settle, judge
from dispatch.scheduling.queue import ReadyQueue
from dispatch.terms import event
from dispatch.terms.config import Policy
from dispatch.terms.outcome import Cancelled, Done, Failed, Fault
from dispatch.terms.shard import Entry
from dispatch.wire.frames import Results

__all__ = ("Books", "DoorLike")


class Recording(Protocol):
    """What must be known of a recorder."""

    def write(self, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Write outcomes, then `tell` of them."""
        ...

    def retried(self, entry: Entry) -> None:
        """An attempt of a shard failed, and another one is due."""
        ...


class DoorLike(Protocol):
    """What must be known of a door."""

    stopping: bool

    @property
    def recorder(self) -> Recording | None:
        """Writes what becomes of this door's shards; None: nothing is kept."""
        ...

    def halt(self) -> None:
        """Read no more shards."""
        ...

    def take(self, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Shards of this door have their outcomes; `size` bytes came with them, from the worker `slot` (-1: none)."""
        ...


class Books:
    """Where every shard stands, from the door it came through back to that door."""

    def __init__(self, policy: Policy, bus: Bus) -> None:
        self.policy, self.bus = policy, bus
        self.queue = ReadyQueue()
        self.ledger = Ledger()
        self.doors: dict[int, DoorLike] = {}
        self.draining = False
        self.hopeless: dict[str, Fault] = {}  # runner classes that have no worker any more, and why
        self.counts = {"done": 0, "failed": 0, "cancelled": 0}
        self.on_ready: Callable[[], None] = _nothing  # a delayed shard is ready
        self.on_settled: Callable[[], None] = _nothing
        self.on_sent: Callable[[Seat], None] = _ignore  # what a worker has in hand has changed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether every shard that was taken in has its outcome."""
        queue = self.queue
        return not (queue.ready or queue.alone or queue.delayed or self.ledger.in_flight)

    def held(self, seat: Seat) -> Hand:
        """What a seat has in flight."""
        return self.ledger.hand(seat.number)

    def settle(
        self,
        key: int,
        outcomes: list[Any],
        *,
        size: int = 0,
        slot: int = -1,
        seconds: float = 0.0,
    ) -> None:
        """Shards of one door have their outcomes, all of one kind."""
        if not outcomes:
            return
        door = self.doors.get(key)
        if door is not None and door.recorder is not None:
            door.recorder.write(outcomes, size=size, slot=slot, seconds=seconds)
        else:
            self.tell(key, outcomes, size=size, slot=slot, seconds=seconds)

    def tell(self, key: int, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Say what became of shards of one door; where they are recorded, they have been written by now."""
        self.counts[_KINDS[type(outcomes[0])]] += len(outcomes)
        if self.bus.heard:
            self.bus.say(event.Settled(at=time.time(), outcomes=list(outcomes)))
        door = self.doors.get(key)
        if door is not None:
            door.take(outcomes, size=size, slot=slot, seconds=seconds)
        self.on_settled()

    def done(self, seat: Seat, results: Results[Any], size: int) -> int:
        """Settle a frame of values, and learn from it; how many there were."""
        first, values, ended = results.first, results.values, results.ended
        found = None if results.seqs else self.ledger.ended(seat.number, first, len(values))
        if found is not None:
            batch, offset = found
            starts = chain(results.started, ended)
            outcomes: list[Any] = list(
                map(Done, values, repeat(batch), starts, ended, repeat(seat.info), count(offset))
            )
            self._ran(seat, outcomes, size=size, seconds=ended[-1] - results.started[0])
            return len(outcomes)
        return self._done_by_seq(seat, results, size)

    def _done_by_seq(self, seat: Seat, results: Results[Any], size: int) -> int:
        first, values, ended = results.first, results.values, results.ended
        seqs = results.seqs or range(first, first + len(values))
        entries = self.ledger.done(seat.number, seqs)
        starts = results.started if results.seqs else [*results.started, *ended]
        outcomes: list[Any] = list(map(Done, values, entries, starts, ended, repeat(seat.info)))
        if None in entries:
            outcomes = [outcome for outcome in outcomes if outcome.entry is not None]  # late replies
        if not outcomes:
            return 0
        if not results.seqs:  # one after the other: a frame of one door
            self._ran(seat, outcomes, size=size, seconds=ended[-1] - starts[0])
            return len(outcomes)
        by_door: dict[int, list[Any]] = {}
        for outcome in outcomes:
            by_door.setdefault(outcome.entry.origin.door, []).append(outcome)
        for own in by_door.values():
            seconds = sum(outcome.ended - outcome.started for outcome in own)
            self._ran(seat, own, size=size, seconds=seconds)
        return len(outcomes)

    def _ran(self, seat: Seat, outcomes: list[Any], *, size: int, seconds: float) -> None:
        seat.ran(len(outcomes), seconds)
        key = outcomes[0].entry.origin.door
        self.queue.pace(key).ran(len(outcomes), seconds)
        self.settle(key, outcomes, size=size, slot=seat.slot, seconds=seconds)

    def failed(self, seat: Seat, entry: Entry, fault: Fault, *, started: float, seconds: float) -> None:
        """An attempt failed: the shard's outcome, or another attempt."""
        seat.ran(1, seconds)
        key = entry.origin.door
        decision = judge(
            entry,
            fault,
            self.policy,
            worker=seat.info,
            started=started,
            seconds=seconds,
            roll=int.from_bytes(os.urandom(6), "big") / (1 << 48),  # `random` is 4 ms to import
        )
        match decision:
            case Settle():
                self.settle(key, [Failed(fault=fault, entry=entry)], slot=seat.slot, seconds=seconds)
            case Again() if self._unwanted(entry):
                self.settle(key, [Cancelled(entry=entry)])
            case Again(wait=wait):
                attempt = len(entry.history)
                told = event.Retrying(
                    at=time.time(), shard_id=entry.shard_id, attempt=attempt, fault=fault, wait=wait
                )
                door = self.doors.get(key)
                if door is not None and door.recorder is not None:
                    door.recorder.retried(entry)
                self.queue.delay(entry, monotonic() + wait)
                self.bus.say(told)  # last: a listener may drain, and that cancels what waits
                self._wake_when_due()

    def back(self, entries: Iterable[Entry]) -> None:
        """Shards that were assigned and did not run: ready again, unless nobody wants them any more."""
        again: list[Entry] = []
        for entry in entries:
            if self._unwanted(entry):
                self.settle(entry.origin.door, [Cancelled(entry=entry)])
            else:
                again.append(entry)
        self.queue.put_back(again)

    def _unwanted(self, entry: Entry) -> bool:
        """Whether a shard must not run again: its submitter or its door has gone, or no new shard may start."""
        door = self.doors.get(entry.origin.door)
        return entry.withdrawn or door is None or door.stopping or self.draining

    def withdraw(self, entry: Entry) -> tuple[int, int] | None:
        """Take back a shard that waits; else the worker and seq that must be stopped, None if it is settled."""
        entry.withdrawn = True
        if self.queue.withdraw(entry):
            self.settle(entry.origin.door, [Cancelled(entry=entry)])
            return None
        return self.ledger.find(entry)

    def cancel_waiting(self, key: int) -> None:
        """What waits of a door is Cancelled."""
        self.settle(key, [Cancelled(entry=entry) for entry in self.queue.drop_door(key)])

    def cancel_all(self) -> None:
        """Whatever has no outcome is Cancelled: no worker is left that could tell."""
        for key in list(self.doors):
            self.cancel_waiting(key)
        for worker in self.ledger.workers:
            for entry in self.ledger.take_all(worker).values():
                self.settle(entry.origin.door, [Cancelled(entry=entry)])

    def fail_waiting(self, fault: Fault) -> None:
        """What waits fails: no worker will ever come."""
        for key in list(self.doors):
            self.settle(key, [Failed(fault=fault, entry=entry) for entry in self.queue.drop_door(key)])

    def fail_hopeless(self) -> None:
        """What is ready for a runner class without workers fails: it would wait for ever beside the others."""
        for runner, fault in self.hopeless.items():
            waiting = [entry for entry in self.queue.alone if entry.runner == runner]
            waiting += [
                entry
                for lane in self.queue.lanes_for(runner)
                if lane.runner == runner
                for entry in lane.entries()
            ]
            for entry in waiting:
                self.queue.withdraw(entry)
                self.settle(entry.origin.door, [Failed(fault=fault, entry=entry)])

    def _wake_when_due(self) -> None:
        now = monotonic()
        due = self.queue.due(now)
        self.on_ready()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._wake_when_due)

    def close(self) -> None:
        """Wake no more."""
        if self._timer is not None:
            self._timer.cancel()


def _nothing() -> None:
    pass


def _ignore(seat: Seat) -> None:
    pass


_KINDS: dict[type, str] = {Done: "done", Failed: "failed", Cancelled: "cancelled"}
