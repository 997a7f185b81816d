"""What became of a shard: Done, Failed or Cancelled, exactly one per shard.

What an outcome tells beside its value is read from the parent's Entry when somebody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeAlias

from msgspec import Struct

from dispatch.terms.errors import (
    OutOfMemory,
    RemoteError,
    RemoteTraceback,
    ShardCancelled,
    ShardError,
    ShardTimeout,
    StartupFailed,
    Undeliverable,
    WorkerDied,
)
from dispatch.terms.shard import Batch, Entry, WorkerInfo

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

__all__ = (
    "Attempt",
    "Cancelled",
    "Cause",
    "Done",
    "Failed",
    "Fault",
    "Outcome",
)

Cause: TypeAlias = Literal[
    "raised", "timed_out", "crashed", "out_of_memory", "undeliverable", "startup", "lost"
]


class Fault(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt failed, with evidence.

    `stack` is the Python stack at the moment of a crash or a timeout; `output` the tail of what the shard
    printed; `signal` and `exit_code` are exact. `after` is the wait that a RetryLater asked for (seconds).
    """

    cause: Cause
    type: str = ""
    message: str = ""
    traceback: str = ""
    stack: str = ""
    output: str = ""
    signal: int | None = None
    exit_code: int | None = None
    final: bool = False
    after: float | None = None
    module: str = ""
    args: bytes = b""  # the exception's arguments as msgpack, where they are plain
    rebuild: bool = True

    def __str__(self) -> str:
        """One line: the cause, and what was seen."""
        what = self.message.splitlines()[0] if self.message else ""
        return f"{self.cause}: {self.type}: {what}" if self.type else f"{self.cause}: {what}"


class Attempt(Struct, frozen=True, kw_only=True):
    """One execution of a shard. `started_at` is wall time; `seconds` it ran, `queued` seconds it waited."""

    runner: str
    pid: int
    started_at: float
    seconds: float
    queued: float
    fault: Fault | None = None


_BY_HAND = "this outcome was made by hand and belongs to no shard"


class _Common(Struct, frozen=True, kw_only=True):
    @property
    def _books(self) -> Entry:
        entry: Entry | None = getattr(self, "entry", None)
        if entry is None:
            raise AttributeError(_BY_HAND)
        return entry

    @property
    def shard_id(self) -> str:
        """The id that the shard was given, else its position."""
        return self._books.shard_id

    @property
    def index(self) -> int:
        """The shard's position in its door's input, from 0."""
        return self._books.index

    @property
    def payload(self) -> Any:
        """What was submitted, decoded now."""
        entry = self._books
        return entry.origin.decode(entry.payload) if entry.unencoded is None else entry.unencoded

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every execution of the shard, the last one last."""
        return self._books.history

    @property
    def reused(self) -> bool:
        """Whether this outcome came from the journal of an earlier run."""
        return self._books.reused


class Done(_Common, Generic[R], frozen=True, eq=False, gc=False):
    """The shard ran, and `value` is what the runner returned."""

    # Not tracked by the garbage collector, which took a quarter of the parent's time: a value was decoded from
    # bytes, so it cannot refer to its outcome.

    value: R
    entry: Any = None  # an Entry of the parent, or a Batch
    started: float = 0.0  # monotonic, as `ended`
    ended: float = 0.0
    worker: WorkerInfo | None = None
    offset: int = 0  # where in it, if `entry` is a Batch

    @property
    def _books(self) -> Entry:
        entry: Entry | Batch | None = self.entry
        if entry is None:
            raise AttributeError(_BY_HAND)
        return entry.entry(self.offset) if isinstance(entry, Batch) else entry

    @property
    def index(self) -> int:
        """The shard's position in its door's input, from 0."""
        entry = self.entry
        return entry.start + self.offset if isinstance(entry, Batch) else self._books.index

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every execution of the shard; the last one succeeded."""
        entry, worker = self._books, self.worker
        if worker is None:
            return entry.history
        last = Attempt(
            runner=worker.runner,
            pid=worker.pid,
            started_at=self.started + worker.epoch,
            seconds=self.ended - self.started,
            queued=max(0.0, self.started - entry.ready_at),
        )
        return (*entry.history, last)

    def unwrap(self) -> R:
        """The value."""
        return self.value

    def __repr__(self) -> str:
        return (
            f"Done(shard_id={self.shard_id!r}, value={self.value!r})"
            if self.entry
            else f"Done(value={self.value!r})"
        )


class Failed(_Common, frozen=True, kw_only=True, eq=False):
    """The shard is out of attempts; `fault` says why the last one failed."""

    fault: Fault
    entry: Any = None  # an Entry of the parent

    def unwrap(self) -> NoReturn:
        """Raise what the runner raised where that is safe, else the error that stands for the fault's cause."""
        fault = self.fault
        if fault.traceback or fault.stack:
            raise self.error() from RemoteTraceback(fault.traceback or fault.stack)
        raise self.error()

    def error(self) -> Exception:
        """The exception that `unwrap` raises."""
        fault = self.fault
        shard = self.shard_id if self.entry else ""
        if fault.cause == "raised":
            rebuilt = _rebuild(fault)
            if rebuilt is not None:
                return rebuilt
            return RemoteError(shard, f"{fault.type}: {fault.message}", fault=fault)
        kind = _ERRORS[fault.cause]
        return kind(shard, fault.message, fault=fault)

    def __repr__(self) -> str:
        return (
            f"Failed(shard_id={self.shard_id!r}, fault={str(self.fault)!r})"
            if self.entry
            else f"Failed(fault={self.fault!r})"
        )


class Cancelled(_Common, frozen=True, kw_only=True, eq=False):
    """The run was interrupted, or the shard withdrawn, before it was done."""

    entry: Any = None  # an Entry of the parent

    def unwrap(self) -> NoReturn:
        """Raise ShardCancelled."""
        raise self.error()

    def error(self) -> Exception:
        """The exception that `unwrap` raises."""
        return ShardCancelled(self.shard_id if self.entry else "", "cancelled before it was done")

    def __repr__(self) -> str:
        return f"Cancelled(shard_id={self.shard_id!r})" if self.entry else "Cancelled()"


Outcome: TypeAlias = Done[R] | Failed | Cancelled

_ERRORS: dict[str, type[ShardError]] = {
    "timed_out": ShardTimeout,
    "crashed": WorkerDied,
    "lost": WorkerDied,
    "out_of_memory": OutOfMemory,
    "undeliverable": Undeliverable,
    "startup": StartupFailed,
}


def _rebuild(fault: Fault) -> Exception | None:
    """The original exception, made without calling `__init__`, importing or unpickling; None if unsafe.

    Only a subclass of Exception from a module that this process has loaded: a SystemExit or a CancelledError
    would end the host or imitate its cancellation, and a name sent by a worker must not cause an import.
    """
    import sys

    import msgspec

    if not fault.rebuild:
        return None
    kind: Any = sys.modules.get(fault.module)
    for part in fault.type.split("."):
        kind = getattr(kind, "__dict__", {}).get(part)  # not getattr: a lazy module would import it
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, _UNRAISABLE):
        return None
    # A base written in C owns the memory, so its __new__ and __init__ must run; those in Python must not.
    native: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    try:
        args = tuple(msgspec.msgpack.decode(fault.args)) if fault.args else (fault.message,)
        made: object = native.__new__(kind, *args)
        if not isinstance(made, Exception):
            return None
        native.__init__(made, *args)
        str(made)
    except BaseException:  # noqa: BLE001  (a hostile or unusual type, whatever it raises: RemoteError stands in)
        return None
    return made


# A coroutine cannot raise the second and third: they would come out as RuntimeError.
_UNRAISABLE = (BaseExceptionGroup, StopIteration, StopAsyncIteration)
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement
