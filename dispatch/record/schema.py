"""The tables of a recorded run, and how a connection to them is opened and checked.

    run       one row for each run; `state` is running, finished, interrupted or killed. A run that says running
              while nobody holds the lock was killed, and the next run notes it so
    shard     one row for each shard of a book, in the order in which they were read first. `position` is that
              order within the run `first_run`, `label` the id that was supplied ('': none), `digest` identifies the
              content, `lost` counts the times that its run was killed while it ran
    outcome   at most one row for each shard: the last word. `kind` is done, failed or cancelled, `cause` the
              fault's, `attempts` the number of the last one. A shard that runs again keeps its old row until the
              new one stands
    attempt   every execution, numbered from 1 across runs; `cause` is '' if it succeeded
    event     what is rare: workers that begin and end, drains; `body` is JSON
    flight    what each worker of a run that goes on has in hand
    outcomes  a view for people: shard and outcome in one row

A book is what runs with resume="done" or "all" go on writing; resume="none" begins the next one, so that the old
stands beside it. Times are wall time in seconds. Payloads, values and faults are msgpack; what is over INLINE bytes
stands in a file of `values/`, named by the digest of its content. Change a table, and raise VERSION.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import msgspec

from dispatch.terms.errors import JournalError
from dispatch.terms.outcome import Attempt, Fault

__all__ = ("INLINE", "attempt_of", "connect_reader", "connect_writer", "database", "fault_of", "read_blob")

APPLICATION = 0x44535043  # "DSPC": whose database this is, for `file` and for us
VERSION = 1
INLINE = 1024 * 1024  # bytes that a row holds; a larger payload or value gets a file of its own
PATIENCE = 10.0  # seconds that a reader or writer waits for another that is in its way

_TABLES = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY, book INTEGER NOT NULL, book_first INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    state TEXT NOT NULL, runners TEXT NOT NULL, shared BLOB, resume TEXT NOT NULL, drift TEXT NOT NULL,
    total INTEGER NOT NULL DEFAULT 0, reused INTEGER NOT NULL DEFAULT 0, twins INTEGER NOT NULL DEFAULT 0,
    host TEXT NOT NULL, pid INTEGER NOT NULL, argv TEXT NOT NULL, config TEXT NOT NULL, live TEXT);
CREATE TABLE shard (
    id INTEGER PRIMARY KEY, book INTEGER NOT NULL, first_run INTEGER NOT NULL, position INTEGER NOT NULL,
    label TEXT NOT NULL, lost INTEGER NOT NULL DEFAULT 0, digest BLOB NOT NULL, payload BLOB, payload_file TEXT);
CREATE INDEX shard_label ON shard (label) WHERE label <> '';
CREATE INDEX shard_lost ON shard (id) WHERE lost > 0;
CREATE TABLE outcome (
    shard INTEGER PRIMARY KEY, run INTEGER NOT NULL, kind TEXT NOT NULL, cause TEXT NOT NULL, at REAL NOT NULL,
    attempts INTEGER NOT NULL, value BLOB, value_file TEXT, fault BLOB);
CREATE TABLE attempt (
    shard INTEGER NOT NULL, number INTEGER NOT NULL, run INTEGER NOT NULL, runner TEXT NOT NULL, pid INTEGER NOT NULL,
    started_at REAL NOT NULL, seconds REAL NOT NULL, queued REAL NOT NULL, cause TEXT NOT NULL, fault BLOB,
    PRIMARY KEY (shard, number)) WITHOUT ROWID;
CREATE TABLE event (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE flight (
    worker INTEGER PRIMARY KEY, turn INTEGER NOT NULL, at REAL NOT NULL, runner TEXT NOT NULL, pid INTEGER NOT NULL,
    running INTEGER NOT NULL, shards BLOB NOT NULL);
CREATE VIEW outcomes AS
    SELECT shard.id AS shard, shard.book, iif(label = '', CAST(position AS TEXT), label) AS name, position,
        coalesce(kind, '') AS kind, coalesce(cause, '') AS cause, run, datetime(at, 'unixepoch') AS at,
        coalesce(attempts, 0) AS attempts, lost, hex(digest) AS digest
    FROM shard LEFT JOIN outcome ON outcome.shard = shard.id;
"""


def database(work_dir: str) -> str:
    """Where the database of a work_dir stands."""
    return os.path.join(work_dir, "journal.db")


def connect_writer(work_dir: str) -> sqlite3.Connection:
    """The one connection that writes, with the tables in place. Begins and ends no transaction by itself.

    Raises JournalError if the directory cannot be written, or the database is not ours or newer than we are.
    """
    path = database(work_dir)
    with _connecting(path) as connection:
        if not _check(connection, path):
            connection.execute("PRAGMA journal_mode = WAL")
            with connection:
                connection.executescript(
                    f"BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
                    f"{_TABLES} COMMIT;"
                )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _connecting(path: str, *, sealed: bool = False) -> Generator[sqlite3.Connection]:
    """A new connection. What goes wrong in the block closes it; what SQLite says is a JournalError."""
    name = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1" if sealed else path
    connection = None
    try:
        connection = sqlite3.connect(
            name, uri=sealed, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        yield connection
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise JournalError(path, str(error)) from error
        raise


def connect_reader(work_dir: str) -> sqlite3.Connection:
    """A connection that reads. Raises JournalError if there is no journal, or it is not ours or newer."""
    path = database(work_dir)
    if not os.path.isfile(path):
        raise JournalError(path, "there is no journal here")
    # A reader of a write-ahead log writes beside it, which a read-only medium refuses. Without
    # a log nobody writes: then the file may be read as one that never changes.
    sealed = not os.path.exists(f"{path}-wal") and not os.access(os.path.dirname(path) or ".", os.W_OK)
    with _connecting(path, sealed=sealed) as connection:
        if not _check(connection, path):
            raise JournalError(path, "there is no journal here")
        connection.execute("PRAGMA query_only = ON")
    return connection


def read_blob(work_dir: str, inline: bytes | None, file: str | None) -> bytes | None:
    """A payload or a value from its row, or from the file that the row names. Raises JournalError if that is gone."""
    if file is None:
        return inline
    path = os.path.join(work_dir, "values", file)
    try:
        with open(path, "rb") as found:
            return found.read()
    except OSError as error:
        raise JournalError(path, str(error)) from error


def fault_of(data: bytes | None) -> Fault | None:
    """A fault from its column."""
    return None if data is None else msgspec.msgpack.decode(data, type=Fault)


def attempt_of(*columns: Any) -> Attempt:
    """An attempt from its columns runner, pid, started_at, seconds, queued and fault."""
    runner, pid, started_at, seconds, queued, fault = columns
    return Attempt(
        runner=runner,
        pid=pid,
        started_at=started_at,
        seconds=seconds,
        queued=queued,
        fault=fault_of(fault),
    )


def _check(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the tables are there. Raises JournalError if others are, or newer ones."""
    application, version, tables = (
        _number(connection, question)
        for question in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_master",
        )
    )
    if application == APPLICATION and version > VERSION:
        problem = f"it was written by a newer dispatch (schema {version}, this one reads {VERSION})"
        raise JournalError(path, problem)
    if application != APPLICATION and (application or version or tables):
        raise JournalError(path, "it is a database, but not a journal of dispatch")
    return application == APPLICATION


def _number(connection: sqlite3.Connection, question: str) -> int:
    with closing(connection.execute(question)) as found:
        return int(found.fetchone()[0])
