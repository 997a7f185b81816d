"""A journal made by hand, for tests of what reads it."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from dispatch.record.schema import connect_writer
from dispatch.record.writer import Act, Writer
from dispatch.terms.outcome import Fault


def digest_of(payload: object) -> bytes:
    """What identifies a payload."""
    return blake2b(msgspec.msgpack.encode(payload), digest_size=16).digest()


@contextmanager
def writing(work_dir: Path) -> Iterator[sqlite3.Connection]:
    """The tables, to be filled by hand."""
    work_dir.mkdir(exist_ok=True)
    with closing(connect_writer(str(work_dir))) as connection:
        yield connection


def add_run(
    connection: sqlite3.Connection, *, book: int = 1, first: int = 1, state: str = "finished"
) -> None:
    """One run."""
    connection.execute(
        "INSERT INTO run (book, book_first, started_at, state, runners, resume, drift, host, pid, argv, config)"
        " VALUES (?, ?, 0, ?, '{}', 'done', '', 'box', 1, '[]', '{}')",
        (book, first, state),
    )


def add_shard(
    connection: sqlite3.Connection,
    payload: Any,
    *,
    kind: str = "done",
    value: Any = None,
    label: str = "",
    book: int = 1,
) -> int:
    """One shard with its outcome; its row id."""
    number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM shard").fetchone()[0]
    data = msgspec.msgpack.encode(payload)
    connection.execute(
        "INSERT INTO shard VALUES (?, ?, 1, ?, ?, 0, ?, ?, NULL)",
        (number, book, number - 1, label, digest_of(payload), data),
    )
    fault = Fault(cause="raised", type="ValueError", message="no") if kind == "failed" else None
    if kind:
        connection.execute(
            "INSERT INTO outcome VALUES (?, 1, ?, ?, 1.0, 1, ?, NULL, ?)",
            (
                number,
                kind,
                fault.cause if fault else "",
                msgspec.msgpack.encode(value) if kind == "done" else None,
                msgspec.msgpack.encode(fault) if fault else None,
            ),
        )
        connection.execute(
            "INSERT INTO attempt VALUES (?, 1, 1, 'double', 412, 5.0, 0.25, 0.5, ?, ?)",
            (number, fault.cause if fault else "", msgspec.msgpack.encode(fault) if fault else None),
        )
    return int(number)


async def started(work_dir: Path, *, opener: Callable[[], Any] | None = None) -> Writer:
    """A writer that is open."""
    work_dir.mkdir(exist_ok=True)
    loop = asyncio.get_running_loop()
    writer = Writer(str(work_dir), loop)
    opened: asyncio.Future[Any] = loop.create_future()
    writer.start(opened, opener or (lambda: (connect_writer(str(work_dir)), None)))
    await opened
    return writer


def shard_act(number: int, payload: bytes = b"\xc0", **more: Any) -> Act:
    """One shard to be written."""
    return Act(shards=[(number, 1, 1, number - 1, "", 0, b"d", payload, None)], **more)
