"""What was posted is written in groups, then told; after an error nothing is told any more."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dispatch.record.schema import connect_reader, connect_writer
from dispatch.record.writer import SIZES, Act, Writer
from tests.record.recorded import shard_act, started

pytestmark = pytest.mark.asyncio


def count(work_dir: Path, table: str = "shard") -> int:
    """Rows that another connection sees."""
    with closing(connect_reader(str(work_dir))) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def closed(writer: Writer) -> None:
    """Wait for its end."""
    writer.close()
    await asyncio.wait_for(writer.ended.wait(), 20)


async def told(writer: Writer, act: Act, **how: bool) -> None:
    """Post, and wait until it is told."""
    heard = asyncio.Event()
    act.told = heard.set
    writer.post(act, **how)
    await asyncio.wait_for(heard.wait(), 20)


@pytest.mark.parametrize("number", [1, SIZES[1], SIZES[-1] - 1, SIZES[-1] + 1, 3 * SIZES[-1]])
async def test_as_many_rows_as_were_posted(tmp_path: Path, number: int) -> None:
    """Rows are inserted many at a time, and none too many: what pads a statement is no row."""
    writer = await started(tmp_path)
    shards = [(n + 1, 1, 1, n, "", 0, b"d", b"p", None) for n in range(number)]
    outcomes = [(n + 1, 1, "done", "", 0.0, 1, b"v", None, None) for n in range(number)]
    attempts = [(n + 1, 1, 1, "r", 1, 0.0, 0.0, 0.0, "", None) for n in range(number)]
    await told(writer, Act(shards=shards, outcomes=outcomes, attempts=attempts))
    assert [count(tmp_path, table) for table in ("shard", "outcome", "attempt")] == [number] * 3
    await closed(writer)


async def test_the_last_outcome_stands_and_the_first_attempt(tmp_path: Path) -> None:
    """A second outcome of a shard replaces the first, an attempt that is written twice stays as it was."""
    writer = await started(tmp_path)
    for kind in ("failed", "done"):
        row = (1, 1, kind, "", 0.0, 1, None, None, None)
        attempt = (1, 1, 1, kind, 1, 0.0, 0.0, 0.0, "", None)
        await told(writer, Act(outcomes=[row], attempts=[attempt]))
    with closing(connect_reader(str(tmp_path))) as connection:
        assert connection.execute("SELECT kind FROM outcome").fetchall() == [("done",)]
        assert connection.execute("SELECT runner FROM attempt").fetchall() == [("failed",)]
    await closed(writer)


async def test_acts_are_told_in_their_order(tmp_path: Path) -> None:
    """Who posted first is told first, in the event loop, when the rows can be read by others."""
    writer = await started(tmp_path)
    heard: list[tuple[int, int]] = []
    for number in range(1, 200):

        def hear(number: int = number) -> None:
            heard.append((number, count(tmp_path)))

        writer.post(shard_act(number, told=hear))
        await asyncio.sleep(0)
    await closed(writer)
    assert [number for number, _ in heard] == list(range(1, 200))
    assert all(seen >= number for number, seen in heard)


async def test_closing_writes_what_was_posted(tmp_path: Path) -> None:
    """What was posted before `close` is written, what comes after is dropped."""
    writer = await started(tmp_path)
    writer.post(shard_act(1))
    writer.close()
    dropped: list[int] = []
    writer.post(shard_act(2, dropped=lambda: dropped.append(2)))
    await asyncio.wait_for(writer.ended.wait(), 20)
    assert (count(tmp_path), dropped) == (1, [2])


async def test_the_newest_flight_of_a_worker_stands(tmp_path: Path) -> None:
    """Of what a worker has in hand only the newest note is kept."""
    writer = await started(tmp_path)
    for turn in range(5):
        writer.post(Act(flights={1: (1, turn, 0.0, "r", 1, 1, b""), 2: (2, turn, 0.0, "r", 1, 1, b"")}))
    await closed(writer)
    with closing(connect_reader(str(tmp_path))) as connection:
        assert connection.execute("SELECT worker, turn FROM flight").fetchall() == [(1, 4), (2, 4)]


async def test_after_an_error_nothing_is_told(tmp_path: Path) -> None:
    """An error drops what was to be written with it and all that follows; the error comes first, and says where."""
    writer = await started(tmp_path)
    await told(writer, shard_act(1))
    heard: list[Any] = []
    writer.on_error = heard.append
    for number in (2, 1, 3):  # the second breaks the key
        writer.post(
            shard_act(number, told=lambda: heard.append("told"), dropped=lambda: heard.append("dropped"))
        )
    await asyncio.wait_for(writer.ended.wait(), 20)
    error, *rest = heard
    assert str(error).startswith(f"journal {tmp_path}/journal.db: it cannot be written: UNIQUE")
    assert rest == ["dropped"] * 3
    writer.post(shard_act(9, dropped=lambda: heard.append("late")))
    assert heard[-1] == "late"
    assert count(tmp_path) == 1


async def test_any_error_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is neither of SQLite's nor of the disk's: what was posted is dropped, and nobody waits for ever."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dispatch.record.writer._keep", fail)
    writer = await started(tmp_path)
    heard: list[Any] = []
    writer.on_error = heard.append
    writer.post(shard_act(1, b"x" * (1 << 21), large=True, dropped=lambda: heard.append("dropped")))
    await asyncio.wait_for(writer.ended.wait(), 20)
    error, *rest = heard
    assert str(error).endswith("it cannot be written: MemoryError")
    assert rest == ["dropped"]


async def test_what_fails_to_open_is_raised_where_it_is_awaited(tmp_path: Path) -> None:
    """An error of the opener's comes out of the future, and the thread is over."""

    def fail() -> tuple[sqlite3.Connection, None]:
        raise OSError("no such disk")

    ends: list[str] = []
    with pytest.raises(OSError, match="no such disk"):
        await started(tmp_path, opener=fail)
    loop = asyncio.get_running_loop()
    writer = Writer(str(tmp_path), loop)
    writer.on_end = lambda: ends.append("end")
    opened: asyncio.Future[Any] = loop.create_future()
    writer.start(opened, lambda: (connect_writer(str(tmp_path)), 7))
    assert await opened == 7
    await closed(writer)
    assert ends == ["end"]


async def test_large_blobs_go_to_files(tmp_path: Path) -> None:
    """A payload over 1 MiB stands in a file that is there before its row is; no half-written file is left."""
    writer = await started(tmp_path)
    for number in (1, 2):
        await told(writer, shard_act(number, b"x" * (1 << 21), large=True))
    await closed(writer)
    [file] = (tmp_path / "values").iterdir()
    assert file.read_bytes() == b"x" * (1 << 21)
    with closing(connect_reader(str(tmp_path))) as connection:
        rows = connection.execute("SELECT payload, payload_file FROM shard").fetchall()
    assert rows == [(None, file.name)] * 2


async def test_a_file_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    """What stands in a file that has not its size any more is no value: the file is replaced."""
    writer = await started(tmp_path)
    await told(writer, shard_act(1, b"x" * (1 << 21), large=True))
    [file] = (tmp_path / "values").iterdir()
    os.truncate(file, 1000)
    await told(writer, shard_act(2, b"x" * (1 << 21), large=True))
    await closed(writer)
    assert file.read_bytes() == b"x" * (1 << 21)
