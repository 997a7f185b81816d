"""One opening of a centre: joins books and crew, in one task of its own, from `open` to `close`.

A task group cannot be entered in one task and left in another, so an open centre keeps its own in a task of its
own, and may be opened and closed from anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from time import monotonic

import anyio
from anyio import CancelScope

from dispatch.center.bell import Bell
from dispatch.center.books import Books
from dispatch.center.crew import Crew
from dispatch.center.seat import Seat
from dispatch.engines.base import Engine
from dispatch.record.bus import Bus
from dispatch.terms import event
from dispatch.terms.config import Policy
from dispatch.terms.event import Snapshot
from dispatch.terms.outcome import Failed, Fault
from dispatch.terms.shard import Batch, Entry
from dispatch.wire.calls import CallTable

__all__ = ("Session",)

ANSWERED_WITHIN = (
    1.0  # seconds that a @remote method which nobody waits for gets to end after its cancellation
)


class Session:
    """One opening. Doors push shards into it, and get outcomes back by their `take`."""

    def __init__(
        self, engine: Engine, seats: list[Seat], *, policy: Policy, calls: CallTable, bus: Bus
    ) -> None:
        self.policy, self.bus = policy, bus
        self.books = Books(policy, bus)
        self.crew = Crew(engine, seats, books=self.books, calls=calls)
        self.closing = False
        self.startup_fault: Fault | None = None
        self._opened_at = monotonic()
        self._ready = anyio.Event()
        self._stop = anyio.Event()
        self._over = anyio.Event()
        self._changed = Bell()
        self._task: asyncio.Task[None] | None = None
        self._insist: asyncio.TimerHandle | None = None
        self.on_over: Callable[[], None] = _nothing
        self.books.on_ready = self.crew.feeder.feed
        self.books.on_settled = self._settled
        self.crew.on_ready = self._ready.set
        self.crew.on_change = self._changed.ring
        self.crew.on_hopeless = self._hopeless

    # Opening and closing.

    async def open(self) -> None:
        """Start the workers; return when the first is ready.

        Raises StartupFailed if none can be, what the engine raised if it broke. Cancelling closes again.
        """
        self._task = asyncio.create_task(self._run(), name="dispatch-session")
        self._task.add_done_callback(self._never_began)
        try:
            await self._ready.wait()
        except BaseException:
            await self.close(now=True)
            raise
        self._raise_what_broke()
        if self.startup_fault is not None and not any(seat.was_ready for seat in self.crew.seats.values()):
            await self.close(now=True)
            Failed(fault=self.startup_fault).unwrap()

    def _raise_what_broke(self) -> None:
        """An engine of somebody's own may raise anything: that must not look like an end."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def _never_began(self, _task: asyncio.Task[None]) -> None:
        """The loop is about to close, and cancelled the task before its first step."""
        if not self._over.is_set():
            self._ended()

    def _ended(self) -> None:
        self._ready.set()
        self._over.set()
        self.on_over()
        self._changed.ring()

    async def _run(self) -> None:
        engine = self.crew.engine
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    await self.crew.open(tasks)
                    await self._stop.wait()
                except OSError as error:  # here, and not outside the group, which would wrap it
                    kind = type(error).__name__
                    self._hopeless(Fault(cause="startup", type=kind, message=str(error), final=True))
                finally:
                    self.closing = True
                    self._halt_doors()
                    self.crew.close()
                    with CancelScope(shield=True):
                        await engine.aclose()
                        await self.crew.answers.aclose(within=ANSWERED_WITHIN)
                    self.books.cancel_all()
                    tasks.cancel_scope.cancel()
        finally:
            self.books.close()
            if self._insist is not None:
                self._insist.cancel()
            self._ended()
            self.bus.say(event.Closed(at=time.time()))

    async def close(self, *, now: bool = False, grace: float | None = None) -> None:
        """Finish what was accepted, let the workers go in peace, leave nothing behind.

        `now`: kill at once. `grace`: kill what remains after so many seconds. Cancelling kills at once.
        """
        begun, self.closing = self.closing, True
        self._halt_doors()
        try:
            if begun and not now:  # somebody else closes: wait for that
                with anyio.move_on_after(grace):
                    await self._over.wait()
            elif not now:
                with anyio.move_on_after(grace):
                    await self._until(lambda: self.books.idle)
                await self._farewell(self.policy.grace if self.books.idle else 0.0)
        finally:
            self._stop.set()
            with CancelScope(shield=True):
                await self._over.wait()
        self._raise_what_broke()

    async def _farewell(self, within: float) -> None:
        """Let every worker that holds nothing tear down; the others are killed by what follows."""
        seats = [seat for seat in self.crew.seats.values() if seat.serves and not self.books.held(seat)]
        self.crew.closing = True
        self.crew.say_goodbye(seats)
        with anyio.move_on_after(within):
            await self._until(lambda: all(seat.state != "leaving" for seat in seats))

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds() and not self._over.is_set():
            await self._changed.wait()

    def _settled(self) -> None:
        if self.closing:
            self._changed.ring()

    def _hopeless(self, fault: Fault) -> None:
        """No worker is left, and none will come: what waits fails with the reason."""
        self.startup_fault = fault
        self._halt_doors()
        self.books.fail_waiting(fault)
        self._ready.set()
        self._changed.ring()

    # What doors ask for.

    @property
    def draining(self) -> bool:
        """Whether no new shard starts any more."""
        return self.books.draining

    @property
    def ending(self) -> bool:
        """Whether doors must read no more shards."""
        return self.closing or self.draining or self.startup_fault is not None

    def _halt_doors(self) -> None:
        for door in self.books.doors.values():
            door.halt()

    def push(self, shards: list[Entry] | Batch, *, special: bool = False) -> None:
        """Take in new shards of one door and runner class. `special`: some travel with more than index and payload."""
        self.books.queue.push(shards, special=special)
        self.feed()

    def feed(self) -> None:
        """Give what is ready to the workers; settle it where no worker may have it any more."""
        if self.startup_fault is not None:  # read in the very turn in which the last worker was given up
            self.books.fail_waiting(self.startup_fault)
        elif self.draining:  # somebody drains from inside a source
            for key in list(self.books.doors):
                self.books.cancel_waiting(key)
        else:
            self.crew.feeder.feed()

    def withdraw(self, entry: Entry) -> None:
        """Stop one shard, wherever it is; it settles as Cancelled, or as Done if that came first."""
        found = self.books.withdraw(entry)
        if found is not None:
            self.crew.feeder.stop_attempts(found[0], [found[1]])

    def stop_door(self, key: int) -> None:
        """Stop all shards of a door; they settle as Cancelled."""
        door = self.books.doors.get(key)
        if door is not None:
            door.stopping = True
            self.books.cancel_waiting(key)
            for worker, seqs in self.books.ledger.holders(key).items():
                self.crew.feeder.stop_attempts(worker, seqs)

    def drain(self) -> None:
        """Start no new shard: what waits is Cancelled, what runs has `policy.grace` seconds."""
        if self.draining:
            return
        self.books.draining = True
        self._halt_doors()
        self.bus.say(event.Draining(at=time.time()))
        for key in list(self.books.doors):
            self.books.cancel_waiting(key)
        self.crew.feeder.take_back_unstarted()
        self._insist = asyncio.get_running_loop().call_later(self.policy.grace, self._stop_all)
        self._changed.ring()

    def _stop_all(self) -> None:
        for key in list(self.books.doors):
            self.stop_door(key)

    def snapshot(self) -> Snapshot:
        """Counts, rates, and what each worker does now."""
        self.crew.engine.look()
        now, books = monotonic(), self.books
        seconds = now - self._opened_at
        return Snapshot(
            counts=dict(books.counts),
            ready=books.queue.ready + len(books.queue.alone),
            delayed=books.queue.delayed,
            in_flight=books.ledger.in_flight,
            seconds=seconds,
            rate=sum(books.counts.values()) / seconds if seconds else 0.0,
            draining=books.draining,
            workers=tuple(seat.now(books.held(seat), now) for seat in self.crew.seats.values()),
        )


def _nothing() -> None:
    pass
