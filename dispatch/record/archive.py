"""The reading side of a journal, for whoever shows it: a live run's, a finished or a killed one's. Changes nothing.

An Archive may be asked while a run writes: each question sees what was committed when it was asked. Rows come in
bunches, so memory does not grow with the number of shards.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

import msgspec
from msgspec import Struct

from dispatch.record.lock import Owner, owner_of
from dispatch.record.schema import attempt_of, connect_reader, database, fault_of, read_blob
from dispatch.terms.errors import JournalError
from dispatch.terms.event import Snapshot
from dispatch.terms.outcome import Attempt, Fault

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ("Archive", "Happening", "Live", "Owner", "Record", "Run", "State")

P = ParamSpec("P")
T = TypeVar("T")
State = Literal["running", "finished", "interrupted", "killed"]
DIGITS = 18  # of a position: more are beyond what SQLite counts
BUNCH = 256  # rows read at a time
_RUN = ("id", "book", "state", "started_at", "ended_at", "runners", "resume", "drift", "total", "reused")
_RECORD = (
    "shard.id, book, label, position, lost, digest, coalesce(kind, ''), coalesce(cause, ''), run, at, fault"
)
_OF_RUN = (*_RUN, "host", "pid", "argv", "config")


class Run(Struct, frozen=True, kw_only=True):
    """One run. Times are wall time in seconds; `ended_at` is None while it runs, and if it was killed.

    `runners` maps each runner's name to its version; `drift` says what had changed since the run before, where
    allow_drift let it go on. `total` counts the shards that it had read, `reused` those taken from the record.
    """

    id: int
    book: int
    state: State
    started_at: float
    ended_at: float | None
    runners: dict[str, str]
    resume: str
    drift: str
    total: int
    reused: int
    host: str
    pid: int
    argv: list[str]
    config: dict[str, Any]


class Live(Struct, frozen=True, kw_only=True):
    """How far a run was at the wall time `at`: its own counts (by kind and cause), and its centre's snapshot.

    Written at most every 0.5 s while it runs, and once when it ends. `total` counts the shards that were read,
    `total_known` says whether there are no more, and `expected` how many the source says that it has (None: it does
    not say); `reused` of them came from the record. `unsettled` have no outcome.
    """

    at: float
    counts: dict[str, int]
    total: int
    total_known: bool
    expected: int | None = None
    reused: int
    unsettled: int
    seconds: float
    snapshot: Snapshot


class Happening(Struct, frozen=True, kw_only=True):
    """One rare event: `kind` is "workerready", "workerended", "draining", ...; `body` holds its fields."""

    id: int
    run: int
    at: float
    kind: str
    body: dict[str, Any]


class Record(Struct):
    """One shard with its outcome. `kind` is "done", "failed", "cancelled", or "" while it has no outcome.

    `name` is the supplied id, else the position; `run` and `at` say which run settled it and when.
    """

    shard: int
    book: int
    label: str
    position: int
    lost: int
    digest: bytes
    kind: str
    cause: str
    run: int | None
    at: float | None
    fault: Fault | None = None
    _archive: Any = None

    @property
    def name(self) -> str:
        """The supplied id, else the position in the run that read it first."""
        return self.label or str(self.position)

    @property
    def payload(self) -> Any:
        """What was submitted, as plain values; read when asked for. None if it could not be encoded."""
        return self._archive.blob("shard", "payload", self.shard)

    @property
    def value(self) -> Any:
        """What the runner returned, as plain values; read when asked for. None unless `kind` is "done"."""
        return self._archive.blob("outcome", "value", self.shard)

    @property
    def attempts(self) -> list[Attempt]:
        """Every execution of the shard, in every run; read when asked for."""
        found: list[Attempt] = self._archive.attempts(self.shard)
        return found


def _reading(method: Callable[Concatenate[Archive, P], T]) -> Callable[Concatenate[Archive, P], T]:
    """A method that raises JournalError if what it reads is damaged: SQLite may say so, or what decodes a column."""

    @wraps(method)
    def reading(archive: Archive, /, *args: P.args, **options: P.kwargs) -> T:
        try:
            return method(archive, *args, **options)
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, TypeError) as error:
            raise JournalError(database(archive.work_dir), f"it cannot be read: {error}") from error

    return reading


class Archive:
    """A work_dir's journal, opened for reading; a context manager, to be used in one thread.

    Every question raises JournalError if what it reads is damaged.
    """

    def __init__(self, work_dir: str, connection: sqlite3.Connection) -> None:
        self.work_dir = work_dir
        self._connection = connection

    @classmethod
    def open(cls, work_dir: str | os.PathLike[str]) -> Archive:
        """Open the journal of a work_dir.

        Raises JournalError if there is none, if it is not ours, or if a newer dispatch wrote it.
        """
        work_dir = os.fspath(work_dir)
        return cls(work_dir, connect_reader(work_dir))

    def close(self) -> None:
        """Let the database go."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Runs.

    def owner(self) -> Owner | None:
        """Who runs on this work_dir now; None: nobody."""
        return owner_of(self.work_dir)

    @property
    def state(self) -> State | None:
        """What the last run is now; None if there was none."""
        run = self.last_run()
        return None if run is None else run.state

    def last_run(self) -> Run | None:
        """The newest run; None if there is none."""
        runs = self._runs("ORDER BY id DESC LIMIT 1")
        return runs[0] if runs else None

    def runs(self) -> list[Run]:
        """All runs, the oldest first."""
        return self._runs("ORDER BY id")

    @_reading
    def _runs(self, which: str) -> list[Run]:
        found: list[Run] = []
        for row in self._connection.execute(f"SELECT {', '.join(_OF_RUN)} FROM run {which}"):  # noqa: S608  (names of ours)
            fields = dict(zip(_OF_RUN, row, strict=True))
            for name in ("runners", "argv", "config"):
                fields[name] = json.loads(fields[name])
            if fields["state"] == "running" and self.owner() is None:
                fields["state"] = "killed"
            found.append(msgspec.convert(fields, Run))
        return found

    @_reading
    def live(self, run: int | None = None) -> Live | None:
        """How far a run (by default the newest) was when it last said so; None if it never did."""
        which = "id = ?" if run is not None else "id = (SELECT max(id) FROM run)"
        row = self._connection.execute(
            f"SELECT live FROM run WHERE {which}",  # noqa: S608  (no input of anybody's)
            () if run is None else (run,),
        ).fetchone()
        return None if row is None or row[0] is None else msgspec.json.decode(row[0], type=Live)

    def events(self, *, run: int | None = None, after: int = 0) -> Iterator[Happening]:
        """The rare events of a run (by default of all), oldest first, those with an id over `after`."""
        while True:
            found = self._events(run, after)
            yield from found
            if len(found) < BUNCH:
                return
            after = found[-1].id

    @_reading
    def _events(self, run: int | None, after: int) -> list[Happening]:
        rows = self._connection.execute(
            "SELECT id, run, at, kind, body FROM event WHERE id > ? AND run = coalesce(?, run) ORDER BY id LIMIT ?",
            (after, run, BUNCH),
        )
        return [
            Happening(id=number, run=of, at=at, kind=kind, body=json.loads(body))
            for number, of, at, kind, body in rows
        ]

    # Shards.

    @_reading
    def book(self) -> int:
        """The book that the newest run writes; 0 if there was no run."""
        return int(self._connection.execute("SELECT coalesce(max(book), 0) FROM run").fetchone()[0])

    @_reading
    def counts(self, *, book: int | None = None) -> dict[str, int]:
        """Recorded outcomes of a book (by default the newest) by kind and cause, as in Report.counts.

        Counts all shards that the book ever saw, so also those that the newest run's source does not bring any
        more; what the newest run itself counts stands in `live().counts`. Reads every outcome: 0.1 s a million.
        """
        counts: dict[str, int] = {}
        rows = self._connection.execute(
            "SELECT kind, cause, count(*) FROM outcome WHERE shard BETWEEN ? AND ? GROUP BY kind, cause",
            self._span(book),
        )
        for kind, cause, number in rows:
            counts[kind] = counts.get(kind, 0) + number
            if kind == "failed":
                counts[cause] = counts.get(cause, 0) + number
        return counts

    def total(self, *, book: int | None = None) -> int:
        """Recorded shards of a book (by default the newest)."""
        first, last = self._span(book)
        return last - first + 1

    def _span(self, book: int | None) -> tuple[int, int]:
        """The ids of a book's first and last shard: books stand one behind the other."""
        wanted = self.book() if book is None else book
        newest = self.book()
        first = self._first(wanted)
        last = self._first(wanted + 1) - 1 if wanted < newest else self._last()
        return first, last

    @_reading
    def _first(self, book: int) -> int:
        row = self._connection.execute("SELECT min(book_first) FROM run WHERE book = ?", (book,)).fetchone()
        return int(row[0] or 1)

    @_reading
    def _last(self) -> int:
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM shard").fetchone()[0])

    def outcomes(
        self,
        *,
        kind: str | None = None,
        cause: str | None = None,
        book: int | None = None,
        after: int = 0,
    ) -> Iterator[Record]:
        """Shards in the order of their first reading, with what became of them.

        `kind`: "done", "failed", "cancelled", "" (no outcome); None: all. `cause`: of failures. `after`: only
        shards with a row id over this one, to go on where an earlier call stopped.
        """
        first, last = self._span(book)
        tests = ["shard.id > ?", "shard.id <= ?"]
        values: list[Any] = [last]
        if kind is not None:
            tests.append("coalesce(kind, '') = ?")
            values.append(kind)
        if cause is not None:
            tests.append("cause = ?")
            values.append(cause)
        after = max(after, first - 1)
        while True:
            rows = self._records(f"{' AND '.join(tests)} ORDER BY shard.id LIMIT {BUNCH}", after, *values)
            yield from rows
            if len(rows) < BUNCH:
                return
            after = rows[-1].shard

    def find(self, name: str, *, book: int | None = None) -> list[Record]:
        """The shards with this supplied id, else those at this position (several, where the input had changed)."""
        span = self._span(book)
        found = self._records("label = ? AND label <> '' AND shard.id BETWEEN ? AND ?", name, *span)
        if not found and name.isdecimal() and len(name) <= DIGITS:
            found = self._records(
                "position = ? AND label = '' AND shard.id BETWEEN ? AND ?", int(name), *span
            )
        return found

    @_reading
    def _records(self, which: str, *values: Any) -> list[Record]:
        question = f"SELECT {_RECORD} FROM shard LEFT JOIN outcome ON outcome.shard = shard.id WHERE {which}"  # noqa: S608  (ours)
        rows = self._connection.execute(question, values)
        return [self._record(*row) for row in rows]

    def _record(self, *columns: Any) -> Record:
        fields: dict[str, Any] = dict(zip(Record.__struct_fields__, columns, strict=False))
        fields["fault"], fields["_archive"] = fault_of(columns[-1]), self
        return Record(**fields)

    @_reading
    def attempts(self, shard: int) -> list[Attempt]:
        """Every execution of a shard (its row id), in every run; a lost one has a fault with the cause "lost"."""
        rows = self._connection.execute(
            "SELECT runner, pid, started_at, seconds, queued, fault FROM attempt WHERE shard = ? ORDER BY number",
            (shard,),
        )
        return [attempt_of(*row) for row in rows]

    @_reading
    def blob(
        self, table: Literal["shard", "outcome"], column: Literal["payload", "value"], shard: int
    ) -> Any:
        """A payload or a value as plain values. Raises JournalError if its file is missing."""
        key = "id" if table == "shard" else "shard"
        row = self._connection.execute(
            f"SELECT {column}, {column}_file FROM {table} WHERE {key} = ?",  # noqa: S608  (names of ours)
            (shard,),
        ).fetchone()
        data = None if row is None else read_blob(self.work_dir, *row)
        return None if data is None else msgspec.msgpack.decode(data)
