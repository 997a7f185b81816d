"""Receive shards, run N at a time on one event loop that lives as long as the worker, send their outcomes.

Each resumption of a shard's coroutine is written to the slot, so the nanny knows which task holds the loop. A
shard over its deadline is cancelled here; if that does not end it within `cancel_grace`, the slot's deadline
passes and the nanny ends the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from heapq import heappop, heappush
from time import monotonic
from types import FrameType
from typing import Any

from msgspec import Raw, Struct

from dispatch.terms.outcome import Fault
from dispatch.terms.shard import Shard
from dispatch.wire import frames
from dispatch.wire.calls import Calls
from dispatch.wire.channel import Channel, adopt
from dispatch.wire.codec import NotDeliverable, undeliverable
from dispatch.wire.line import FROM_CENTER
from dispatch.worker.duty import Duty
from dispatch.worker.evidence import clip, fault_of
from dispatch.worker.link import Link, answer_value
from dispatch.worker.output import HEAD, TAIL
from dispatch.worker.parcel import Parcel, unpack
from dispatch.worker.runner import report_to
from dispatch.worker.slot import Slot
from dispatch.worker.tidy import FORKED, changed, end_fork

__all__ = ("AsyncLane", "run_async")

FLUSH_BYTES = 256 * 1024
PROGRESS_EVERY = 0.05  # seconds


class _Running(Struct, eq=False):
    """One attempt that runs here."""

    seq: int
    shard: Shard[Any]
    timeout: float | None
    started: float = 0.0
    task: asyncio.Task[None] | None = None
    begun: bool = False  # a task that is cancelled before its first step never runs, and could not tell
    late: bool = False
    withdrawn: bool = False
    stack: str = ""
    printed: str = ""
    tail: str = ""
    cut: int = 0
    progressed: float = 0.0


_current: ContextVar[_Running | None] = ContextVar("dispatch_running", default=None)


def run_async(main: Callable[[], Any]) -> None:
    """Run a coroutine function on a new event loop, uvloop's when it is installed."""
    factory: Any = None
    try:
        import uvloop  # an optional accelerator (absent on Windows)

        factory = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


class AsyncLane:
    """One runner, `concurrency` shards at once."""

    def __init__(self, duty: Duty) -> None:
        self._runner, self._described, self._codec = duty.runner, duty.described, duty.codec
        self._line, self._slot, self._capture, self._seed = (
            duty.line,
            duty.slot,
            duty.capture,
            duty.lease.seed,
        )
        self._cancel_grace, self._stack_fd = duty.lease.cancel_grace, duty.stack_fd
        self._concurrency = duty.lease.concurrency or duty.described.concurrency
        self._waiting: deque[tuple[int, float | None, Shard[Any]]] = deque()
        self._running: dict[int, _Running] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._seqs: list[int] = []  # outcomes that wait for company: their attempts, times, and values
        self._started: list[float] = []
        self._ended: list[float] = []
        self._values: list[bytes] = []
        self._size = 0
        self._flushing = False
        self._calls = Calls(duty.codec.limit)
        self._asked: dict[int, asyncio.Future[frames.Answer]] = {}
        self._leaving = asyncio.Event()
        self._bye = False
        duty.runner.center = Link(self.ask)
        report_to(duty.runner, self._progress)

    async def run(self) -> None:
        """Set up, serve until the centre says goodbye or is gone, tear down. Raises what `setup` raises."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        sock, early = self._line.hand_over()
        self._channel = Channel(limit=FROM_CENTER)
        self._channel.on_frame, self._channel.on_lost = self._arrived, self._lost
        await adopt(sock, self._channel)
        if self._capture is not None:
            sys.stdout = _Tagged(sys.stdout)
            sys.stderr = _Tagged(sys.stderr)
        await _settled(self._runner.setup())
        self._context = copy_context()
        self._slot.serving = True
        self._slot.leave()
        self._channel.send(frames.Ready(os.getpid(), self._concurrency, several=True))
        for body in early:
            self._arrived(body)
        await self._leaving.wait()
        for running in list(self._running.values()):
            if running.task is not None:
                running.task.cancel()
        if self._bye:
            await _settled(self._runner.teardown())
            self._flush()
        self._channel.on_lost = self._line.close  # all is written: its own copy must not keep the stream open
        self._channel.close()
        await asyncio.sleep(0)

    def _arrived(self, body: bytes | bytearray) -> None:
        frame = self._codec.work(body)
        if isinstance(frame, frames.Work):
            self._waiting.extend(unpack(frame, Parcel(self._codec, body, self._seed)))
            self._start_waiting()
        elif isinstance(frame, frames.Answer):
            asked = self._asked.pop(frame.call, None)
            if asked is not None and not asked.done():
                asked.set_result(frame)
        elif isinstance(frame, frames.Withdraw):
            self._withdraw(set(frame.seqs), waiting_only=frame.waiting)
        elif isinstance(frame, frames.Bye):
            self._bye = True
            self._leave_when_idle()

    def _lost(self) -> None:
        self._leaving.set()

    def _leave_when_idle(self) -> None:
        if self._bye and not self._running and not self._waiting:
            self._leaving.set()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self._concurrency:
            seq, timeout, shard = self._waiting.popleft()
            running = _Running(seq, shard, timeout, monotonic())
            if not self._running:
                self._slot.show(seq, running.started)
            self._running[seq] = running
            if timeout is not None:
                heappush(self._deadlines, (running.started + timeout + self._cancel_grace, seq))
            # Not the context of this call: it may be that of a shard which has just ended.
            task = asyncio.get_running_loop().create_task(self._run(running), context=self._context.copy())
            running.task = task

    async def _run(self, running: _Running) -> None:
        _current.set(running)
        running.begun = True
        alarm = None
        if running.timeout is not None:
            alarm = asyncio.get_running_loop().call_later(running.timeout, self._too_late, running)
        shard = running.shard
        try:
            if running.withdrawn:
                raise asyncio.CancelledError
            if type(shard.payload) is Raw:
                shard.payload = self._codec.decode_payload(shard.payload)
            coroutine = self._runner.do_run(shard)
            value = await _Steps(coroutine, slot=self._slot, seq=running.seq, deadline=self._next_deadline)
            self._keep(running, value)
            self._flush_soon()
        except BaseException as error:  # noqa: BLE001  (a task's SystemExit must not end its neighbours' loop)
            self._failed(running, error)
        finally:
            if alarm is not None:
                alarm.cancel()
            self._settle(running)

    def _keep(self, running: _Running, value: Any) -> None:
        encoded = self._codec.encode(value, "value")
        self._seqs.append(running.seq)
        self._started.append(running.started)
        self._ended.append(monotonic())
        self._values.append(encoded)
        self._size += len(encoded)

    def _settle(self, running: _Running) -> None:
        self._tell_output(running)
        self._running.pop(running.seq, None)
        if running.late:
            self._blame()
        self._slot.leave(self._next_deadline())
        self._start_waiting()
        oldest = next(iter(self._running.values()), None)
        self._slot.show(*(oldest.seq, oldest.started) if oldest is not None else (0, 0.0))
        self._leave_when_idle()

    def _failed(self, running: _Running, error: BaseException) -> None:
        seconds = monotonic() - running.started
        if running.withdrawn:
            self._channel.send(frames.Back([running.seq]))
            return
        output = (running.printed + running.tail)[-TAIL:]
        if running.late:
            message = f"ran longer than {running.timeout:g} s"
            fault = Fault(cause="timed_out", message=message, stack=running.stack, output=output)
        elif type(error) is NotDeliverable:  # not isinstance: that asks the error itself
            fault = undeliverable(self._described.name, str(error))
        else:
            fault = fault_of(error, output=output)
        self._flush()
        self._tell_output(running)  # while the centre knows whose it is
        self._channel.send(frames.Fail(running.seq, running.started, seconds, fault))

    def _too_late(self, running: _Running) -> None:
        if running.task is not None and not running.task.done():
            running.late = True
            running.stack = await_chain(running.task)
            self._blame()
            running.task.cancel()

    def _blame(self) -> None:
        """Tell the nanny which late task is the first that may cost the worker, and where it waits.

        By itself the nanny would see only that the loop waits.
        """
        late = [running for running in self._running.values() if running.late]
        first = min(late, key=lambda running: running.started + (running.timeout or 0.0), default=None)
        self._slot.blame(*(first.seq, first.started) if first else (0, 0.0))
        if self._stack_fd >= 0:
            os.ftruncate(self._stack_fd, 0)
            if first is not None:
                os.write(self._stack_fd, first.stack.encode(errors="replace"))

    def _withdraw(self, seqs: set[int], *, waiting_only: bool) -> None:
        back = [item[0] for item in self._waiting if item[0] in seqs]
        self._waiting = deque(item for item in self._waiting if item[0] not in seqs)
        if back:
            self._channel.send(frames.Back(back))
        if waiting_only:
            return
        for seq in seqs & self._running.keys():
            running = self._running[seq]
            running.withdrawn = True
            if running.task is not None and running.begun:
                running.task.cancel()

    def _next_deadline(self) -> float:
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self._running:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else math.inf

    def _flush_soon(self) -> None:
        if self._size > FLUSH_BYTES:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._seqs:
            results: frames.Results[Any] = frames.Results(0, self._seqs, self._started, self._ended)
            self._channel.send_with(results, self._values, len(self._values))
            self._seqs, self._started, self._ended, self._values, self._size = [], [], [], [], 0

    async def ask(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask the centre. Raises what its method raises; cancelling forgets the answer."""
        call = self._calls.ask(method, args, kwargs)
        asked: asyncio.Future[frames.Answer] = asyncio.get_running_loop().create_future()
        self._asked[call.call] = asked
        self._channel.send(call)
        try:
            return answer_value(await asked, self._described.questions.get(method, Any))
        finally:
            self._asked.pop(call.call, None)

    def _progress(self, done: float, total: float | None) -> None:
        running, now = _current.get(), monotonic()
        if running is not None and (done == total or now - running.progressed > PROGRESS_EVERY):
            running.progressed = now
            told = frames.Progress(running.seq, done, total)
            if threading.get_ident() == self._thread:
                self._channel.send(told)
            else:  # `asyncio.to_thread` keeps a task's context
                with suppress(RuntimeError):  # the loop has closed meanwhile
                    self._loop.call_soon_threadsafe(self._channel.send, told)

    def _tell_output(self, running: _Running) -> None:
        if running.printed or running.cut:
            self._channel.send(frames.Output(running.seq, running.printed, running.cut))
            running.printed, running.cut = "", 0
        if self._capture is not None and self._capture.size():
            text, cut, _ = self._capture.take()
            self._channel.send(frames.Output(0, text, cut))


class _Steps:
    """Awaits a coroutine, and tells the slot each time it holds the loop."""

    __slots__ = ("_deadline", "_seq", "_slot", "awaited")

    def __init__(self, awaited: Any, *, slot: Slot, seq: int, deadline: Callable[[], float]) -> None:
        self.awaited, self._slot, self._seq, self._deadline = awaited, slot, seq, deadline

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.awaited.__await__()
        slot, resume, sent = self._slot, steps.send, None
        while True:
            deadline = self._deadline()
            slot.enter(self._seq, monotonic(), deadline)
            try:
                waited_for = resume(sent)
            except StopIteration as stop:
                return stop.value
            finally:
                if FORKED in changed:
                    end_fork(sys.exc_info()[1])
                slot.leave(deadline)
            try:
                sent = yield waited_for
                resume = steps.send
            except BaseException as error:  # noqa: BLE001  (thrown on into the coroutine, as `await` would)
                sent, resume = error, steps.throw


class _Tagged:
    """A text stream that keeps what a shard's task writes with that shard."""

    def __init__(self, rest: Any) -> None:
        self._rest = rest

    def write(self, text: str) -> int:
        running = _current.get()
        if running is None:
            return int(self._rest.write(text))
        shown = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
        room = max(0, HEAD - len(running.printed))
        running.printed += shown[:room]
        if len(shown) > room:
            running.cut += len(shown) - room
            running.tail = (running.tail + shown[room:])[-TAIL:]
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rest, name)


def await_chain(task: asyncio.Task[Any]) -> str:
    """Where a task waits: its coroutine, what that awaits, and so on inwards, as traceback text."""
    found: list[tuple[FrameType, int]] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = (
            getattr(waiting, "cr_frame", None)
            or getattr(waiting, "gi_frame", None)
            or getattr(waiting, "ag_frame", None)
        )
        if frame is not None:
            found.append((frame, frame.f_lineno))
            if isinstance(frame.f_locals.get("self"), _Steps):
                waiting = frame.f_locals["self"].awaited
                continue
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    own = [item for item in found if "/dispatch/worker/" not in item[0].f_code.co_filename]
    summary = traceback.StackSummary.extract(iter(own))
    return clip("Await chain (outermost first):\n" + "".join(summary.format()))


async def _settled(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
