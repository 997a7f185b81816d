"""Receive shards, run them one at a time, send their outcomes, until told to stop.

Fast path: one clock reading, one write to the slot, one encode for each shard; outcomes leave together when
FLUSH_AFTER has passed or the frame is done. A value is encoded at once, because the runner may change it later.
Everything that goes wrong takes the slow path, a frame of its own for one shard.
"""

from __future__ import annotations

import inspect
import math
import os
import signal
import threading
from collections.abc import Callable
from itertools import pairwise
from time import monotonic
from types import FrameType
from typing import Any, TypeVar

from msgspec import Raw

from dispatch.terms.shard import Shard
from dispatch.wire import frames
from dispatch.wire.calls import Calls
from dispatch.wire.codec import NotDeliverable, encode_into, undeliverable
from dispatch.worker import tidy
from dispatch.worker.duty import Duty
from dispatch.worker.evidence import fault_of
from dispatch.worker.link import Link, answer_value
from dispatch.worker.parcel import Parcel
from dispatch.worker.runner import direct_call, report_to
from dispatch.worker.slot import FENCE, RUN

__all__ = ("FLUSH_AFTER", "NO_QUESTION", "PATIENCE", "SyncLane")

FLUSH_AFTER = 0.0015  # seconds that an outcome may wait for company
FLUSH_BYTES = 256 * 1024
PATIENCE = 0.025  # seconds after which the unstarted rest of a frame goes back: it was sized for much less
PROGRESS_EVERY = 0.05  # seconds

# What the handler read, the wait that it interrupted could not see.
NO_QUESTION = "a signal handler may not ask the centre while its thread waits: set a flag, and ask in do_run"

T = TypeVar("T")


class SyncLane:
    """One runner, one shard at a time, on the calling thread."""

    def __init__(self, duty: Duty) -> None:
        self._runner, self._described, self._codec = duty.runner, duty.described, duty.codec
        self._line, self._slot, self._capture, self._seed = (
            duty.line,
            duty.slot,
            duty.capture,
            duty.lease.seed,
        )
        self._call = direct_call(duty.runner)
        self._buffer = bytearray()  # values that wait for company, and when each of their shards ended
        self._ends: list[float] = []
        self._unsent, self._start = 0, 0.0  # the first of them, and when it started
        self._backlog: list[tuple[frames.ToRunner, bytes | bytearray]] = []
        self._calls = Calls(duty.codec.limit)
        self._questions: dict[int, frames.Answer | None] = {}  # that were asked, and their answers
        self._arrival = threading.Condition()
        self._reader: int | None = None  # the thread that waits for the next frame, for all
        self._gone = False
        self._seq = 0
        self._progressed = 0.0
        duty.runner.center = Link(self.ask)
        report_to(duty.runner, self._progress)

    def run(self) -> None:
        """Set up, serve until the centre says goodbye or is gone, tear down. Raises what `setup` raises."""
        _finish(self._runner.setup())
        self._prepare()
        tidy.remember()
        if self._capture is not None and self._capture.size():
            self._printed(0)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR2, self._poked)
            signal.siginterrupt(signal.SIGUSR2, False)
        self._slot.serving = True
        self._slot.leave()
        self._line.send(frames.Ready(os.getpid(), 1, several=False))
        while True:
            received = self._next()
            if received is None:
                return
            frame, body = received
            if isinstance(frame, frames.Work):
                self._work(frame, Parcel(self._codec, body, self._seed))
            elif isinstance(frame, frames.Bye):
                _finish(self._runner.teardown())
                return

    def _prepare(self) -> None:
        """What a lane does between `setup` and its first shard."""

    def _next(self) -> tuple[frames.ToRunner, bytes | bytearray] | None:
        return self._await(lambda: self._backlog.pop(0) if self._backlog else None)

    def _work(self, work: frames.Work[Any], parcel: Parcel) -> None:  # noqa: PLR0912, PLR0915  (the docstring says)
        """Run a frame's shards. One function because it is the fast path: a call per shard costs as much as a shard."""
        do_run, call, slot, capture = self._runner.do_run, self._call, self._slot, self._capture
        fence, memory, buffer, ends, changed = slot.words, slot.memory, self._buffer, self._ends, tidy.changed
        first, indexes, flush_bytes = work.first, work.indexes, min(FLUSH_BYTES, self._codec.limit)
        start, end = work.start, first + len(work.payloads)
        plain = not (work.ids or work.attempts or work.timeouts)
        limit, attempt, after = work.timeout, 1, work.timeout or math.inf
        began = flushed = now = monotonic()
        for offset, payload in enumerate(work.payloads):
            seq = first + offset
            if not plain:
                attempt = work.attempts.get(offset, 1)
                limit = work.timeouts.get(offset, work.timeout)
                after = limit or math.inf
            if not ends:
                self._unsent, self._start = seq, now
            self._seq = seq
            RUN.pack_into(memory, 0, seq, now, now + after, len(ends))
            # The fence is read after the slot says that we start: the nanny looks in the other order.
            if seq < fence[FENCE] or (now - began > PATIENCE and offset):
                self._give_back(range(seq, end))
                break
            try:
                if type(payload) is Raw:  # the frame did not fit its annotation: find the culprit
                    payload = self._codec.decode_payload(payload)  # noqa: PLW2901  (typed)
                if call is not None:
                    value = call(payload)
                else:
                    index = indexes[offset] if indexes else start + offset
                    name = work.ids.get(offset) or str(index)
                    value = do_run(Shard(payload, name, limit, None, index, attempt, parcel, offset))
            except BaseException as error:  # noqa: BLE001  (a shard's error is its own; the lane goes on)
                now = self._failed(seq, error)
            else:
                now = monotonic()
                before = len(buffer)
                try:
                    encode_into(value, buffer, -1)
                except Exception as error:  # noqa: BLE001  (whatever a hook or a property of the value raises)
                    del buffer[before:]
                    now = self._failed(seq, self._codec.why_not(value, error))
                else:
                    ends.append(now)
                    if len(buffer) > flush_bytes:
                        now = self._heavy(seq, before)
            if changed:
                tidy.put_back()
            if capture is not None and capture.touched and capture.size():
                slot.leave()  # the shard is over; a stalled host may let us wait here
                self._printed(seq)
            if now - flushed > FLUSH_AFTER:
                slot.leave()
                self._flush_frame()
                flushed = now = monotonic()
        slot.leave()
        self._flush_frame()

    def _flush_frame(self) -> None:
        """Between shards: what was printed past Python, then what waits for company."""
        capture, ends = self._capture, self._ends
        if capture is not None and not capture.watchful and capture.size():
            capture.watchful = True  # from now on it is known whose it is
            self._printed(self._unsent + _longest(self._start, ends) if ends else self._seq)
        self.flush()

    def _heavy(self, seq: int, before: int) -> float:
        """The buffer is full: send it; the last value fails if it alone is too big. The time now."""
        if tidy.FORKED in tidy.changed:
            tidy.end_fork(None)
        size = len(self._buffer) - before
        if size > self._codec.limit:
            del self._buffer[before:]
            self._ends.pop()
            return self._failed(seq, self._codec.too_big(size))
        self._slot.leave()
        self.flush()
        return monotonic()

    def _give_back(self, seqs: range) -> None:
        self._slot.leave()
        self._line.send(frames.Back(list(seqs)))

    def flush(self) -> None:
        """Send the outcomes that wait for company."""
        ends, buffer = self._ends, self._buffer
        if ends:
            number = len(ends)
            results: frames.Results[Any] = frames.Results(self._unsent, [], [self._start], ends)
            self._unsent, self._start = self._unsent + number, ends[-1]
            head = frames.open_ended(results, number, len(buffer))
            ends.clear()
            self._line.write([head, buffer])
            buffer.clear()

    def _poked(self, _number: int, frame: FrameType | None) -> None:
        """The nanny saw that a shard runs long while finished ones wait here: send them.

        Only from inside do_run, and not from a question that it asks: elsewhere the buffer may be half written.
        """
        while frame is not None and (
            frame.f_back is None or frame.f_back.f_code is not SyncLane._work.__code__
        ):
            if frame.f_code is SyncLane.flush.__code__:
                return
            frame = frame.f_back
        runs = getattr(self._call or self._runner.do_run, "__code__", None)
        if frame is not None and frame.f_code is runs and not self._line.busy:
            self.flush()

    def _failed(self, seq: int, error: BaseException) -> float:
        """Tell of an attempt that raised, or whose payload or value cannot travel. The time when it ended."""
        if tidy.FORKED in tidy.changed:
            tidy.end_fork(error)
        ended, (_, started, _) = monotonic(), self._slot.read()
        self._slot.leave()
        self.flush()
        output = self._printed(seq) if self._capture is not None and self._capture.size() else ""
        if type(error) is NotDeliverable:  # not isinstance: that asks the error itself
            fault = undeliverable(self._described.name, str(error))
        else:
            fault = fault_of(error, output=output)
        self._line.send(frames.Fail(seq, started, ended - started, fault))
        return ended

    def _printed(self, seq: int) -> str:
        assert self._capture is not None
        text, cut, tail = self._capture.take()
        self._line.send(frames.Output(seq, text, cut))
        return tail

    def _progress(self, done: float, total: float | None) -> None:
        now = monotonic()
        if done == total or now - self._progressed > PROGRESS_EVERY:
            self._progressed = now
            self._line.send(frames.Progress(self._seq, done, total))

    def ask(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask the centre and wait. Raises what its method raises; SystemExit if the centre is gone."""
        if self._reader == threading.get_ident():
            raise RuntimeError(NO_QUESTION)
        with self._arrival:
            question = self._calls.ask(method, args, kwargs)
            self._questions[question.call] = None
        try:
            if threading.current_thread() is threading.main_thread():
                self.flush()
            self._line.send(question)
            answer = self._await(lambda: self._questions[question.call])
        finally:
            del self._questions[question.call]
        if answer is None:
            raise SystemExit("the centre is gone")
        return answer_value(answer, self._described.questions.get(method, Any))

    def _await(self, find: Callable[[], T | None]) -> T | None:
        """What `find` finds among the frames that came, now or later; None if the centre is gone.

        Of the threads that wait one reads for all, until its own is there: then another does.
        """
        with self._arrival:
            while (found := find()) is None and not self._gone:
                if self._reader is not None:
                    self._arrival.wait()
                    continue
                self._reader = threading.get_ident()
                self._arrival.release()
                try:
                    body = self._line.receive()
                finally:
                    self._arrival.acquire()
                    self._reader = None
                    self._arrival.notify_all()  # also when an exception ends it: another must read then
                self._sort(body)
            return found

    def _sort(self, body: bytes | bytearray | None) -> None:
        """Put a frame where it is waited for."""
        if body is None:
            self._gone = True
            return
        frame = self._codec.work(body)
        if not isinstance(frame, frames.Answer):
            self._backlog.append((frame, body))
        elif frame.call in self._questions:  # else an exception has ended the wait for it
            self._questions[frame.call] = frame


def _longest(start: float, ends: list[float]) -> int:
    """Which of the attempts that ended at these times, one after another, ran longest."""
    lasted = [end - begin for begin, end in pairwise([start, *ends])]
    return lasted.index(max(lasted))


def _finish(result: Any) -> None:
    """Wait for a `setup` or `teardown` that is async although `do_run` is not."""
    if inspect.iscoroutine(result):
        import asyncio  # the one place where a sync lane may need an event loop

        asyncio.run(result)
