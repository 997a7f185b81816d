"""One run in its record: whoever opens it owns the work_dir until it is closed. Bytes only; who asks knows codecs.

Opening takes the lock, refuses what has drifted, and notes what was running when the run before was killed. Then
`recall` says what is known of a shard, and `writer` writes. A shard's row id is given here, before it is written,
so that its outcome can follow it into the queue.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from array import array
from typing import Any, Literal

import msgspec
from msgspec import Struct

from dispatch.record.archive import Live
from dispatch.record.lock import Lock
from dispatch.record.recall import Recall
from dispatch.record.schema import connect_writer, database
from dispatch.record.writer import Act, Writer
from dispatch.terms.errors import JournalError, RunDrifted
from dispatch.terms.outcome import Fault

__all__ = ("Book", "Identity", "Journal")

Resume = Literal["done", "all", "none"]
LOST = Fault(cause="lost", message="its run was killed while it ran")


class Identity(Struct, frozen=True, kw_only=True):
    """What outcomes depend on beside their shards: runners' versions, the shared param's digest."""

    runners: dict[str, str]
    shared: bytes | None

    def changes(self, before: Identity) -> dict[str, tuple[str, str]]:
        """What differs from the run before: what it was, what it is."""
        changes: dict[str, tuple[str, str]] = {}
        if self.runners.keys() != before.runners.keys():
            changes["the runner"] = (", ".join(sorted(before.runners)), ", ".join(sorted(self.runners)))
        for name in sorted(self.runners.keys() & before.runners.keys()):
            if self.runners[name] != before.runners[name]:
                changes[f"{name}.version"] = (repr(before.runners[name]), repr(self.runners[name]))
        if self.shared != before.shared:
            changes["the shared param"] = (_short(before.shared), _short(self.shared))
        return changes


class Book(Struct, frozen=True, kw_only=True):
    """What a run writes into: its own number, its book, and the shards that the book has."""

    run: int
    number: int
    first: int
    last: int
    twins: bool


class Journal:
    """The record of one run. Made by `open`; to be used in one event loop."""

    def __init__(self, work_dir: str, book: Book, writer: Writer) -> None:
        self.path = database(work_dir)
        self.book, self.run = book, book.run
        self.writer = writer
        self._next = book.last + 1
        self.recall = Recall(work_dir, first=book.first, last=book.last, twins=book.twins)

    @classmethod
    async def open(
        cls,
        work_dir: str,
        identity: Identity,
        *,
        resume: Resume,
        allow_drift: bool,
        config: dict[str, Any],
    ) -> Journal:
        """Own the work_dir and begin a run.

        Raises WorkDirOccupied if another run has it, RunDrifted if the runner or the shared param is another than
        before, JournalError if the database cannot be written, is not ours, or newer than we are. Cancelling leaves
        nothing open.
        """
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Book] = loop.create_future()
        writer = Writer(work_dir, loop)
        opener = _Opener(work_dir, identity, resume=resume, allow_drift=allow_drift, config=config)
        writer.on_end = opener.leave
        writer.start(opened, opener.open)
        try:
            return cls(work_dir, await opened, writer)
        except BaseException:
            over = "UPDATE run SET state = 'interrupted', ended_at = ? WHERE state = 'running'"
            writer.post(Act(others=[(over, (time.time(),))]))  # of no effect where nothing was begun
            writer.close()
            raise

    def new_rows(self, number: int) -> int:
        """The first of so many row ids for new shards."""
        first = self._next
        self._next += number
        return first

    def live(self, live: Live) -> Act:
        """To be written: how far the run is."""
        values = (msgspec.json.encode(live).decode(), live.total, live.reused, self.run)
        return Act(others=[("UPDATE run SET live = ?, total = ?, reused = ? WHERE id = ?", values)])

    def event(self, kind: str, body: Any, at: float) -> Act:
        """To be written: something rare."""
        values = (self.run, at, kind, msgspec.json.encode(body).decode())
        return Act(others=[("INSERT INTO event (run, at, kind, body) VALUES (?, ?, ?, ?)", values)])

    def twins(self) -> Act:
        """To be written: two shards of the book have the same label."""
        return Act(others=[("UPDATE run SET twins = 1 WHERE id = ?", (self.run,))])

    async def close(self, *, state: Literal["finished", "interrupted"]) -> None:
        """Write what was posted and how the run ended, and leave the work_dir. Raises JournalError if that fails."""
        self.recall.close()
        end = ("UPDATE run SET state = ?, ended_at = ? WHERE id = ?", (state, time.time(), self.run))
        clear = ("DELETE FROM flight", ())
        self.writer.post(Act(others=[end, clear]), urgent=True)
        self.writer.close()
        await self.writer.ended.wait()
        if self.writer.error is not None:
            raise self.writer.error


class _Opener:
    """What the writing thread does first."""

    def __init__(
        self, work_dir: str, identity: Identity, *, resume: Resume, allow_drift: bool, config: dict[str, Any]
    ) -> None:
        self._work_dir, self._identity, self._resume = work_dir, identity, resume
        self._allow_drift, self._config = allow_drift, config
        self._lock: Lock | None = None

    def leave(self) -> None:
        """Let another have the work_dir."""
        if self._lock is not None:
            self._lock.release()

    def open(self) -> tuple[sqlite3.Connection, Book]:
        self._lock = Lock(self._work_dir)
        connection = connect_writer(self._work_dir)
        try:
            connection.execute("BEGIN IMMEDIATE")
            book = self._begin(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise JournalError(database(self._work_dir), str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection, book

    def _begin(self, connection: sqlite3.Connection) -> Book:
        assert self._lock is not None
        before = connection.execute(
            "SELECT id, book, book_first, state, runners, shared FROM run ORDER BY id DESC LIMIT 1"
        ).fetchone()
        last = connection.execute("SELECT coalesce(max(id), 0) FROM shard").fetchone()[0]
        number, first, drift = 1, 1, ""
        if before is not None:
            run, number, first, state, runners, shared = before
            if state == "running":
                _note_lost(connection, run)
            if self._resume == "none":
                number, first = number + 1, last + 1
            else:
                drift = self._drift(Identity(runners=json.loads(runners), shared=shared))
        connection.execute("DELETE FROM flight")
        twins = connection.execute("SELECT coalesce(max(twins), 0) FROM run WHERE book = ?", (number,))
        has_twins = bool(twins.fetchone()[0])
        owner = self._lock.owner
        row = {
            "book": number,
            "book_first": first,
            "started_at": owner.started_at,
            "state": "running",
            "runners": json.dumps(self._identity.runners),
            "shared": self._identity.shared,
            "resume": self._resume,
            "drift": drift,
            "host": owner.host,
            "pid": os.getpid(),
            "argv": json.dumps(sys.orig_argv),
            "config": json.dumps(self._config),
        }
        made = connection.execute(
            f"INSERT INTO run ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608  (names of ours)
            tuple(row.values()),
        )
        return Book(run=int(made.lastrowid or 0), number=number, first=first, last=last, twins=has_twins)

    def _drift(self, before: Identity) -> str:
        """What has changed, where that is allowed. Raises RunDrifted where not."""
        changes = self._identity.changes(before)
        if changes and not self._allow_drift:
            raise RunDrifted(self._work_dir, changes)
        return "; ".join(f"{what} was {old}, now {new}" for what, (old, new) in changes.items())


def _note_lost(connection: sqlite3.Connection, run: int) -> None:
    """A run was killed: what its workers ran then is lost. Each ran the first of what it had in hand."""
    connection.execute("UPDATE run SET state = 'killed' WHERE id = ?", (run,))
    given: set[int] = set()
    for at, runner, pid, running, blob in connection.execute(
        "SELECT at, runner, pid, running, shards FROM flight ORDER BY turn DESC"
    ).fetchall():
        for shard in array("q", blob):
            if not running:
                break
            settled = connection.execute(
                "SELECT 1 FROM outcome WHERE shard = ? AND run = ?", (shard, run)
            ).fetchone()
            if settled or shard in given:
                continue
            running -= 1  # noqa: PLW2901  (counted down)
            number = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 FROM attempt WHERE shard = ?", (shard,)
            ).fetchone()[0]
            connection.execute(
                "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, 0, 0, 'lost', ?)",
                (shard, number, run, runner, pid, at, msgspec.msgpack.encode(LOST)),
            )
            connection.execute("UPDATE shard SET lost = lost + 1 WHERE id = ?", (shard,))
        given.update(array("q", blob))  # later frames are newer: what stands there, was not here any more


def _short(digest: bytes | None) -> str:
    return "none" if digest is None else digest.hex()[:12]
