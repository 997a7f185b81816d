"""One opening of a centre: joins engine, ledger, queue and doors, in one task of its own.

What happens is told by the engine from the event loop, decided by `scheduling`, and performed here, all in the
same loop iteration: a frame that arrives is settled, and the next one sent, before anybody is woken. This is the
only room of the house that reads the clock for scheduling.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Protocol

import anyio
import msgspec
from anyio import CancelScope
from anyio.abc import TaskGroup

from dispatch.center.seat import Seat
from dispatch.engines.base import Engine
from dispatch.record.bus import Bus
from dispatch.scheduling.ledger import Again, Ledger, Settle, blame, judge
from dispatch.scheduling.queue import ReadyQueue
from dispatch.terms import event
from dispatch.terms.config import Policy
from dispatch.terms.outcome import Cancelled, Cause, Done, Failed, Fault
from dispatch.terms.shard import Entry
from dispatch.wire import frames
from dispatch.wire.calls import CallTable
from dispatch.wire.frames import FrameError
from dispatch.worker.evidence import fault_of, own_stack

__all__ = ("DoorLike", "Session")

STALL = 0.05  # seconds without an outcome after which an idle worker may take over what a busy one has not started
LOOK = 0.05  # seconds between looks for such workers, and for workers that do not let go
BARREN = 20  # lives in a row of a worker that settle no shard, before it is given up
STARTS = 3  # failed starts in a row of a worker that was ready before
CAUSES: dict[str, Cause] = {"timed_out": "timed_out", "memory": "out_of_memory", "startup": "startup"}

_output = logging.getLogger("dispatch.runner")


class DoorLike(Protocol):
    """What a session must know of a door."""

    stopping: bool

    def take(self, outcomes: list[Any], *, size: int, worker: int, seconds: float) -> None:
        """Shards of this door have their outcomes; `size` bytes came with them."""


class Session:
    """One opening. `open` it and `close` it from any task."""

    def __init__(
        self, engine: Engine, seats: list[Seat], *, policy: Policy, calls: CallTable, bus: Bus
    ) -> None:
        self.engine, self.policy, self.bus = engine, policy, bus
        self.seats = {seat.number: seat for seat in seats}
        self.queue = ReadyQueue()
        self.ledger = Ledger()
        self.doors: dict[int, DoorLike] = {}
        self.draining = False
        self.closing = False
        self.counts = {"done": 0, "failed": 0, "cancelled": 0}
        self.opened_at = monotonic()
        self.startup_fault: Fault | None = None
        self._calls = calls
        self._random = random.Random()  # noqa: S311  (jitter of retries)
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._ready = anyio.Event()
        self._stop = anyio.Event()
        self._over = anyio.Event()
        self._changed = anyio.Event()
        self._task: asyncio.Task[None] | None = None
        self._feeding = False

    # Opening and closing.

    async def open(self) -> None:
        """Start the workers; return when the first is ready.

        Raises StartupFailed if none can be. Cancelling closes again.
        """
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="dispatch-session")
        try:
            await self._ready.wait()
        except BaseException:
            await self.close(now=True)
            raise
        if self.startup_fault is not None and not any(seat.was_ready for seat in self.seats.values()):
            await self.close(now=True)
            Failed(fault=self.startup_fault).unwrap()

    async def _run(self) -> None:
        try:
            async with anyio.create_task_group() as self.tasks:
                try:
                    await self.engine.open(self.tasks, self)
                    self.bus.say(event.Opened(at=time.time(), workers=len(self.seats)))
                    for seat in self.seats.values():
                        self._launch(seat)
                    await self._stop.wait()
                finally:
                    self.closing = True
                    with CancelScope(shield=True):
                        await self.engine.aclose()
                    self._cancel_all()
                    self.tasks.cancel_scope.cancel()
        except OSError as error:
            self._no_worker(Fault(cause="startup", type=type(error).__name__, message=str(error), final=True))
        finally:
            for timer in (self._timer, self._looking):
                if timer is not None:
                    timer.cancel()
            self._ready.set()
            self._over.set()
            self.bus.say(event.Closed(at=time.time()))

    async def close(self, *, now: bool = False, grace: float | None = None) -> None:
        """Finish what was accepted, let the workers go in peace, leave nothing behind.

        `now`: kill at once. `grace`: kill what remains after so many seconds. Cancelling kills at once.
        """
        self.closing = True
        try:
            if not now and not self._over.is_set():
                with anyio.move_on_after(grace):
                    await self.until(self._idle)
                await self._farewell()
        finally:
            self._stop.set()
            with CancelScope(shield=True):
                await self._over.wait()

    def _idle(self) -> bool:
        return not (
            self.queue.ready or self.queue.alone or self.queue.delayed or any(self.ledger.in_flight.values())
        )

    async def _farewell(self) -> None:
        """Let every worker that holds nothing tear down; the others are killed by what follows."""
        leaving = [seat for seat in self.seats.values() if seat.state == "ready" and not self.held(seat)]
        for seat in leaving:
            seat.state = "leaving"
            self.engine.send(seat.number, frames.Bye())
        with anyio.move_on_after(self.policy.grace):
            await self.until(lambda: all(seat.state != "leaving" for seat in leaving))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds; asked anew after every settlement and every end of a worker."""
        while not holds() and not self._over.is_set():
            await self._changed.wait()

    def _change(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    # What doors ask for.

    def held(self, seat: Seat) -> dict[int, Entry]:
        """What a seat has in flight."""
        return self.ledger.in_flight.get(seat.number, {})

    def push(self, entries: list[Entry]) -> None:
        """Take in new shards of one door and runner class."""
        self.queue.push(entries)
        self.feed()

    def settle_here(self, key: int, outcomes: list[Any]) -> None:
        """Shards of a door that never left this process have their outcomes."""
        self._settle(key, outcomes)

    def feed(self) -> None:
        """Give ready shards to workers that have room: first those with nothing to do."""
        if not (self.queue.ready or self.queue.alone) or self._feeding:
            return
        self._feeding = True
        try:
            seats = [seat for seat in self.seats.values() if seat.state == "ready"]
            if self.queue.alone:
                seats = self._feed_alone(seats)
            for seat in sorted(seats, key=lambda seat: len(self.held(seat))):
                while self.queue.ready and self._feed_seat(seat):
                    pass
        finally:
            self._feeding = False

    def _feed_seat(self, seat: Seat) -> bool:
        lane = self.queue.next_lane(seat.runner)
        if lane is None:
            return False
        number = seat.room(lane.pace, self.held(seat), ready=len(lane.entries), workers=len(self.seats))
        if number <= 0:
            return False
        self._send(seat, self.queue.take(lane, number))
        return True

    def _feed_alone(self, seats: list[Seat]) -> list[Seat]:
        """Shards that must run alone get an empty worker; while none is empty, one worker gets nothing new."""
        rest: list[Seat] = []
        for seat in seats:
            entry = self.queue.take_alone(seat.runner) if not self.held(seat) else None
            if entry is None:
                rest.append(seat)
            else:
                seat.alone = True
                self._send(seat, [entry])
        return rest[1:] if self.queue.alone and not any(seat.alone for seat in seats) else rest

    def _send(self, seat: Seat, entries: list[Entry]) -> None:
        first = self.ledger.assign(seat.number, entries, seat.info)
        seat.frames.append(first + len(entries) - 1)
        work = frames.Work(
            first,
            self.policy.timeout,
            [entry.index for entry in entries],
            [entry.payload for entry in entries],
        )
        for offset, entry in enumerate(entries):
            if entry.special:
                if entry.id:
                    work.ids[offset] = entry.id
                if entry.history:
                    work.attempts[offset] = len(entry.history) + 1
                if entry.timeout is not None:
                    work.timeouts[offset] = entry.timeout
        if len(seat.frames) == 1:
            seat.heard_at = monotonic()
        self.engine.send(seat.number, work)
        self._look_later()

    def withdraw(self, entry: Entry) -> None:
        """Stop one shard, wherever it is; it settles as Cancelled, or as Done if that came first."""
        entry.withdrawn = True
        if self.queue.withdraw(entry):
            self._settle(entry.origin.door, [Cancelled(entry=entry)])
            return
        found = self.ledger.find(entry)
        if found is not None:
            self._stop_attempts(self.seats[found[0]], [found[1]])

    def stop_door(self, key: int) -> None:
        """Stop all shards of a door; they settle as Cancelled."""
        door = self.doors.get(key)
        if door is None:
            return
        door.stopping = True
        self._settle(key, [Cancelled(entry=entry) for entry in self.queue.drop_door(key)])
        for worker, seqs in self.ledger.holders(key).items():
            self._stop_attempts(self.seats[worker], seqs)

    def _stop_attempts(self, seat: Seat, seqs: list[int]) -> None:
        """End these attempts: those not started are taken back, one that runs is cancelled or killed."""
        if seat.several:
            self.engine.send(seat.number, frames.Withdraw(seqs))
            self._loop.call_later(self.policy.cancel_grace, self._kill_if_held, seat, seqs)
        else:
            self.engine.fence(seat.number, self.ledger.next_seq, kill=seqs)

    def _kill_if_held(self, seat: Seat, seqs: list[int]) -> None:
        if not self.held(seat).keys().isdisjoint(seqs):
            self.engine.kill(seat.number)

    def drain(self) -> None:
        """Start no new shard: what waits is Cancelled, what runs goes on."""
        if self.draining:
            return
        self.draining = True
        self.bus.say(event.Draining(at=time.time()))
        for key in list(self.doors):
            self._settle(key, [Cancelled(entry=entry) for entry in self.queue.drop_door(key)])
        for seat in self.seats.values():
            if seat.several:
                self.engine.send(seat.number, frames.Withdraw(list(self.held(seat)), waiting=True))
            elif self.held(seat):
                self.engine.fence(seat.number, self.ledger.next_seq)
        self._change()

    # What the engine tells.

    def on_frame(self, worker: int, body: bytes | bytearray) -> None:
        """A runner sent a frame: settle what it says, and send what follows."""
        seat = self.seats[worker]
        try:
            said = seat.codec.from_runner(body)
        except FrameError:
            seat.nonsense = (
                True  # what it says cannot be trusted any more: it dies, and what it runs is charged
            )
            self.engine.kill(worker)
            return
        for frame in said:
            if isinstance(frame, frames.Results):
                self._done(seat, frame.items, len(body))
            else:
                self._rarely(seat, frame)
        self.feed()

    def _done(self, seat: Seat, items: list[Done[Any]], size: int) -> None:
        outcomes: list[Any] = self.ledger.done(seat.number, items)
        if not outcomes:
            return
        seat.heard_at = monotonic()
        seat.barren = 0
        seconds = sum([outcome.seconds for outcome in outcomes])
        seat.shards += len(outcomes)
        seat.busy += seconds
        if self.queue.ready < len(self.seats) or seat.alone:
            seat.alone = False
        if not seat.several:  # a frame is of one door, and so are its outcomes
            self._settle(outcomes[0].entry.origin.door, outcomes, size=size, seat=seat, seconds=seconds)
            return
        by_door: dict[int, list[Any]] = {}
        for outcome in outcomes:
            by_door.setdefault(outcome.entry.origin.door, []).append(outcome)
        for key, own in by_door.items():
            self._settle(key, own, size=size, seat=seat, seconds=sum([outcome.seconds for outcome in own]))

    def _rarely(self, seat: Seat, frame: Any) -> None:
        match frame:
            case frames.Fail():
                seat.heard_at = monotonic()
                seat.alone = False
                entry = self.ledger.take(seat.number, frame.seq)
                if entry is not None:
                    seat.barren = 0
                    seat.shards += 1
                    seat.busy += frame.seconds
                    self._judge(entry, frame.fault, started=frame.started, seconds=frame.seconds)
            case frames.Back():
                seat.heard_at = monotonic()
                self._back(
                    entry for seq in frame.seqs if (entry := self.ledger.take(seat.number, seq)) is not None
                )
            case frames.Call():
                self.tasks.start_soon(self._answer, seat, frame)
            case frames.Progress():
                entry = self.held(seat).get(frame.seq)
                if entry is not None:
                    self.bus.say(
                        event.Progressed(
                            at=time.time(),
                            shard_id=entry.shard_id,
                            done=frame.done,
                            total=frame.total,
                            pid=seat.info.pid,
                        )
                    )
            case frames.Output():
                self._printed(seat, frame)
            case frames.Ready():
                seat.ready(frame)
                self._ready.set()
                seconds = monotonic() - seat.asked_at
                self.bus.say(
                    event.WorkerReady(
                        at=time.time(), worker=seat.number, runner=seat.runner, pid=frame.pid, seconds=seconds
                    )
                )
            case frames.NotReady():
                seat.state = "lost"
                self._not_ready(seat, frame.fault)

    async def _answer(self, seat: Seat, call: frames.Call) -> None:
        life = seat.info
        answer = await self._calls.answer(call, fault_of=fault_of)
        if seat.info is life or seat.state == "starting":
            self.engine.send(seat.number, answer)

    def _printed(self, seat: Seat, said: frames.Output) -> None:
        entry = self.held(seat).get(said.seq)
        shard = entry.shard_id if entry is not None else None
        cut = f" [... {said.cut:,} bytes cut]" if said.cut else ""
        tags = {"dispatch_shard": shard, "dispatch_worker": seat.info.pid}
        _output.info("%s%s", said.text.rstrip("\n"), cut, extra=tags)
        if self.bus.heard:
            self.bus.say(
                event.Printed(at=time.time(), shard_id=shard, pid=seat.info.pid, text=said.text, cut=said.cut)
            )

    def on_fenced(self, worker: int, fenced: frames.Fenced) -> None:
        """A worker will not start what it had not started: that goes elsewhere."""
        self._back(self.ledger.take_unstarted(worker, fenced.last, fenced.upto))
        self.feed()

    def on_pulse(self, worker: int, pulse: frames.Pulse) -> None:
        """What runs in a worker now."""
        self.seats[worker].pulse = pulse

    def on_ended(self, worker: int, ended: frames.Ended, fault: Fault | None) -> None:
        """A life is over: charge who is to blame, run the others elsewhere, begin the next life."""
        seat = self.seats[worker]
        held = self.ledger.take_all(worker)
        expected = seat.state == "leaving" or self.closing
        starting, lost = seat.state == "starting", seat.state == "lost"
        evidence = fault or _evidence(ended)
        if seat.nonsense:
            evidence = msgspec.structs.replace(
                evidence, message="the worker sent bytes that are no frame of ours, and was killed"
            )
            ended = msgspec.structs.replace(ended, why="")
        alone = seat.alone
        seat.ended()
        self.bus.say(
            event.WorkerEnded(
                at=time.time(),
                worker=worker,
                runner=seat.runner,
                pid=ended.pid,
                expected=expected,
                fault=None if expected else evidence,
            )
        )
        if expected or lost:
            seat.state = "lost"
            self._back(held.values())
        elif starting:
            self._not_ready(seat, evidence)
        else:
            self._death(seat, held, ended, evidence, alone=alone)
            seat.barren += 1
            if seat.barren > BARREN:
                self._not_ready(seat, evidence)
            else:
                self._launch(seat)
        self._change()
        self.feed()

    def _death(
        self, seat: Seat, held: dict[int, Entry], ended: frames.Ended, fault: Fault, *, alone: bool
    ) -> None:
        if ended.why in ("killed", "nanny"):  # we did it, or nobody saw what ran: nobody is charged
            self._back(held.values())
            return
        found = blame(
            held, running=ended.seq, several=seat.several and not alone, exact=ended.why == "timed_out"
        )
        for entry in found.suspects:
            entry.alone = True
        self._back([*found.suspects, *found.innocent])
        if found.charged is not None:
            started = ended.started or ended.at
            seat.barren = 0
            seat.shards += 1
            seat.busy += ended.at - started
            self._judge(found.charged, fault, started=started, seconds=ended.at - started)

    # What is decided is done.

    def _judge(self, entry: Entry, fault: Fault, *, started: float, seconds: float) -> None:
        decision = judge(
            entry, fault, self.policy, started=started, seconds=seconds, roll=self._random.random()
        )
        match decision:
            case Settle():
                self._settle(entry.origin.door, [Failed(fault=fault, entry=entry)])
            case Again() if self._is_unwanted(entry):
                self._settle(entry.origin.door, [Cancelled(entry=entry)])
            case Again(wait=wait):
                attempt = len(entry.history)
                self.bus.say(
                    event.Retrying(
                        at=time.time(), shard_id=entry.shard_id, attempt=attempt, fault=fault, wait=wait
                    )
                )
                self.queue.delay(entry, monotonic() + wait)
                self._wake_when_due()

    def _back(self, entries: Iterable[Entry]) -> None:
        """Shards that were assigned and did not run: ready again, unless nobody wants them any more."""
        again: list[Entry] = []
        for entry in entries:
            if self._is_unwanted(entry):
                self._settle(entry.origin.door, [Cancelled(entry=entry)])
            else:
                again.append(entry)
        self.queue.put_back(again)

    def _is_unwanted(self, entry: Entry) -> bool:
        """Whether a shard must not run again: its submitter or its door has gone, or no new shard may start."""
        door = self.doors.get(entry.origin.door)
        return entry.withdrawn or door is None or door.stopping or self.draining

    def _settle(
        self, key: int, outcomes: list[Any], *, size: int = 0, seat: Seat | None = None, seconds: float = 0.0
    ) -> None:
        if not outcomes:
            return
        self.counts[_KINDS[type(outcomes[0])]] += len(outcomes)
        if seat is not None:
            self.queue.pace(key).ran(len(outcomes), seconds)
        if self.bus.heard:
            self.bus.say(event.Settled(at=time.time(), outcomes=list(outcomes)))
        door = self.doors.get(key)
        if door is not None:
            door.take(outcomes, size=size, worker=seat.number if seat else -1, seconds=seconds)
        if self.closing or self.draining:
            self._change()

    def _cancel_all(self) -> None:
        """Whatever has no outcome gets one."""
        for key in list(self.doors):
            self._settle(key, [Cancelled(entry=entry) for entry in self.queue.drop_door(key)])
        for worker in list(self.ledger.in_flight):
            for entry in self.ledger.take_all(worker).values():
                self._settle(entry.origin.door, [Cancelled(entry=entry)])

    # Workers that start, fail to start, or hold too much.

    def _launch(self, seat: Seat) -> None:
        if not self.closing:
            seat.asked_at = monotonic()
            seat.state = "starting"
            self.engine.launch(seat.start)

    def _not_ready(self, seat: Seat, fault: Fault) -> None:
        """A worker could not be made ready: try again only if it could before, or nothing says that it never will."""
        seat.failed_starts += 1
        unexplained = not fault.traceback and not fault.final
        if seat.failed_starts < STARTS and (seat.was_ready or unexplained) and fault.cause != "startup":
            self._launch(seat)
            return
        seat.state = "lost"
        if all(other.state == "lost" for other in self.seats.values()):
            self._no_worker(fault)

    def _no_worker(self, fault: Fault) -> None:
        """No worker is left, and none will come: what waits fails with the reason."""
        self.startup_fault = fault
        for key in list(self.doors):
            self._settle(key, [Failed(fault=fault, entry=entry) for entry in self.queue.drop_door(key)])
        self._ready.set()
        self._change()

    def _wake_when_due(self) -> None:
        now = monotonic()
        due = self.queue.due(now)
        self.feed()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - now), self._wake_when_due)

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        """Take back what a busy worker has not started, for one that idles; outcomes do that by themselves."""
        self._looking = None
        now = monotonic()
        holding = [seat for seat in self.seats.values() if self.held(seat)]
        idle = len(holding) < sum(seat.state == "ready" for seat in self.seats.values())
        for seat in holding if idle and not self.queue.ready else ():
            if not seat.several and len(self.held(seat)) > 1 and now - seat.heard_at > STALL:
                self.engine.fence(seat.number, self.ledger.next_seq)
        if holding:
            self._look_later()


_KINDS: dict[type, str] = {Done: "done", Failed: "failed", Cancelled: "cancelled"}


def _evidence(ended: frames.Ended) -> Fault:
    """How a life ended, as a fault."""
    cause = CAUSES.get(ended.why, "crashed")
    if cause == "timed_out":
        message = f"ran longer than its timeout and was killed after {ended.at - ended.started:.2f} s"
    elif cause == "startup":
        message = "the runner was not ready within startup_timeout and was killed"
    elif cause == "out_of_memory":
        message = "the worker's private memory passed memory_limit and it was killed"
    elif ended.signal is not None:
        message = f"worker {ended.pid} died of {_signal_name(ended.signal)}"
    else:
        message = f"worker {ended.pid} exited with code {ended.exit_code}"
    return Fault(
        cause=cause,
        message=message,
        stack=own_stack(ended.stack),
        output=ended.output,
        signal=ended.signal,
        exit_code=ended.exit_code,
    )


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
