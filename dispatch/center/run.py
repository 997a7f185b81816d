"""One door's view of a session: its source of shards, its outcomes, its report.

A source is read lazily. What was read and not yet handed on is bounded in number and in bytes, so the consumer's
pace is the brake. Shards are read and outcomes handed on in bunches, with the event loop free between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from itertools import islice
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from dispatch.center.bell import Bell
from dispatch.center.intake import Intake, Taken, by_runner, length_of
from dispatch.center.session import Session
from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import StartupFailed
from dispatch.terms.outcome import Done, Failed
from dispatch.terms.report import Counts, Report, WorkerFigures
from dispatch.terms.shard import Batch, Entry
from dispatch.wire.codec import Codec

if TYPE_CHECKING:
    from dispatch.center.recorder import Recorder
    from dispatch.center.reuse import Admitted

__all__ = ("RunDoor", "SourceDoor")

READING = 0.001  # seconds that a sync source may take for a bunch
CLOSED_WITHIN = 0.25  # seconds that an async generator which is left gets for its `finally`
BUNCH = 512  # shards read from a source before the event loop gets a turn

R = TypeVar("R")


class SourceDoor(Generic[R]):
    """A door that reads shards from a source. Subclasses say what becomes of outcomes."""

    def __init__(
        self, session: Session, key: int, codecs: dict[str, Codec], *, config: DispatchConfig
    ) -> None:
        self.session, self.key = session, key
        self.stopping = False
        self.intake = Intake(key, codecs)
        self.recorder: Recorder | None = (
            None  # writes what becomes of the shards, and knows what became of them
        )
        self.reused = 0
        self.counts: dict[str, int] = {}
        self.error: BaseException | None = None
        self.exhausted = False  # the source ended, and was read to its end
        self._reading = anyio.CancelScope()
        self._gave_up = False  # too many failures
        self._config = config
        self._began = monotonic()
        self._settled = 0
        self._handed = 0  # outcomes that the consumer has taken
        self._held_bytes = 0.0  # payloads of unsettled shards, and values that the consumer has not taken
        self._room = Bell()
        self._progress = Bell()
        self._workers: dict[int, list[float]] = {}
        self._kept: list[Any] = []  # what the report holds
        self._report: Report[R] | None = None
        session.books.doors[key] = self
        session.books.queue.pace(key).more = True

    # Reading.

    async def pump(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Read the source until it ends, as far ahead as is allowed. What it raises is kept in `error`."""
        self._expected = length_of(source)
        try:
            with self._reading:
                if isinstance(source, AsyncIterable):
                    await self._pump_async(source)
                else:
                    await self._pump_sync(iter(source))
        except Exception as error:  # noqa: BLE001  (a source is user code: what it raises is told at the door)
            error.add_note(
                f"dispatch: raised while reading shards, after {self.intake.read}; those finish first"
            )
            if self.error is None:  # else the record is broken, and that is why
                self.error = error
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) or (
                task and task.cancelling()
            ):
                raise  # nothing of the source's
            self.error = RuntimeError(f"the source of shards ended with {type(error).__name__}, no Exception")
            self.error.__cause__ = (
                error  # not as it is: a CancelledError would say that the caller was cancelled
            )
        finally:
            self._blame_startup()
            self._over = True
            self.session.books.queue.pace(self.key).more = False
            self._tell()

    _over = False
    _expected: int | None = None  # how many shards the source says that it has

    def _blame_startup(self) -> None:
        """No worker is left: shards that were not read get no outcome, so the door says why."""
        fault = self.session.startup_fault
        if fault is not None and not self.exhausted and self.error is None:
            try:
                Failed(fault=fault).unwrap()
            except StartupFailed as error:
                self.error = error

    async def _pump_sync(self, source: Any) -> None:
        step = 16
        while True:
            number = await self._allowed()
            if not number:
                return
            number = min(number, step)
            payloads: list[Any] = []
            began = monotonic()
            try:
                payloads.extend(islice(source, number))  # keeps what came before an error
            finally:
                # A source that works for its shards blocks the event loop: not for long at a time.
                step = min(BUNCH, 2 * step) if monotonic() - began < READING else max(1, step // 4)
                await self._admit(payloads)
            if len(payloads) < number:
                self.exhausted = True
                return
            await asyncio.sleep(0)

    async def _pump_async(self, source: AsyncIterable[Any]) -> None:
        try:
            if not await self._allowed():
                return
            async for payload in source:
                await self._admit([payload])
                if not await self._allowed():
                    return
            self.exhausted = True
        finally:
            # A generator that is left at its `yield` would run its `finally` whenever it is collected.
            if not self.exhausted and isinstance(source, AsyncGenerator):
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSED_WITHIN):
                    await source.aclose()

    async def _allowed(self) -> int:
        """How many shards may be read now; waits for one at least. 0: read no more."""
        limit = self._config.max_pending
        enough = max(1, min(BUNCH, limit) // 2)  # reading a few at a time would wake us for each outcome
        while not (self._reading.cancel_called or self.session.ending):
            room = limit - (self.intake.read - self._handed)
            if room >= enough and not self._is_heavy:
                mean = self._held_bytes / max(1, self.intake.read - self._handed)
                fits = int((self._config.max_pending_bytes - self._held_bytes) / mean) if mean else BUNCH
                return max(1, min(room, BUNCH, fits if self.intake.read else 1))
            await self._room.wait()
        return 0

    @property
    def _is_heavy(self) -> bool:
        return self._held_bytes >= self._config.max_pending_bytes

    async def _admit(self, payloads: list[Any]) -> None:
        """Take in what was read. Waits for nothing, unless the record must be searched."""
        if not payloads:
            return
        start = self.intake.read
        taken = self.intake.take(payloads, monotonic(), apart=self.recorder is not None)
        self._held_bytes += taken.size
        if self.recorder is not None:
            await self._admit_recorded(taken, payloads, start)
        else:
            self.session.books.settle(self.key, taken.failed)
            number = len(taken.entries) if taken.batch is None else len(taken.batch)
            if number:
                self.session.books.queue.pace(self.key).sized(number, taken.size)
            if taken.batch is None:
                self._push(taken.entries, special=taken.special)
            else:
                self.session.push(taken.batch)
        if taken.error is not None:
            raise taken.error

    def _push(self, entries: list[Entry], *, special: bool) -> None:
        if entries:
            for group in by_runner(entries) if special else [entries]:
                self.session.push(group, special=special)

    async def _admit_recorded(self, taken: Taken, payloads: list[Any], start: int) -> None:
        """Settle what the record holds, run the rest. What is not looked up when this is cancelled was not read."""
        assert self.recorder is not None
        unfit = {failed.entry.index: failed for failed in taken.failed}
        entries = taken.entries
        if unfit:
            entries = sorted([*entries, *(failed.entry for failed in taken.failed)], key=attrgetter("index"))
        names = self.recorder.digests(entries, payloads, start=start, special=taken.special)
        at = 0
        try:
            while at < len(entries):
                while at and self._is_heavy and self._handed < self.intake.read - len(entries) + at:
                    await self._room.wait()  # recorded values are large, and the consumer has some of them
                found = await self.recorder.reuse.admit(entries[at:], names[at:], unfit)
                failed = [
                    unfit[entry.index] for entry in entries[at : at + found.number] if entry.index in unfit
                ]
                at += found.number
                self._settle_recorded(found, failed)
                if found.duplicate is not None:
                    raise found.duplicate
        finally:
            self.intake.unread(entries[at:])

    def _settle_recorded(self, found: Admitted, failed: list[Any]) -> None:
        books = self.session.books
        for outcomes, size in ((found.done, found.size), (found.failed, 0)):
            if outcomes:
                self.reused += len(outcomes)
                books.tell(self.key, outcomes, size=size, slot=-1, seconds=0.0)
        books.settle(self.key, failed)
        if found.fresh:
            books.queue.pace(self.key).sized(
                len(found.fresh), sum(len(entry.payload) for entry in found.fresh)
            )
        together = [entry for entry in found.fresh if not entry.alone]
        self._push(together, special=any(entry.special or entry.runner for entry in together))
        if len(together) < len(found.fresh):
            books.back(entry for entry in found.fresh if entry.alone)
            self.session.feed()

    # Settling.

    def take(self, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Called by the session with outcomes of this door."""
        unsettled = self.intake.read - self._settled
        self._settled += len(outcomes)
        queued = self._held_bytes - self._buffered_bytes()
        self._held_bytes -= max(0.0, queued) * len(outcomes) / max(1, unsettled)
        self.intake.forget(outcomes)
        first = outcomes[0]
        if isinstance(first, Done):
            self.counts["done"] = self.counts.get("done", 0) + len(outcomes)
        else:
            self._count_slow(outcomes)
        if slot >= 0:
            figures = self._workers.setdefault(slot, [0, 0.0])
            figures[0] += len(outcomes)
            figures[1] += seconds
        self.keep(outcomes, size)
        self._tell()

    def _count_slow(self, outcomes: list[Any]) -> None:
        failures = 0
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                failures += 1
                self._count("failed", outcome.fault.cause)
            else:
                self._count("cancelled")
        limit = self._config.policy.max_failures
        if failures and limit is not None and self.counts["failed"] >= limit and not self.stopping:
            self._gave_up = True
            asyncio.get_running_loop().call_soon(self.stop)

    def _count(self, *names: str) -> None:
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + 1

    def keep(self, outcomes: list[Any], size: int) -> None:
        """What becomes of outcomes."""
        raise NotImplementedError  # the two kinds of door, here and in stream.py

    def _buffered_bytes(self) -> float:
        return 0.0

    def drop(self, outcomes: list[Any]) -> None:
        """Called by the recorder: nobody hears of these outcomes, because they could not be written."""
        self._settled += len(outcomes)
        self._handed += len(outcomes)
        self.intake.forget(outcomes)
        self._tell()
        self.session.books.on_settled()  # who closes the centre waits for these too

    def fail(self, error: Exception) -> None:
        """Called by the recorder: nothing can be written any more."""
        self.error = error
        self.stop()

    def progress(self) -> dict[str, Any]:
        """Called by the recorder: how far this door is."""
        return {
            "counts": dict(self.counts),
            "total": self.intake.read,
            "total_known": self.exhausted,
            "expected": self._expected,
            "unsettled": self.intake.read - self._settled,
            "seconds": monotonic() - self._began,
        }

    def _tell(self) -> None:
        self._progress.ring()
        self._room.ring()

    @property
    def settled(self) -> bool:
        """Whether every shard that was read has its outcome, and no more will be read."""
        return self._over and self._settled == self.intake.read

    async def finished(self) -> None:
        """Wait until `settled`."""
        while not self.settled:
            await self._progress.wait()

    def halt(self) -> None:
        """Read no more, also if the source is being waited for."""
        self._reading.cancel()
        self._tell()

    def stop(self) -> None:
        """Read no more, and stop what was read."""
        self.stopping = True
        self.halt()
        self.session.stop_door(self.key)

    async def stopped(self, within: float) -> None:
        """Stop, and wait until nothing of this door runs; then leave the session."""
        self.stop()
        with anyio.move_on_after(within, shield=True):
            while self._settled < self.intake.read:
                await self._progress.wait()
        self.leave()

    def leave(self) -> None:
        """Be a door of the session no more; from now on the report is one object."""
        self.session.books.doors.pop(self.key, None)
        self.session.books.queue.drop_door(self.key)
        self._report = self._reported()

    def report(self) -> Report[R]:
        """What became of the door's shards."""
        return self._report or self._reported()

    def _reported(self) -> Report[R]:
        self._kept.sort(key=_index)
        seats = self.session.crew.slots
        workers = tuple(
            WorkerFigures(
                runner=seats[number].runner, pids=tuple(seats[number].pids), shards=int(shards), busy=busy
            )
            for number, (shards, busy) in sorted(self._workers.items())
        )
        return Report(
            outcomes=self._kept,
            counts=Counts(self.counts),
            total=self.intake.read,
            total_known=self.exhausted,
            reused=self.reused,
            seconds=monotonic() - self._began,
            workers=workers,
            interrupted=self.interrupted,
            collected=self._collects,
        )

    _collects = False

    @property
    def finished_whole(self) -> bool:
        """Whether every shard of the source has its outcome, and nobody ended it before its time."""
        return self.settled and self.error is None and not self.interrupted and not self._gave_up

    @property
    def interrupted(self) -> bool:
        """Whether somebody ended it before its time; not its own source, failures or workers."""
        ended = self.exhausted or self.error is not None
        return not self._gave_up and (self.session.draining or self.stopping or not ended)


class RunDoor(SourceDoor[R]):
    """Keeps all outcomes, or with `collect=False` only those that are not Done."""

    def __init__(self, *args: Any, collect: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collects = collect

    def keep(self, outcomes: list[Any], size: int) -> None:
        self._handed += len(outcomes)
        if self._collects or not isinstance(outcomes[0], Done):
            self._kept.extend(outcomes)


def _index(outcome: Any) -> int:
    entry = outcome.entry
    index: int = entry.start + outcome.offset if isinstance(entry, Batch) else entry.index
    return index
