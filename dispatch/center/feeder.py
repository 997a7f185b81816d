"""Who gets what next, and what is taken back: shards from the books into workers' hands.

How many go into a frame is decided by `scheduling`; here a frame is sent in the same turn of the loop in which
room for it came about.
"""

from __future__ import annotations

import asyncio
from operator import itemgetter
from time import monotonic
from typing import Any

from dispatch.center.books import Books
from dispatch.center.seat import Seat
from dispatch.engines.base import Engine
from dispatch.terms.shard import Batch, Entry
from dispatch.wire import frames

__all__ = ("Feeder",)

STALL = 0.05  # seconds without an outcome after which an idle worker may take over what a busy one has not started
LOOK = 0.05  # seconds between looks for such workers


class Feeder:
    """Feeds the workers in `seats`, a mapping that its owner changes."""

    def __init__(self, engine: Engine, seats: dict[int, Seat], *, books: Books) -> None:
        self._engine, self._seats, self._books = engine, seats, books
        self._looking: asyncio.TimerHandle | None = None
        self._feeding = self._closed = False

    def close(self) -> None:
        """Look for stalled workers no more."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()

    def feed(self) -> None:
        """Give ready shards to workers that have room: first those with nothing to do."""
        queue = self._books.queue
        if not (queue.ready or queue.alone) or self._feeding:
            return
        self._feeding = True  # a door that hears of an outcome may push, and so come here again
        try:
            if self._books.hopeless:
                self._books.fail_hopeless()
            ready = [seat for seat in self._seats.values() if seat.state == "ready" and not seat.waits]
            seats = [seat for seat in ready if not seat.is_full]
            if queue.alone:
                seats = self._feed_alone(seats)
            loads = [(len(self._books.held(seat)), seat) for seat in seats]
            idle = sum(not load for load, _ in loads)
            for _, seat in sorted(loads, key=_load):
                while queue.ready and self._feed_seat(seat, workers=len(ready), idle=idle):
                    pass
                idle -= 1
        finally:
            self._feeding = False

    def _feed_seat(self, seat: Seat, *, workers: int, idle: int) -> bool:
        """Send one frame to a worker, of the first lane in turn that has one for it."""
        queue, held = self._books.queue, self._books.held(seat)
        if seat.alone and not held:
            seat.alone = False  # what it had for itself was taken back
        for lane in queue.lanes_for(seat.runner):
            number = seat.room(lane, held, workers=workers, idle=idle)
            if number > 0:
                self._send(seat, queue.take(lane, number), special=lane.special)
                return True
        return False

    def _feed_alone(self, seats: list[Seat]) -> list[Seat]:
        """Shards that must run alone get an empty worker; while none is empty, one worker gets nothing new."""
        rest: list[Seat] = []
        for seat in seats:
            entry = self._books.queue.take_alone(seat.runner) if not self._books.held(seat) else None
            if entry is None:
                rest.append(seat)
            else:
                seat.alone = True
                self._send(seat, [entry], special=True)
        if any(seat.alone and self._books.held(seat) for seat in seats):
            return rest
        spare = next((seat for seat in rest if self._books.queue.has_alone(seat.runner)), None)
        return [seat for seat in rest if seat is not spare]

    def _send(self, seat: Seat, shards: list[Entry] | Batch, *, special: bool) -> None:
        ledger, timeout = self._books.ledger, self._books.policy.timeout
        work: frames.Work[Any]
        if isinstance(shards, Batch) and not seat.several:
            first = ledger.assign(seat.number, shards)
            work = frames.Work(first, timeout, [], start=shards.start)
            payloads = shards.payloads
        else:  # tasks end in any order
            entries = shards.entries() if isinstance(shards, Batch) else shards
            first = ledger.assign(seat.number, entries)
            work = frames.Work(first, timeout, [entry.index for entry in entries])
            payloads = [entry.payload for entry in entries]
            if special:
                _specify(work, entries)
        seat.frames.append(first + len(payloads) - 1)
        if len(seat.frames) == 1:
            seat.heard_at = monotonic()
        self._engine.send_work(seat.number, work, payloads)
        self._books.on_sent(seat)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK, self._look)

    def stop_attempts(self, number: int, seqs: list[int]) -> None:
        """End these attempts: those not started are taken back, one that runs is cancelled or killed."""
        seat = self._seats[number]
        if seat.several:
            self._engine.send(number, frames.Withdraw(seqs))
            grace = self._books.policy.cancel_grace
            asyncio.get_running_loop().call_later(grace, self._kill_if_held, seat, seqs)
        else:
            self._engine.fence(number, self._books.ledger.next_seq, kill=seqs)

    def _kill_if_held(self, seat: Seat, seqs: list[int]) -> None:
        if not self._books.held(seat).entries().keys().isdisjoint(seqs):
            self._engine.kill(seat.number)

    def take_back_unstarted(self) -> None:
        """Nothing that was sent and not started shall start."""
        for seat in self._seats.values():
            held = self._books.held(seat)
            if seat.several and held:
                self._engine.send(seat.number, frames.Withdraw(list(held.entries()), waiting=True))
            elif held:
                self._engine.fence(seat.number, self._books.ledger.next_seq)

    def _look(self) -> None:
        """Take back what a busy worker has not started, for one that idles."""
        self._looking = None
        now = monotonic()
        holding = [seat for seat in self._seats.values() if self._books.held(seat)]
        idle = len(holding) < sum(seat.state == "ready" for seat in self._seats.values())
        for seat in holding if idle and not self._books.queue.ready else ():
            held = self._books.held(seat)
            if len(held) > 1 and now - seat.heard_at > STALL:
                if seat.several:
                    self._engine.send(seat.number, frames.Withdraw(list(held.entries()), waiting=True))
                else:
                    self._engine.fence(seat.number, self._books.ledger.next_seq)
        if holding and not self._closed:
            self._looking = asyncio.get_running_loop().call_later(LOOK, self._look)


_load = itemgetter(0)


def _specify(work: frames.Work[Any], entries: list[Entry]) -> None:
    """Add to a frame what some of its shards have beside index and payload."""
    for offset, entry in enumerate(entries):
        if entry.special:
            if entry.id:
                work.ids[offset] = entry.id
            if entry.history:
                work.attempts[offset] = len(entry.history) + 1
            if entry.timeout is not None:
                work.timeouts[offset] = entry.timeout
