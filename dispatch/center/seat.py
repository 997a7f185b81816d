"""One place for a worker, as the session sees it across the lives that fill it."""

from __future__ import annotations

import time
from collections import deque
from typing import Literal

import msgspec

from dispatch.engines.base import Start
from dispatch.scheduling.batching import FRAMES_IN_FLIGHT, frame_size, may_prefetch, task_room
from dispatch.scheduling.ledger import Hand
from dispatch.scheduling.queue import Lane
from dispatch.terms.event import WorkerState
from dispatch.terms.outcome import Fault
from dispatch.terms.shard import WorkerInfo
from dispatch.wire.codec import Codec
from dispatch.wire.frames import Pulse, Ready

__all__ = ("Seat", "State")

State = Literal["starting", "ready", "retiring", "leaving", "lost"]


class Seat:
    """A worker's number, what it runs, and how much it has in hand."""

    def __init__(self, start: Start, codec: Codec, runner: str, *, slot: int | None = None) -> None:
        self.start, self.codec, self.runner = start, codec, runner
        self.number = start.number
        self.slot = start.number if slot is None else slot  # the same for a worker and its successors
        self.state: State = "starting"
        self.info = WorkerInfo(runner, 0, 0.0)
        self.concurrency, self.several = 1, False
        self.frames: deque[int] = deque()  # the last seq of each frame in flight (one shard at a time only)
        self.alone = False  # runs a shard that must have the worker for itself
        self.was_ready = False
        self.failed_starts = 0
        self.barren = 0  # lives in a row in which no shard was settled
        self.nonsense = False  # sent what is no frame
        self.never_ready: Fault | None = None  # why this life could not begin to serve, by its own account
        self.lives = 0
        self.life_shards, self.life_seconds = 0, 0.0
        self.successor: Seat | None = None
        self.predecessor: Seat | None = None
        self.asked_at = 0.0
        self.start_seconds = 0.0
        self.heard_at = 0.0
        self.pulse = Pulse(0, 0.0, 0)
        self.pids: list[int] = []

    @property
    def serves(self) -> bool:
        """Whether a runner process is there and takes shards, or did until it was to be replaced."""
        return self.state in ("ready", "retiring")

    @property
    def waits(self) -> bool:
        """Whether this worker is to follow one that still takes shards: both at once would be one too many."""
        return self.predecessor is not None and self.predecessor.state == "ready"

    def heir(self, number: int) -> Seat:
        """The seat of a successor."""
        start = msgspec.structs.replace(self.start, number=number)
        heir = Seat(start, self.codec, self.runner, slot=self.slot)
        heir.predecessor = self
        heir.pids = self.pids
        return heir

    def ready(self, frame: Ready, now: float) -> None:
        """A life begins to serve, at the monotonic time `now`."""
        self.state = "ready"
        self.was_ready = True
        self.failed_starts = 0
        self.lives += 1
        self.life_shards, self.life_seconds = 0, 0.0
        self.start_seconds = now - self.asked_at
        self.heard_at = now
        self.concurrency, self.several = frame.concurrency, frame.several
        self.info = WorkerInfo(self.runner, frame.pid, time.time() - time.monotonic())
        self.pids.append(frame.pid)

    def heard(self, now: float) -> None:
        """An attempt ended in this worker, and the worker lives."""
        self.heard_at = now
        self.alone = False
        self.barren = 0

    def ran(self, shards: int, seconds: float) -> None:
        """Attempts ended here that ran so many seconds together."""
        self.life_shards += shards
        self.life_seconds += seconds

    def ended(self) -> None:
        """A life is over; nothing is sent here until the next one serves."""
        self.state = "starting"
        self.lives += 1
        self.frames.clear()
        self.alone = self.nonsense = False
        self.never_ready = None
        self.pulse = Pulse(0, 0.0, 0)

    def room(self, lane: Lane, held: Hand, *, workers: int, idle: int) -> int:
        """How many shards of a lane to send this worker now; `held` is what it has in flight."""
        pace, ready = lane.pace, lane.ready
        if self.alone:
            return 0
        if self.several:
            return min(
                frame_size(pace, ready=ready, workers=1, idle=idle),
                task_room(pace, concurrency=self.concurrency, in_flight=len(held)),
            )
        if self.is_full:
            return 0
        # Behind another door's frame a door has its turn, however little it has: else a stream would starve it.
        own = not held or held.door == lane.door
        if self.frames and own and not may_prefetch(pace, ready=ready, workers=workers):
            return 0
        return frame_size(pace, ready=ready, workers=workers, idle=idle)

    @property
    def is_full(self) -> bool:
        """Whether this worker has all the frames in hand that it may."""
        return len(self.frames) >= FRAMES_IN_FLIGHT and not self.several

    def landed(self, held: Hand) -> None:
        """Forget frames of which nothing is in flight any more; `held` is what is."""
        frames, oldest = self.frames, held.oldest
        while frames and (oldest is None or frames[0] < oldest):
            frames.popleft()

    def now(self, held: Hand, now: float) -> WorkerState:
        """What the seat does at the monotonic time `now`."""
        running = held.entries().get(self.pulse.seq) if self.pulse.seq else None
        idle = now - self.heard_at if self.serves and not held else 0.0
        return WorkerState(
            runner=self.runner,
            pid=self.info.pid,
            state=self.state,
            shard_id=running.shard_id if running is not None else None,
            seconds=now - self.pulse.since if running is not None else idle,
            rss=self.pulse.rss,
            in_flight=len(held),
        )
