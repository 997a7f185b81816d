"""What became of a shard: Done, Failed or Cancelled, exactly one per shard.

What an outcome tells beside its value is read from the parent's Entry when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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
from dispatch.terms.shard import Entry, WorkerInfo

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
    "Plan",
    "PlannedShard",
    "Report",
    "WorkerFigures",
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


class _Common(Struct, frozen=True, kw_only=True):
    @property
    def _books(self) -> Entry:
        entry: Entry | None = getattr(self, "entry", None)
        if entry is None:
            raise AttributeError("this outcome was made by hand and belongs to no shard")
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
    entry: Any = None  # an Entry of the parent
    started: float = 0.0  # monotonic, as `ended`
    ended: float = 0.0
    worker: WorkerInfo | None = None

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


class WorkerFigures(Struct, frozen=True, kw_only=True):
    """What one worker slot did in a run. `busy` is the seconds that its shards ran, `pids` its processes."""

    runner: str
    pids: tuple[int, ...]
    shards: int
    busy: float


class PlannedShard(Struct, frozen=True, kw_only=True):
    """A shard as the dummy centre saw it. `size` is bytes; `problem` says why it could not be delivered."""

    id: str
    size: int
    digest: str
    problem: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """What a run would do: the runners it would start, the shared param's bytes, and every shard."""

    runners: tuple[str, ...]
    shared_param_bytes: int | None
    shards: list[PlannedShard] = []

    @property
    def problems(self) -> list[PlannedShard]:
        """The shards that could not be delivered."""
        return [shard for shard in self.shards if shard.problem]


class Report(Struct, Generic[R], kw_only=True, eq=False):
    """What became of a run. `outcomes` are in input order; with `collect=False` only those not Done are kept.

    `total_known` says whether the source of shards ended; `reused` of the shards were not run, because the journal
    had their outcomes; `coverage` is done / total, failures included in the total; `unfinished` holds the ids of all
    known shards that are not Done.
    """

    outcomes: list[Done[R] | Failed | Cancelled] = []
    counts: dict[str, int] = {}
    total: int = 0
    total_known: bool = False
    reused: int = 0
    seconds: float = 0.0
    workers: tuple[WorkerFigures, ...] = ()
    plan: Plan | None = None
    interrupted: bool = False
    collected: bool = True

    @property
    def coverage(self) -> float:
        """Done shards as a share of all known ones; 1.0 when there are none."""
        return self.counts.get("done", 0) / self.total if self.total else 1.0

    @property
    def unfinished(self) -> list[str]:
        """Ids of the known shards that are not Done."""
        return [outcome.shard_id for outcome in self.outcomes if not isinstance(outcome, Done)]

    @property
    def failures(self) -> list[Failed]:
        """The Failed outcomes."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Failed)]

    def values(self) -> list[R]:
        """The values in input order; raises what the first outcome that is not Done would raise.

        Raises ValueError if the run did not collect its values (`collect=False`).
        """
        if not self.collected:
            raise ValueError("this report kept no values: run(collect=False)")
        return [outcome.unwrap() for outcome in self.outcomes]

    def __iter__(self) -> Iterator[Done[R] | Failed | Cancelled]:
        return iter(self.outcomes)

    def __str__(self) -> str:
        return "\n".join(_table(self))


def _table(report: Report[Any]) -> Iterator[str]:
    counts, total = report.counts, report.total
    rate = max(0, counts.get("done", 0) - report.reused) / report.seconds if report.seconds else 0.0
    of = f"of {total:,} shards" if report.total_known else f"of {total:,} shards known so far"
    speed = f"in {report.seconds:.2f} s ({rate:,.0f}/s)"
    yield f"{counts.get('done', 0):,} done {of} {speed}, coverage {report.coverage:.1%}"
    if report.reused:
        yield f"{report.reused:,} of them reused from the journal, {total - report.reused:,} run"
    if report.interrupted:
        yield "interrupted: what had not finished is cancelled"
    if total:
        yield ""
        yield f"  {'outcome':<16}{'shards':>10}{'share':>9}"
        for name in ("done", *_causes(report), "cancelled"):
            if counts.get(name):
                yield f"  {name:<16}{counts[name]:>10,}{counts[name] / total:>9.1%}"
    failures = report.failures
    if failures:
        yield ""
        yield from _failures(failures)
    if report.workers:
        yield ""
        yield f"  {'worker':<28}{'shards':>10}{'busy':>10}{'processes':>11}"
        for worker in report.workers:
            yield f"  {worker.runner:<28}{worker.shards:>10,}{worker.busy:>8.2f} s{len(worker.pids):>11}"


def _causes(report: Report[Any]) -> list[str]:
    return sorted(set(report.counts) - {"done", "failed", "cancelled"})


def _failures(failures: Sequence[Failed]) -> Iterator[str]:
    groups = Counter(
        (failed.fault.cause, failed.fault.type, _first_line(failed.fault.message)) for failed in failures
    )
    yield "  failures, most common first"
    for (cause, kind, message), number in groups.most_common(5):
        example = next(
            f
            for f in failures
            if (f.fault.cause, f.fault.type, _first_line(f.fault.message)) == (cause, kind, message)
        )
        said = f"{kind}: {message}" if kind else message
        yield f"  {number:>6,} x {cause:<14}{said}  (shard {example.shard_id})"
    if len(groups) > 5:
        yield f"         and {len(groups) - 5} more kinds"


def _first_line(message: str, width: int = 70) -> str:
    line = message.splitlines()[0] if message else ""
    return line if len(line) <= width else line[: width - 3] + "..."
