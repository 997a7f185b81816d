"""A database is opened if it is ours, and left as it was if not."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from dispatch.record import schema
from dispatch.record.schema import connect_reader, connect_writer, read_blob
from dispatch.terms.errors import JournalError


def test_the_tables_are_those_of_the_law() -> None:
    """Every table and view stands in the file's docstring, which is what people read."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema._TABLES)
        names = {
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            )
        }
    drawn = {
        line.split()[0]
        for line in (schema.__doc__ or "").splitlines()
        if line[:4] == "    " and line[4] != " "
    }
    assert names == drawn


def test_it_is_durable(tmp_path: Path) -> None:
    """WAL, and every commit is synchronised; opening again changes nothing."""
    for _ in range(2):
        with closing(connect_writer(str(tmp_path))) as connection:
            pragmas = [
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
            ]
            assert pragmas == ["wal", 2]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """What is opened for reading changes nothing."""
    connect_writer(str(tmp_path)).close()
    with closing(connect_reader(str(tmp_path))) as connection, pytest.raises(sqlite3.Error, match="readonly"):
        connection.execute("DELETE FROM run")


def test_a_directory_that_may_only_be_read(tmp_path: Path) -> None:
    """The record of a run that has ended is read there, whatever the name of the directory."""
    open_to_all = Path(tempfile.mkdtemp(dir="/tmp"))  # the folders above tmp_path are closed to other users
    work_dir = open_to_all / "50%41 #?"
    work_dir.mkdir()
    connect_writer(str(work_dir)).close()
    for folder in (open_to_all, work_dir):
        folder.chmod(0o555)
    user = os.getuid()
    try:
        if user == 0:  # who may write everywhere
            os.setresuid(65534, 65534, 0)
        with closing(connect_reader(str(work_dir))) as connection:
            assert connection.execute("SELECT count(*) FROM shard").fetchone() == (0,)
    finally:
        if user == 0:
            os.setresuid(0, 0, 0)
        for folder in (open_to_all, work_dir):
            folder.chmod(0o755)
        shutil.rmtree(open_to_all)


@pytest.mark.parametrize("connect", [connect_reader, connect_writer])
@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ("CREATE TABLE mine (x)", "not a journal of dispatch"),
        ("PRAGMA application_id = 7", "not a journal of dispatch"),
        (
            f"PRAGMA application_id = {schema.APPLICATION}; PRAGMA user_version = 99",
            "newer dispatch .schema 99, this",
        ),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, connect: object, statements: str, says: str) -> None:
    """Another program's database, or one of a newer dispatch, is refused by reader and writer."""
    with closing(sqlite3.connect(tmp_path / "journal.db")) as other:
        other.executescript(statements)
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(JournalError, match=says):
        connect(str(tmp_path))  # type: ignore[operator]
    assert (tmp_path / "journal.db").read_bytes() == before


def test_no_database_at_all(tmp_path: Path) -> None:
    """Garbage, and a directory that is not there, are JournalErrors."""
    with pytest.raises(JournalError, match="unable to open"):
        connect_writer(str(tmp_path / "nowhere"))
    (tmp_path / "journal.db").write_bytes(b"garbage" * 1000)
    for connect in (connect_reader, connect_writer):
        with pytest.raises(JournalError, match="not a database"):
            connect(str(tmp_path))


def test_a_blob_whose_file_is_gone(tmp_path: Path) -> None:
    """A value that should stand in a file, and does not, is an error that names the file."""
    assert read_blob(str(tmp_path), b"inline", None) == b"inline"
    with pytest.raises(JournalError, match="values/abc"):
        read_blob(str(tmp_path), None, "abc")
