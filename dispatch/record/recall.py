"""Which recorded shard is this? The n-th of equal ones, whatever the order, in memory that does not grow with them.

Shards most often come in the order of the record: then they are read from it in step, a bunch at a time. Whatever
is out of step is looked up by its digest, in an index that is made (in a temporary file of SQLite's) when it is
first needed: to keep one up to date would cost every run a random page for each shard. A bit for each recorded
shard says whether this run has met it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, cast

from dispatch.record.schema import attempt_of, connect_reader, database, fault_of, read_blob
from dispatch.terms.errors import JournalError
from dispatch.terms.outcome import Attempt, Fault

__all__ = ("Known", "Recall", "Row")

AHEAD = 1024  # rows read at a time
SOME = 32  # rows at a time of those, so that few values of the largest size are held
AHEAD_BYTES = 8 * 1024 * 1024  # of values; then fewer are read
NOTHING = b"\xc0"  # None, encoded: what a row says that holds no value
REMEMBERED = 10_000  # digests of which it is remembered how far they were looked up


class Known(NamedTuple):
    """A recorded shard, its outcome (`kind` is None if it has none) and the last attempt (`number` None: no row)."""

    id: int
    digest: bytes
    kind: str | None
    value: bytes | None  # None also if it stands in a file
    number: int | None
    runner: str
    pid: int
    started_at: float
    seconds: float
    queued: float


Row: TypeAlias = tuple[Any, ...]  # the fields of Known: to make a million of those would take a second


_KNOWN = """
SELECT s.id, s.digest, o.kind, o.value, a.number, a.runner, a.pid, a.started_at, a.seconds, a.queued
FROM shard s LEFT JOIN outcome o ON o.shard = s.id
LEFT JOIN attempt a ON a.shard = s.id AND a.number = o.attempts
"""
_VALUE = Known._fields.index("value")
_MARKS = ", ".join("?" * 128)


class Recall:
    """The shards `first` to `last` of a journal, as one run meets them again. Used by one thread at a time."""

    def __init__(self, work_dir: str, *, first: int, last: int, twins: bool) -> None:
        self._connection = connect_reader(work_dir)
        self._path, self._work_dir = database(work_dir), work_dir
        self._first, self._last = first, last
        self.left = max(0, last - first + 1)  # recorded shards that this run has not met
        self._low = first - 1  # all up to this one are met
        self._met = bytearray()  # a bit for each; made when the first is met out of step
        self._next = first  # where the reading in step goes on
        self._window: list[Row] = []
        self._is_indexed = False
        self._looked: dict[bytes, int] = {}
        self.twins = twins  # whether two recorded shards have the same label

    def close(self) -> None:
        """Let the database go."""
        self._connection.close()

    def interrupt(self) -> None:
        """End `index`, from another thread: it raises JournalError."""
        self._connection.interrupt()

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(self._path, f"it cannot be read: {error}") from error

    def ready(self, number: int) -> int:
        """How many of so many shards may be asked about at once: large values make it fewer, but 1 at least."""
        if not self.left:
            return number
        with self._reading():
            self._fill(number)
        return number if self._next > self._last else max(1, min(number, len(self._window)))

    def in_step(self, digests: list[bytes]) -> bool:
        """Whether these need no index: they are the next of the record, or nothing is left of it.

        No more than are `ready` may be asked about.
        """
        if not self.left or self._is_indexed:
            return True
        head = [row[1] for row in self._window[: len(digests)]]
        return head == digests or (head == digests[: len(head)] and len(head) == self.left)

    def match(self, digests: list[bytes]) -> Sequence[Row | None]:
        """What is known of these shards, each a row for Known; None for those that are new. By that they are met.

        Where `in_step` says no, `index` must have been called.
        """
        if not self.left:
            return [None] * len(digests)
        with self._reading():
            head = self._window[: len(digests)]
            if len(head) == len(digests) and [row[1] for row in head] == digests and not self._met:
                del self._window[: len(digests)]
                self.left -= len(head)
                self._low = head[-1][0]
                return head
            return self._one_by_one(digests)

    def _one_by_one(self, digests: list[bytes]) -> Sequence[Row | None]:
        found: list[Row | None] = []
        sought: dict[int, int] = {}  # id -> position
        for position, digest in enumerate(digests):
            known: Row | None = None
            if self.left:
                while self._window and self._is_met(self._window[0][0]):
                    del self._window[0]
                if self._window and self._window[0][1] == digest:
                    known = self._window.pop(0)
                    self._meet(known[0])
                elif (number := self._seek(digest)) is not None:
                    sought[number] = position
                    self._meet(number)
                    self._resync(number)
            found.append(known)
        for each in self._fetch(list(sought)):
            found[sought[each[0]]] = each
        return found

    def _resync(self, number: int) -> None:
        """Some recorded shards are not there any more: go on in step behind them, if they are few."""
        if self._window and 0 <= number - self._window[0][0] < len(self._window):
            del self._window[: number - self._window[0][0] + 1]

    def _fill(self, number: int) -> None:
        """Read on in step, until `number` rows are ready, or enough bytes."""
        while len(self._window) < number and self._next <= self._last:
            upto = min(self._last, self._next + max(AHEAD, number) - 1)
            cursor = self._connection.execute(
                f"{_KNOWN} WHERE s.id BETWEEN ? AND ? ORDER BY s.id", (self._next, upto)
            )
            size = 0
            while rows := cursor.fetchmany(SOME):
                self._window.extend(rows)
                self._next = self._window[-1][0] + 1
                size += sum(len(row[_VALUE]) for row in rows if row[_VALUE])
                if size > AHEAD_BYTES:
                    cursor.close()
                    return
            self._next = upto + 1

    def _fetch(self, ids: list[int]) -> list[Row]:
        found: list[Row] = []
        for at in range(0, len(ids), 128):
            some: list[int | None] = [*ids[at : at + 128]]
            some += [None] * (128 - len(some))
            rows = self._connection.execute(f"{_KNOWN} WHERE s.id IN ({_MARKS})", some)
            found.extend(rows)
        return found

    # Out of step.

    def index(self) -> None:
        """Make the index of what is recorded: about a second for a million. May be called in a thread."""
        if self._is_indexed:
            return
        with self._reading():
            self._connection.execute("PRAGMA query_only = OFF")
            self._connection.execute(
                "CREATE TEMP TABLE seek (digest BLOB, id INTEGER, PRIMARY KEY (digest, id)) WITHOUT ROWID"
            )
            self._connection.execute(
                "INSERT INTO temp.seek SELECT digest, id FROM shard WHERE id BETWEEN ? AND ? ORDER BY digest, id",
                (self._first, self._last),
            )
            self._connection.execute("PRAGMA query_only = ON")
        self._is_indexed = True

    def _seek(self, digest: bytes) -> int | None:
        after = max(self._low, self._looked.get(digest, 0))
        while True:
            rows = self._connection.execute(
                "SELECT id FROM temp.seek WHERE digest = ? AND id > ? ORDER BY id LIMIT 16", (digest, after)
            ).fetchall()
            for (number,) in rows:
                after = number
                if not self._is_met(number):
                    self._remember(digest, number)
                    return cast("int", number)
            if len(rows) < 16:
                self._remember(digest, after)
                return None

    def _remember(self, digest: bytes, number: int) -> None:
        if len(self._looked) >= REMEMBERED:
            self._looked.clear()
        self._looked[digest] = number

    def _is_met(self, number: int) -> bool:
        if number <= self._low:
            return True
        if not self._met:
            return False
        at = number - self._first
        return bool(self._met[at >> 3] & (1 << (at & 7)))

    def _meet(self, number: int) -> None:
        self.left -= 1
        if not self._met:
            if number == self._low + 1:
                self._low = number
                return
            self._met = bytearray((self._last - self._first >> 3) + 1)
        at = number - self._first
        self._met[at >> 3] |= 1 << (at & 7)

    # What is rarely asked.

    def labelled(self, labels: list[str]) -> list[tuple[str, int, bool]]:
        """The recorded shards of this book that carry one of these labels: label, id, whether this run met it."""
        found: list[tuple[str, int, bool]] = []
        with self._reading():
            for at in range(0, len(labels), 128):
                some = labels[at : at + 128]
                some += [""] * (128 - len(some))
                question = (
                    f"SELECT label, id FROM shard WHERE label IN ({_MARKS}) AND label <> '' AND id >= ?"  # noqa: S608  (marks)
                )
                rows = self._connection.execute(question, (*some, self._first))
                found.extend(
                    (label, number, number > self._last or self._is_met(number)) for label, number in rows
                )
        return found

    def history(self, shard: int) -> tuple[Attempt, ...]:
        """Every recorded attempt of a shard."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT runner, pid, started_at, seconds, queued, fault FROM attempt"
                " WHERE shard = ? ORDER BY number",
                (shard,),
            )
            return tuple(attempt_of(*row) for row in rows)

    def lost(self, shard: int) -> int:
        """How often a shard's run was killed while it ran."""
        return cast("int", self._ask("SELECT lost FROM shard WHERE id = ?", shard)[0])

    def value(self, shard: int) -> bytes | None:
        """The encoded value of a shard, also from its file; None if that cannot be read."""
        inline, file = self._ask("SELECT value, value_file FROM outcome WHERE shard = ?", shard)
        try:
            data = read_blob(self._work_dir, inline, file)
        except JournalError:
            return None
        return NOTHING if data is None else data

    def fault(self, shard: int) -> Fault | None:
        """Why a shard failed."""
        return fault_of(self._ask("SELECT fault FROM outcome WHERE shard = ?", shard)[0])

    def _ask(self, question: str, shard: int) -> tuple[Any, ...]:
        with self._reading():
            found: tuple[Any, ...] = self._connection.execute(question, (shard,)).fetchone()
        return found
