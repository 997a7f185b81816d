"""What became of a run, as a whole: its report, which a person can read, and a dummy run's plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic

from msgspec import Struct, field

from dispatch.terms.outcome import Cancelled, Done, Failed

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

__all__ = ("Plan", "PlannedShard", "Report", "WorkerFigures")


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


class Counts(dict[str, int]):
    """A dict that has 0 for what there was none of."""

    def __missing__(self, name: str) -> int:
        return 0


class Report(Struct, Generic[R], kw_only=True, eq=False):
    """What became of a run. `outcomes` are in input order; with `collect=False` only those not Done are kept.

    `counts` is by kind and by cause ("done", "failed", "timed_out" …), 0 for what there was none of.
    `total_known` says whether the source of shards ended; `reused` of the shards were not run, because the journal
    had their outcomes; `coverage` is done / total, failures included in the total; `unfinished` holds the ids of all
    known shards that are not Done.
    """

    outcomes: list[Done[R] | Failed | Cancelled] = []
    counts: dict[str, int] = field(default_factory=Counts)
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
