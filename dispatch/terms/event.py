"""What can be said to have happened. `at` is wall time in seconds."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from dispatch.terms.outcome import Fault

__all__ = (
    "Closed",
    "Draining",
    "Event",
    "Opened",
    "Printed",
    "Progressed",
    "Retrying",
    "Settled",
    "Snapshot",
    "WorkerEnded",
    "WorkerReady",
    "WorkerState",
)


class _Event(Struct, frozen=True, kw_only=True, tag=str.lower):
    at: float


class Opened(_Event, frozen=True):
    """The centre is open; `workers` are being started."""

    workers: int


class WorkerReady(_Event, frozen=True):
    """A worker's `setup` is over, and it takes shards. `seconds` since its start was asked for."""

    worker: int
    runner: str
    pid: int
    seconds: float


class WorkerEnded(_Event, frozen=True):
    """A runner process ended. `expected` if we asked for it; else `fault` holds the evidence."""

    worker: int
    runner: str
    pid: int
    expected: bool
    fault: Fault | None = None


class Settled(_Event, frozen=True):
    """Shards of one door have their outcomes."""

    outcomes: list[Any]


class Retrying(_Event, frozen=True):
    """An attempt failed, and another one is due after `wait` seconds."""

    shard_id: str
    attempt: int
    fault: Fault
    wait: float


class Progressed(_Event, frozen=True):
    """A runner said how far it is with a shard."""

    shard_id: str
    done: float
    total: float | None
    pid: int


class Printed(_Event, frozen=True):
    """A shard (or, with no shard, its worker) wrote to its output. `cut` counts characters left out."""

    shard_id: str | None
    pid: int
    text: str
    cut: int = 0


class Draining(_Event, frozen=True):
    """No new shard starts from now on."""


class Closed(_Event, frozen=True):
    """The centre is closed, and nothing of it is left."""


Event: TypeAlias = (
    Opened | WorkerReady | WorkerEnded | Settled | Retrying | Progressed | Printed | Draining | Closed
)


class WorkerState(Struct, frozen=True, kw_only=True):
    """One worker now. `shard_id` is what it runs, for `seconds`; `rss` is bytes (0 where unknown).

    With nothing `in_flight` it has been idle for `seconds`.
    """

    runner: str
    pid: int
    state: str
    shard_id: str | None
    seconds: float
    rss: int
    in_flight: int


class Snapshot(Struct, frozen=True, kw_only=True):
    """A centre now. `rate` is shards settled per second since the centre opened."""

    counts: dict[str, int]
    ready: int
    delayed: int
    in_flight: int
    seconds: float
    rate: float
    draining: bool
    workers: tuple[WorkerState, ...]
