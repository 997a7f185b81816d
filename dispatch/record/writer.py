"""The one thread that writes a journal: what was posted is committed in groups, then its poster is told.

Rows go in many at a time, because sqlite3 lets go of the GIL at every statement, and a thread beside a busy event
loop may wait 5 ms to have it back: a row a statement would make 200 rows a second. A group is what comes within GATHER,
unless somebody waits for it: a commit for each frame would take a third of a processor from the workers.
After an error nothing is written any more: what was not committed is not told.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain
from typing import Any

from msgspec import Struct, field

from dispatch.record.schema import INLINE, database
from dispatch.terms.errors import JournalError

__all__ = ("Act", "Writer")

GATHER = 0.015  # seconds that what was posted waits for company: with the commit itself under 20 ms
IDLE = 1.0  # seconds between looks whether the event loop is still there
SIZES = (1, 8, 64, 512)  # rows of a statement; what is left over is padded with rows that are not inserted
WIDTHS = {"shard": 9, "outcome": 9, "attempt": 10}
HOW = {"shard": "INSERT", "outcome": "INSERT OR REPLACE", "attempt": "INSERT OR IGNORE"}
BLOBS = {
    "shard": 7,
    "outcome": 6,
}  # the column that may be too large for a row; its file's name stands in the next


class Act(Struct):
    """What is to be written together. `told` is called in the event loop when it is, `dropped` if it never will be.

    Rows are tuples in the order of their table's columns; `flights` holds the newest of each worker.
    """

    shards: Sequence[tuple[Any, ...]] = ()
    outcomes: Sequence[tuple[Any, ...]] = ()
    attempts: Sequence[tuple[Any, ...]] = ()
    others: Sequence[tuple[str, tuple[Any, ...]]] = ()  # statements with their values
    flights: dict[int, tuple[Any, ...]] = field(default_factory=dict[int, tuple[Any, ...]])
    large: bool = False  # a payload or a value may be over INLINE bytes
    told: Callable[[], None] | None = None
    dropped: Callable[[], None] | None = None


class Writer:
    """Owns the writing connection from the first post to `close`. Posts come from one event loop."""

    def __init__(self, work_dir: str, loop: asyncio.AbstractEventLoop) -> None:
        self._work_dir, self._loop = work_dir, loop
        self._acts: list[Act] = []
        self._changed = threading.Condition()
        self._ending = self._urgent = False
        self._connection: sqlite3.Connection | None = None
        self.error: JournalError | None = None
        self.on_error: Callable[[JournalError], None] = _ignore
        self.on_end: Callable[[], None] = _nothing  # may be called twice
        self.ended = asyncio.Event()

    def start(
        self, opened: asyncio.Future[Any], opener: Callable[[], tuple[sqlite3.Connection, Any]]
    ) -> None:
        """Call `opener` in the thread, then write what is posted; `opened` gets its second result, or its error."""
        thread = threading.Thread(
            target=self._run, args=(opened, opener), name="dispatch-journal", daemon=True
        )
        thread.start()

    def post(self, act: Act, *, urgent: bool = False) -> None:
        """Have something written. `urgent`: without waiting for company."""
        if self.error is not None or self._ending:
            if act.dropped is not None:
                act.dropped()
            return
        with self._changed:
            self._acts.append(act)
            if urgent or len(self._acts) == 1:
                self._urgent = self._urgent or urgent
                self._changed.notify()

    def close(self) -> None:
        """Write what was posted, then let the database go; `ended` is set when that is done."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    # In the thread.

    def _run(self, opened: asyncio.Future[Any], opener: Callable[[], tuple[sqlite3.Connection, Any]]) -> None:
        try:
            self._connection, found = opener()
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is raised where the opening is awaited)
            self.on_end()  # first: whoever hears of it may try again
            self._tell(_fail, opened, error)
        else:
            self._tell(_succeed, opened, found)
            try:
                while self._write_next():
                    pass
            finally:
                with suppress(sqlite3.Error):
                    self._connection.close()
        finally:
            self.on_end()
            self._tell(self.ended.set)

    def _write_next(self) -> bool:
        """Wait for acts and commit them; False when there will be no more."""
        with self._changed:
            while not (self._acts or self._ending):
                self._changed.wait(IDLE)
                if self._loop.is_closed():
                    return False
            self._changed.wait_for(lambda: self._ending or self._urgent, GATHER)
            acts, self._acts, self._urgent = self._acts, [], False
        if not acts:
            return False
        try:
            self._commit(acts)
        except Exception as error:  # noqa: BLE001  (whatever it is: a thread that died unheard would hang the run)
            with suppress(sqlite3.Error):
                self._connected.rollback()
            self._tell(self._failed, acts, JournalError(database(self._work_dir), _sentence(error)))
            return False
        self._tell(_told, acts)
        return True

    @property
    def _connected(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _commit(self, acts: list[Act]) -> None:
        execute = self._connected.execute
        execute("BEGIN IMMEDIATE")
        large = any(act.large for act in acts)
        self._insert("shard", [act.shards for act in acts], large=large)
        self._insert("attempt", [act.attempts for act in acts], large=False)
        self._insert("outcome", [act.outcomes for act in acts], large=large)
        flights: dict[int, tuple[Any, ...]] = {}
        for act in acts:
            flights.update(act.flights)
            for statement, values in act.others:
                execute(statement, values)
        for flight in flights.values():
            execute("INSERT OR REPLACE INTO flight VALUES (?, ?, ?, ?, ?, ?, ?)", flight)
        execute("COMMIT")

    def _insert(self, table: str, parts: Iterable[Sequence[tuple[Any, ...]]], *, large: bool) -> None:
        rows = list(chain.from_iterable(parts))
        if large:
            rows = [self._filed(row, BLOBS[table]) for row in rows]
        width = WIDTHS[table]
        for at in range(0, len(rows), SIZES[-1]):
            some = rows[at : at + SIZES[-1]]
            size = next(size for size in SIZES if size >= len(some))
            values = list(chain.from_iterable(some))
            values.extend([None] * (width * (size - len(some))))
            self._connected.execute(_STATEMENTS[table, size], values)

    def _filed(self, row: tuple[Any, ...], column: int) -> tuple[Any, ...]:
        """The row, with a large payload or value in a file of its own: there, and durable, before the row is."""
        data = row[column]
        if data is None or len(data) <= INLINE:
            return row
        name = blake2b(data, digest_size=16).hexdigest()
        _keep(os.path.join(self._work_dir, "values"), name, data)
        return (*row[:column], None, name, *row[column + 2 :])

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(what, *args)

    # In the event loop again.

    def _failed(self, acts: list[Act], error: JournalError) -> None:
        self.error = error
        with self._changed:
            acts += self._acts
            self._acts = []
        self.on_error(error)
        for act in acts:
            if act.dropped is not None:
                act.dropped()


def _statement(table: str, rows: int) -> str:
    row = f"({', '.join('?' * WIDTHS[table])})"
    values = ", ".join([row] * rows)
    if rows == 1:
        return f"{HOW[table]} INTO {table} VALUES {values}"
    return f"{HOW[table]} INTO {table} SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608  (our names)


_STATEMENTS = {(table, size): _statement(table, size) for table in WIDTHS for size in SIZES}


def _keep(directory: str, name: str, data: bytes) -> None:
    path = os.path.join(directory, name)
    with suppress(FileNotFoundError):
        if os.path.getsize(path) == len(data):
            return  # the same content: its name is its digest; a file that was cut off since is written again
    os.makedirs(directory, exist_ok=True)
    part = f"{path}.part"
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sentence(error: Exception) -> str:
    return f"it cannot be written: {str(error) or type(error).__name__}"


def _told(acts: list[Act]) -> None:
    for act in acts:
        if act.told is not None:
            act.told()


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _nothing() -> None:
    pass


def _ignore(error: JournalError) -> None:
    pass
