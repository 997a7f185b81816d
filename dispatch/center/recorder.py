"""Between a door and its journal: an outcome goes to its door when it is durable. Where that fails, nobody hears of it.

Beside outcomes it writes what is worth to know of a run that is killed: how far it was, and what its workers had in
hand. Nothing waits for that.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import anyio
import msgspec

from dispatch.center.reuse import Reuse, digests
from dispatch.center.seat import Seat
from dispatch.center.session import Session
from dispatch.record.archive import Live
from dispatch.record.bus import Bus
from dispatch.record.journal import Identity, Journal
from dispatch.record.schema import INLINE
from dispatch.record.writer import Act
from dispatch.terms import event
from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import JournalError
from dispatch.terms.event import Event
from dispatch.terms.outcome import Done, Failed
from dispatch.terms.shard import Entry
from dispatch.wire.codec import Codec, NotDeliverable, undeliverable

__all__ = ("Recorder",)

LIVE = 0.5  # seconds between notes of how far the run is
FLIGHT = 0.02  # seconds after which the journal knows what a worker has in hand
CLOSED_WITHIN = 10.0  # seconds that the last commit may take
RARE = (event.WorkerReady, event.WorkerEnded, event.Draining)
KINDS = {"done": {"done"}, "all": {"done", "failed"}, "none": set[str]()}


class Recorded(Protocol):
    """A door, as its recorder sees it."""

    key: int

    def progress(self) -> dict[str, Any]:
        """The fields of Live that the door knows."""
        ...

    def drop(self, outcomes: list[Any]) -> None:
        """These shards have outcomes that could not be written: nobody hears of them."""
        ...

    def fail(self, error: Exception) -> None:
        """The record is broken: read no more, stop what was read, and raise this at the end."""
        ...


class Recorder:
    """One journaled run. Made by `open`, then `begin` says which door it records."""

    def __init__(self, journal: Journal, codecs: dict[str, Codec], *, resume: str, bus: Bus) -> None:
        self._journal, self._codecs, self._bus = journal, codecs, bus
        self.reuse = Reuse(journal, codecs, kinds=frozenset(KINDS[resume]), post=journal.writer.post)
        self.digests = digests
        self._dirty: dict[int, Seat] = {}
        self._turn = 0
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._session: Session | None = None
        self._door: Recorded | None = None
        journal.writer.on_error = self._broken
        bus.join(self._hear)

    @classmethod
    async def open(
        cls, config: DispatchConfig, identity: Identity, codecs: dict[str, Codec], *, bus: Bus
    ) -> Recorder:
        """Own `config.work_dir`. Raises as Journal.open does; cancelling leaves nothing open."""
        assert config.work_dir is not None
        journal = await Journal.open(
            config.work_dir,
            identity,
            resume=config.resume,
            allow_drift=config.allow_drift,
            config=msgspec.to_builtins(config),
        )
        return cls(journal, codecs, resume=config.resume, bus=bus)

    def begin(self, session: Session, door: Recorded) -> None:
        """Record what goes through this door."""
        self._session, self._door = session, door
        session.books.on_sent = self._sent
        self._note_live()

    async def close(self, *, finished: bool) -> None:
        """Write what is left, and leave the work_dir. Raises JournalError if that fails, or takes 10 s."""
        self._bus.leave(self._hear)
        for timer in self._timers.values():
            timer.cancel()
        if self._session is not None:
            self._session.books.on_sent = _nothing
            self._post_live()
        with anyio.move_on_after(CLOSED_WITHIN, shield=True) as within:
            await self._journal.close(state="finished" if finished else "interrupted")
        if within.cancelled_caught:
            raise JournalError(self._journal.path, f"the last commit takes over {CLOSED_WITHIN:g} s")

    # Outcomes.

    def write(self, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Write these outcomes, all of one kind, then tell their door. Where it fails, the door drops them."""
        session, door = self._session, self._door
        assert session is not None
        assert door is not None
        if not isinstance(outcomes[0], Done):
            act = self._other_act(outcomes)
        else:
            try:
                act = self._done_act(outcomes)
            except NotDeliverable:
                outcomes, act = self._done_one_by_one(outcomes)
                if not outcomes:
                    return
        act.told = partial(session.books.tell, door.key, outcomes, size=size, slot=slot, seconds=seconds)
        act.dropped = partial(door.drop, outcomes)
        hungry = not session.books.queue.ready  # the source may be waiting until we have told
        self._journal.writer.post(act, urgent=hungry)

    def _done_act(self, outcomes: list[Any]) -> Act:
        run, at = self._journal.run, time.time()
        codec = next(iter(self._codecs.values()))
        values = codec.encode_all([outcome.value for outcome in outcomes])
        large = max(map(len, values)) > INLINE
        rows: list[tuple[Any, ...]] = []
        attempts: list[tuple[Any, ...]] = []
        for outcome, value in zip(outcomes, values, strict=True):
            entry, worker, started = outcome.entry, outcome.worker, outcome.started
            number = len(entry.history) + 1
            rows.append((entry.row, run, "done", "", at, number, value, None, None))
            queued = started - entry.ready_at
            attempts.append(
                (
                    entry.row,
                    number,
                    run,
                    worker.runner,
                    worker.pid,
                    started + worker.epoch,
                    outcome.ended - started,
                    max(0.0, queued),
                    "",
                    None,
                )
            )
        return Act(outcomes=rows, attempts=attempts, large=large)

    def _done_one_by_one(self, outcomes: list[Any]) -> tuple[list[Any], Act]:
        """A value that was decoded and cannot be encoded again fails its shard: it could not be reused."""
        acts: list[Act] = []
        good: list[Any] = []
        for outcome in outcomes:
            try:
                acts.append(self._done_act([outcome]))
                good.append(outcome)
            except NotDeliverable as error:
                fault = undeliverable(f"shard {outcome.shard_id}", f"for the journal, {error}")
                entry = outcome.entry
                entry.history = outcome.attempts
                failed = Failed(fault=fault, entry=entry)
                self.write([failed], size=0, slot=-1, seconds=0.0)
        rows = [row for act in acts for row in act.outcomes]
        attempts = [row for act in acts for row in act.attempts]
        return good, Act(outcomes=rows, attempts=attempts, large=True)

    def _other_act(self, outcomes: list[Any]) -> Act:
        run, at = self._journal.run, time.time()
        rows: list[tuple[Any, ...]] = []
        attempts: list[tuple[Any, ...]] = []
        for outcome in outcomes:
            entry = outcome.entry
            kind, cause, fault = "cancelled", "", None
            if isinstance(outcome, Failed):
                kind, cause, fault = "failed", outcome.fault.cause, msgspec.msgpack.encode(outcome.fault)
            rows.append((entry.row, run, kind, cause, at, len(entry.history), None, None, fault))
            if entry.history:
                attempts.append(self._attempt(entry))
        return Act(outcomes=rows, attempts=attempts)

    def retried(self, entry: Entry) -> None:
        """An attempt of a shard failed, and another one is due."""
        self._journal.writer.post(Act(attempts=[self._attempt(entry)]))

    def _attempt(self, entry: Entry) -> tuple[Any, ...]:
        """The row of the last attempt; where it stands already, it stays as it is."""
        last = entry.history[-1]
        fault = None if last.fault is None else msgspec.msgpack.encode(last.fault)
        cause = "" if last.fault is None else last.fault.cause
        run, number = self._journal.run, len(entry.history)
        times = (last.started_at, last.seconds, last.queued)
        return (entry.row, number, run, last.runner, last.pid, *times, cause, fault)

    def _broken(self, error: JournalError) -> None:
        if self._door is not None:
            self._door.fail(error)

    # What a killed run leaves behind.

    def _sent(self, seat: Seat) -> None:
        """What a worker has in hand has changed."""
        self._dirty[seat.number] = seat
        self._later(self._note_flights, FLIGHT)

    def _note_flights(self) -> None:
        self._timers.pop(self._note_flights, None)
        assert self._session is not None
        flights: dict[int, tuple[Any, ...]] = {}
        at = time.time()
        for number, seat in self._dirty.items():
            self._turn += 1
            rows = array(
                "q", [entry.row for entry in self._session.books.held(seat).entries().values() if entry.row]
            )
            running = seat.concurrency if seat.several else 1
            flights[number] = (number, self._turn, at, seat.runner, seat.info.pid, running, rows.tobytes())
        self._dirty.clear()
        self._journal.writer.post(Act(flights=flights))

    def _note_live(self) -> None:
        self._timers.pop(self._note_live, None)
        self._post_live()
        self._later(self._note_live, LIVE)

    def _post_live(self) -> None:
        session, door = self._session, self._door
        assert session is not None
        assert door is not None
        live = Live(at=time.time(), reused=self.reuse.reused, snapshot=session.snapshot(), **door.progress())
        self._journal.writer.post(self._journal.live(live))

    def _hear(self, said: Event) -> None:
        if isinstance(said, RARE):
            self._journal.writer.post(self._journal.event(type(said).__name__.lower(), said, said.at))

    def _later(self, what: Callable[[], None], seconds: float) -> None:
        if what not in self._timers:
            self._timers[what] = asyncio.get_running_loop().call_later(seconds, what)


def _nothing(seat: Seat) -> None:
    pass
