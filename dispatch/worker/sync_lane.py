"""Receive shards, run them one at a time, send their outcomes, until told to stop.

Fast path: one clock reading, one write to the slot, one encode for each shard; outcomes leave together when a
millisecond has passed or the frame is done. A value is encoded at once, because the runner may change it later.
Everything that goes wrong takes the slow path, a frame of its own for one shard.
"""

from __future__ import annotations

import inspect
import math
import os
import signal
import threading
from time import monotonic
from types import FrameType
from typing import Any

from msgspec import Raw

from dispatch.terms.shard import Shard
from dispatch.wire import frames
from dispatch.wire.calls import Calls
from dispatch.wire.codec import NotDeliverable, undeliverable
from dispatch.worker.duty import Duty
from dispatch.worker.evidence import fault_of
from dispatch.worker.link import Link, answer_value
from dispatch.worker.parcel import Parcel
from dispatch.worker.slot import FENCE, RUN

__all__ = ("FLUSH_AFTER", "PATIENCE", "SyncLane")

FLUSH_AFTER = 0.001  # seconds that an outcome may wait for company
FLUSH_BYTES = 256 * 1024
PATIENCE = 0.025  # seconds after which the unstarted rest of a frame goes back: it was sized for much less
PROGRESS_EVERY = 0.05  # seconds


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
        self._buffer = bytearray()
        self._held = 0
        self._backlog: list[tuple[Any, bytes | bytearray]] = []
        self._calls = Calls()
        self._asking = threading.RLock()
        self._seq = 0
        self._progressed = 0.0
        duty.runner.center = Link(self.ask)
        duty.runner._report = self._progress

    def run(self) -> None:
        """Set up, serve until the centre says goodbye or is gone, tear down. Raises what `setup` raises."""
        _finish(self._runner.setup())
        self._prepare()
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

    def _next(self) -> tuple[Any, bytes | bytearray] | None:
        if self._backlog:
            return self._backlog.pop(0)
        body = self._line.receive()
        return None if body is None else (self._codec.work(body), body)

    def _work(self, work: frames.Work[Any], origin: Parcel) -> None:
        """Run a frame's shards. One function because it is the fast path: a call per shard costs as much as a shard."""
        do_run, encode_into, fence, memory = (
            self._runner.do_run,
            self._codec.encode_into,
            self._slot.words,
            self._slot.memory,
        )
        first, indexes, buffer, capture = work.first, work.indexes, self._buffer, self._capture
        ids = list(map(str, indexes))
        plain = not (work.ids or work.attempts or work.timeouts)
        limit, attempt, after = work.timeout, 1, work.timeout or math.inf
        flushed = began = now = monotonic()
        for offset, payload in enumerate(work.payloads):
            seq = first + offset
            if now - began > PATIENCE and seq > first:
                self._give_back(range(seq, first + len(indexes)))
                break
            if not plain:
                ids[offset] = work.ids.get(offset, ids[offset])
                attempt = work.attempts.get(offset, 1)
                limit = work.timeouts.get(offset, work.timeout)
                after = limit or math.inf
            self._seq = seq
            RUN.pack_into(memory, 0, seq, now, now + after, self._held)
            if seq < fence[FENCE]:  # after the slot says that we start: the nanny looks in the other order
                self._give_back(range(seq, first + len(indexes)))
                break
            try:
                if type(payload) is Raw:
                    payload = self._codec.decode_payload(payload)  # noqa: PLW2901  (the frame did not fit: find the culprit)
                value = do_run(
                    Shard(payload, ids[offset], limit, None, indexes[offset], attempt, origin, offset)
                )
                ended = monotonic()
                encode_into((seq, now, ended - now, value), buffer)
            except BaseException as error:  # noqa: BLE001  (a shard's error is its own; the lane goes on)
                ended = monotonic()
                self._failed(seq, now, ended, error)
            else:
                self._held += 1
            if capture is not None and os.lseek(1, 0, 2):
                self._printed(seq)
            now = ended
            if now - flushed > FLUSH_AFTER or len(buffer) > FLUSH_BYTES:
                self._slot.leave()
                self.flush()
                flushed = now = monotonic()
        self._slot.leave()
        self.flush()

    def _give_back(self, seqs: range) -> None:
        self._line.send(frames.Back(list(seqs)))

    def flush(self) -> None:
        """Send the outcomes that wait for company."""
        if self._held:
            number, self._held = self._held, 0
            body = frames.results_body(number)
            self._line.write([frames.head(len(body) + len(self._buffer)), body, self._buffer])
            self._buffer.clear()

    def _poked(self, _number: int, frame: FrameType | None) -> None:
        """The nanny saw that a shard runs long while finished ones wait here: send them.

        Only from inside do_run: anywhere else the buffer may be half written.
        """
        while frame is not None and (
            frame.f_back is None or frame.f_back.f_code is not SyncLane._work.__code__
        ):
            frame = frame.f_back
        runs = getattr(self._runner.do_run, "__code__", None)
        if frame is not None and frame.f_code is runs and not self._line.busy:
            self.flush()

    def _failed(self, seq: int, started: float, ended: float, error: BaseException) -> None:
        self._slot.leave()
        self.flush()
        output = self._printed(seq) if self._capture is not None and self._capture.size() else ""
        if isinstance(error, NotDeliverable):
            fault = undeliverable(self._described.name, str(error))
        else:
            fault = fault_of(error, output=output)
        self._line.send(frames.Fail(seq, started, ended - started, fault))

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
        question = self._calls.ask(method, args, kwargs)
        return answer_value(self._exchange(question), self._described.questions.get(method, Any))

    def _exchange(self, question: frames.Call) -> frames.Answer:
        with self._asking:
            if threading.current_thread() is threading.main_thread():
                self.flush()
            self._line.send(question)
            while True:
                body = self._line.receive()
                if body is None:
                    raise SystemExit("the centre is gone")
                frame = self._codec.work(body)
                if not isinstance(frame, frames.Answer):
                    self._backlog.append((frame, body))
                elif frame.call == question.call:
                    return frame


def _finish(result: Any) -> None:
    """Wait for a `setup` or `teardown` that is async although `do_run` is not."""
    if inspect.iscoroutine(result):
        import asyncio  # the one place where a sync lane may need an event loop

        asyncio.run(result)
