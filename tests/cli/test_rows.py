"""Rows of JSON: every value has one, in input order, in a file that is whole or not there."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from dispatch import Attempt, Cancelled, Done, Failed, Fault
from dispatch.cli import rows
from dispatch.terms.errors import ConfigError
from dispatch.terms.shard import Entry, Origin

ORIGIN = Origin(0, msgspec.msgpack.decode)


class Model(pydantic.BaseModel):
    """A value of pydantic's."""

    n: int


def attempt(fault: Fault | None = None) -> Attempt:
    """A quarter of a second."""
    return Attempt(runner="R", pid=1, started_at=0.0, seconds=0.25, queued=0.0, fault=fault)


def told(outcome: Any) -> dict[str, Any]:
    """The row as another program reads it."""
    return json.loads(rows.encode(rows.row(outcome)))


def test_a_row_of_each_kind() -> None:
    """A row says which shard, what became of it, its value or its fault, and what that took."""
    fault = Fault(cause="crashed", message="gone", exit_code=7, output="last words")
    entry = Entry(4, b"\x01", ORIGIN, id="q4", history=(attempt(fault), attempt(fault)))
    common = {"id": "q4", "index": 4, "attempts": 2, "seconds": 0.5, "reused": False}
    assert told(Done(value=[1, None], entry=entry)) == {**common, "outcome": "done", "value": [1, None]}
    assert told(Failed(fault=fault, entry=entry)) == {
        **common,
        "outcome": "failed",
        "cause": "crashed",
        "fault": {"message": "gone", "output": "last words", "exit_code": 7},
    }
    assert told(Cancelled(entry=entry)) == {**common, "outcome": "cancelled"}


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Model(n=1), {"n": 1}),
        (float("nan"), None),
        (b"\x00\xff", "AP8="),
        (memoryview(b"\x00"), "AA=="),
        ({1: (2, {3})}, {"1": [2, [3]]}),
    ],
)
def test_values_beyond_json(value: Any, read: Any) -> None:
    """Models are dicts, bytes base64, not-a-number null, tuples and sets lists, numbers as keys text."""
    assert told(Done(value=value, entry=Entry(0, b"", ORIGIN)))["value"] == read


def test_a_value_that_json_cannot_hold() -> None:
    """It is told as text: no value can end a run, or leave a row out."""
    row = told(Done(value={(1, 2): object}, entry=Entry(0, b"", ORIGIN)))
    assert row["value"] is None
    assert row["value_repr"] == "{(1, 2): <class 'object'>}"
    assert rows.as_text({(1, 2): 3}) == "{(1, 2): 3}"


class Loss(msgspec.Struct):
    """A value with a float in it."""

    loss: float


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), {"a": [1, (float("nan"), None)]}, Loss(float("inf"))]
)
def test_a_float_that_json_has_no_number_for(value: Any) -> None:
    """Null stands for it, as JSON has it, and the text says what it was."""
    assert told(Done(value=value, entry=Entry(0, b"", ORIGIN)))["value_repr"] == repr(value)
    assert rows.as_text(value) == repr(value)


@pytest.mark.parametrize("value", [None, [None, 1.5], "null", {"a": Model(n=1), "b": None}])
def test_null_is_null(value: Any) -> None:
    """What is None needs no text."""
    assert "value_repr" not in told(Done(value=value, entry=Entry(0, b"", ORIGIN)))


def test_rows_are_written_in_input_order(tmp_path: Path) -> None:
    """Whatever the order in which they came; nothing else is left beside the file."""
    path = tmp_path / "out.jsonl"
    kept = rows.Rows(str(path))
    for index in (3, 0, 2, 1):
        kept.add(index, b"%d\n" % index * (index + 1))
    assert list(tmp_path.iterdir()) == []
    kept.write()
    assert path.read_text() == "0\n1\n1\n2\n2\n2\n3\n3\n3\n3\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is found before anything runs."""
    with pytest.raises(ConfigError, match="No such file"):
        rows.Rows(str(tmp_path / "missing" / "out.jsonl"))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """The old file stands until the new one is complete; what fails leaves the old one and no rest."""
    path = tmp_path / "out"
    path.write_text("old")
    with rows.replacing(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), rows.replacing(str(path)) as file:
        file.write(b"newer")
        _ = 1 / 0
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_rights_that_files_get(tmp_path: Path) -> None:
    """As `open` would give them, by the umask, which stays as it was."""
    before = os.umask(0o027)
    try:
        with rows.replacing(str(tmp_path / "out")) as file:
            file.write(b"x")
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    """Also where the target is not there yet."""
    (tmp_path / "far").mkdir()
    link = tmp_path / "out"
    link.symlink_to("far/out")
    for text in (b"1\n", b"2\n"):
        kept = rows.Rows(str(link))
        kept.add(0, text)
        kept.write()
        assert (tmp_path / "far" / "out").read_bytes() == text
    assert link.is_symlink()
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["out"]


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    """What is no regular file is never replaced by one."""
    path = tmp_path / "out"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        kept = rows.Rows(str(path))
        kept.add(1, b"b\n")
        kept.add(0, b"a\n")
        kept.write()
        assert os.read(reader, 100) == b"a\nb\n"
    finally:
        os.close(reader)
    assert path.is_fifo()


def test_where_no_file_can_stand(tmp_path: Path) -> None:
    """A directory, a missing folder and the file of shards are refused; a device may be both."""
    shards = tmp_path / "in.jsonl"
    shards.touch()
    (tmp_path / "link").symlink_to(shards)
    for path, says in (
        (tmp_path, "it is a directory"),
        (tmp_path / "no" / "out", f"there is no folder {tmp_path / 'no'}"),
        (shards, "it is the file of --shards"),
        (tmp_path / "link", "it is the file of --shards"),
    ):
        with pytest.raises(ConfigError, match=says):
            rows.check_out(str(path), source=str(shards))
    rows.check_out(str(tmp_path / "out"), source=str(shards))
    rows.check_out(os.devnull, source=os.devnull)
