"""The workers of one opening: hears them, replaces them, lets them be fed.

The engine tells what happened from the event loop; it is settled and the next frame sent in the same turn of the
loop, before anybody is woken. Who is to blame for a death is decided by `scheduling`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from time import monotonic

import msgspec
from anyio.abc import TaskGroup

from dispatch.center.books import Books
from dispatch.center.feeder import Feeder
from dispatch.center.seat import Seat
from dispatch.engines.base import Engine
from dispatch.engines.chores import Chores
from dispatch.scheduling.batching import should_replace
from dispatch.scheduling.ledger import blame
from dispatch.terms import event
from dispatch.terms.outcome import Fault
from dispatch.terms.shard import Entry
from dispatch.wire import frames
from dispatch.wire.calls import CallTable
from dispatch.wire.frames import FrameError
from dispatch.worker.evidence import end_fault, fault_of

__all__ = ("Crew",)

BARREN = 20  # lives in a row of a worker that settle no shard, before it is given up
STARTS = 3  # failed starts in a row of a worker, where nothing says why
RESTARTS = 10  # the same of a worker that was ready before
UNSEEN = 100  # the same where the process was not even there yet: a SIGINT to the group ends it, and may come again

_log = logging.getLogger("dispatch")
_output = logging.getLogger("dispatch.runner")


class Crew:
    """The engine's host, and the seats that it fills."""

    def __init__(self, engine: Engine, seats: list[Seat], *, books: Books, calls: CallTable) -> None:
        self.engine, self.books = engine, books
        self.seats = {seat.number: seat for seat in seats}
        self._number = max(self.seats)  # the newest worker's; numbers are not used again
        self.slots = {seat.slot: seat for seat in seats}
        self.on_ready: Callable[[], None] = _nothing  # a worker serves
        self.on_hopeless: Callable[[Fault], None] = _ignore  # no worker is left, and none will come
        self.on_change: Callable[[], None] = _nothing
        self.closing = False
        self.answers = Chores()
        self._calls = calls
        self._bus = books.bus
        self.feeder = Feeder(engine, self.seats, books=books)

    async def open(self, tasks: TaskGroup) -> None:
        """Start all workers. Raises OSError if the engine cannot open."""
        await self.engine.open(tasks, self)
        self._bus.say(event.Opened(at=time.time(), workers=len(self.seats)))
        for seat in list(self.seats.values()):
            self._launch(seat)

    def close(self) -> None:
        """Start nothing any more."""
        self.closing = True
        self.feeder.close()

    def say_goodbye(self, seats: list[Seat]) -> None:
        """Let workers that hold nothing tear down and leave."""
        for seat in seats:
            seat.state = "leaving"
            self.engine.send(seat.number, frames.Bye())

    # What the engine tells.

    def on_frame(self, worker: int, body: bytes | bytearray) -> None:
        """A runner sent a frame: settle what it says, and send what follows."""
        seat = self.seats.get(worker)
        if seat is None or seat.nonsense:
            return
        try:
            said = seat.codec.from_runner(body)
        except FrameError:
            seat.nonsense = True  # what it says from here on cannot be trusted
            self.engine.kill(worker)
            return
        for frame in said:
            if isinstance(frame, frames.Results):
                if self.books.done(seat, frame, len(body)):
                    seat.heard(monotonic())
            else:
                self._rarely(seat, frame)
        seat.landed(self.books.held(seat))
        if self.books.policy.recycle_after is not None:
            self._recycle(seat)
        self.feeder.feed()

    def _rarely(self, seat: Seat, frame: frames.FromRunner) -> None:
        match frame:
            case frames.Results():
                pass  # not rare
            case frames.Fail():
                seat.heard(monotonic())
                entry = self.books.ledger.take(seat.number, frame.seq)
                if entry is not None:
                    self.books.failed(seat, entry, frame.fault, started=frame.started, seconds=frame.seconds)
            case frames.Back():
                seat.heard_at = monotonic()
                taken = [self.books.ledger.take(seat.number, seq) for seq in frame.seqs]
                self.books.back(entry for entry in taken if entry is not None)
            case frames.Call():
                self.answers.start_soon(self._answer, seat, frame)
            case frames.Progress():
                self._progressed(seat, frame)
            case frames.Output():
                self._printed(seat, frame)
            case frames.Ready():
                self._ready(seat, frame)
            case frames.NotReady():
                seat.never_ready = frame.fault
                self._not_ready(seat, frame.fault)

    async def _answer(self, seat: Seat, call: frames.Call) -> None:
        life = seat.lives
        try:
            answer = await self._calls.answer(call, fault_of=fault_of)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            answer = frames.Answer(call.call, fault=fault_of(error))  # something that the method waited for
        if seat.lives == life:  # else the asker is dead, and its successor counts from 1 again
            self.engine.send(seat.number, answer)

    def _progressed(self, seat: Seat, said: frames.Progress) -> None:
        entry = self.books.held(seat).entries().get(said.seq)
        if entry is not None:
            told = event.Progressed(
                at=time.time(), shard_id=entry.shard_id, done=said.done, total=said.total, pid=seat.info.pid
            )
            self._bus.say(told)

    def _printed(self, seat: Seat, said: frames.Output) -> None:
        entry = self.books.held(seat).entries().get(said.seq)
        shard = entry.shard_id if entry is not None else None
        cut = f" [... {said.cut:,} bytes cut]" if said.cut else ""
        tags = {"dispatch_shard": shard, "dispatch_worker": seat.info.pid}
        _output.info("%s%s", said.text.rstrip("\n"), cut, extra=tags)
        told = event.Printed(at=time.time(), shard_id=shard, pid=seat.info.pid, text=said.text, cut=said.cut)
        self._bus.say(told)

    def on_fenced(self, worker: int, fenced: frames.Fenced) -> None:
        """A worker will not start what it had not started: that goes elsewhere."""
        self.books.back(self.books.ledger.take_unstarted(worker, fenced.last, fenced.upto))
        if worker in self.seats:
            self.seats[worker].landed(self.books.held(self.seats[worker]))
        self.feeder.feed()

    def on_pulse(self, worker: int, pulse: frames.Pulse) -> None:
        """What runs in a worker now."""
        seat = self.seats.get(worker)
        if seat is not None:
            seat.pulse = pulse

    def on_ended(self, worker: int, ended: frames.Ended, fault: Fault | None) -> None:
        """A life is over: charge who is to blame, run the others elsewhere, begin the next life."""
        seat = self.seats[worker]
        held = self.books.ledger.take_all(worker)
        self.books.on_sent(seat)
        evidence = fault or seat.never_ready or end_fault(ended, nonsense=seat.nonsense)
        state, nonsense = seat.state, seat.nonsense
        expected = state == "leaving" or self.closing
        seat.ended()
        told = None if expected else evidence
        at = time.time()
        self._bus.say(
            event.WorkerEnded(
                at=at, worker=worker, runner=seat.runner, pid=ended.pid, expected=expected, fault=told
            )
        )
        if expected or state == "lost":
            self.books.back(held.values())
            self._retire(seat)
        elif state == "starting":
            self._not_ready(seat, evidence)
        else:
            if ended.why == "killed" and not nonsense:  # we did it
                self.books.back(held.values())
                seat.barren = 0
            elif ended.why == "nanny" and not nonsense:
                self._charge_unseen(held, ended=ended, fault=evidence, seat=seat)
            else:
                # It left between shards, or its line was spoiled: by whom is not known, and anybody alone may show.
                left = ended.exit_code is not None and not ended.seq
                spoiled = nonsense or left or ended.why == "hung up"
                self._charge(held, ended=ended, fault=evidence, seat=seat, several=seat.several or spoiled)
            self._live_again(seat, evidence)
        self.on_change()
        self.feeder.feed()

    def _charge(
        self, held: dict[int, Entry], *, ended: frames.Ended, fault: Fault, seat: Seat, several: bool
    ) -> None:
        found = blame(held, running=ended.seq, several=several, exact=ended.why == "timed_out")
        for entry in found.suspects:
            entry.alone = True
        self.books.back([*found.suspects, *found.innocent])
        if found.charged is not None:
            seat.barren = 0
            started = ended.started or ended.at
            self.books.failed(seat, found.charged, fault, started=started, seconds=ended.at - started)

    def _charge_unseen(
        self, held: dict[int, Entry], *, ended: frames.Ended, fault: Fault, seat: Seat
    ) -> None:
        """Nobody saw what ran. Once that is nobody's fault; who was there twice runs alone, and alone is charged."""
        seat.barren = 0
        by_itself = [entry for entry in held.values() if entry.alone]
        others = [entry for entry in held.values() if not entry.alone]
        for entry in others:
            entry.alone, entry.unseen = entry.unseen, True
        self.books.back(others)
        for entry in by_itself:
            self.books.failed(seat, entry, fault, started=ended.at, seconds=0.0)

    # Lives.

    def _launch(self, seat: Seat) -> None:
        if not self.closing:
            seat.asked_at = monotonic()
            seat.state = "starting"
            self.engine.launch(seat.start)

    def _live_again(self, seat: Seat, evidence: Fault) -> None:
        seat.barren += 1
        if seat.barren > BARREN:
            self._not_ready(seat, evidence)
        elif seat.successor is not None and seat.successor.state != "lost":
            self._retire(seat)
        else:
            self._launch(seat)

    def _ready(self, seat: Seat, frame: frames.Ready) -> None:
        seat.ready(frame, monotonic())
        told = event.WorkerReady(
            at=time.time(), worker=seat.number, runner=seat.runner, pid=frame.pid, seconds=seat.start_seconds
        )
        self._bus.say(told)
        self.slots[seat.slot] = seat
        self.on_ready()

    def _not_ready(self, seat: Seat, fault: Fault) -> None:
        """A worker could not be made ready: try again only if it could before, or nothing says that it never will."""
        seat.failed_starts += 1
        hopeless = fault.final or fault.traceback or (fault.cause == "startup" and not seat.was_ready)
        unseen = fault.signal is None and fault.exit_code is None
        patience = UNSEEN if unseen else RESTARTS if seat.was_ready else STARTS
        if seat.failed_starts < patience and not hopeless and seat.barren <= BARREN:
            self._launch(seat)
            return
        seat.state = "lost"
        if self.closing:
            return
        never = seat.barren <= BARREN
        told = msgspec.structs.replace(fault, cause="startup") if never else fault
        left = {other.runner for other in self.seats.values() if other.state not in ("lost", "leaving")}
        if not left:
            self.on_hopeless(told)
            return
        _log.error("a worker for %s is given up, others go on: %s\n%s", seat.runner, told, told.traceback)
        if seat.runner not in left:
            self.books.hopeless[seat.runner] = told

    def _recycle(self, seat: Seat) -> None:
        """Start a successor in time, and let the predecessor go when it serves."""
        limit = self.books.policy.recycle_after
        if limit is None or seat.state not in ("ready", "retiring"):
            return
        mean = seat.life_seconds / max(1, seat.life_shards)
        if seat.successor is None:
            if seat.life_shards and should_replace(
                seat.life_shards, limit, mean=mean, startup=seat.start_seconds
            ):
                self._number += 1
                seat.successor = self.seats[self._number] = seat.heir(self._number)
                self._launch(seat.successor)
        elif seat.successor.was_ready and seat.life_shards >= limit:
            seat.state = "retiring"
        if seat.state == "retiring" and not self.books.held(seat):
            self.say_goodbye([seat])
            asyncio.get_running_loop().call_later(self.books.policy.grace, self._hurry, seat)

    def _hurry(self, seat: Seat) -> None:
        """Its teardown had its time."""
        if seat.state == "leaving":
            self.engine.kill(seat.number)

    def _retire(self, seat: Seat) -> None:
        seat.state = "lost"
        if seat.successor is not None:
            del self.seats[seat.number]
            self.engine.release(seat.number)


def _nothing() -> None:
    pass


def _ignore(fault: Fault) -> None:
    pass
