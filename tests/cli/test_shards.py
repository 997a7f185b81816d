"""Shards from files: every format, bad lines by their number, and two passes over what can be read once."""

import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig, Shard
from dispatch.center.fitting import Fitting
from dispatch.cli.shards import ShardFile
from dispatch.terms.errors import ConfigError
from tests.cli.targets import Grader, Sample, anything, double

GRADED = Fitting(DataParallelDispatchCenter(Grader))
ANY = Fitting(DataParallelDispatchCenter(anything))


@pytest.fixture(name="checked")
def _checked() -> Iterator[Any]:
    """Opens files and reads them once; closes them after the test."""
    files: list[ShardFile] = []

    def checked(path: object, fitting: Fitting = ANY, **options: Any) -> ShardFile:
        files.append(ShardFile(str(path), fitting, **options))
        files[-1].check()
        return files[-1]

    yield checked
    for file in files:
        file.close()


def bad(file: ShardFile) -> list[tuple[int, str]]:
    """The bad lines by number."""
    return [(line.line, line.problem) for line in file.shown]


def test_json_lines(tmp_path: Path, checked: Any) -> None:
    """Each line is a payload; empty lines are none, and a file may be read again and again."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"number": 1}\n\n  \n[2, "x"]\n3')
    file = checked(path)
    assert (file.total, file.bad) == (3, 0)
    assert list(file) == list(file) == [{"number": 1}, [2, "x"], 3]


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.csv.gz"])
def test_gzipped(tmp_path: Path, name: str, checked: Any) -> None:
    """A .gz is read through gzip, each time it is read."""
    path = tmp_path / name
    with gzip.open(path, "wt") as file:
        file.write("number\n5\n" if "csv" in name else '{"number": "5"}\n')
    found = checked(path)
    assert (found.total, found.bad) == (1, 0)
    assert list(found) == list(found) == [{"number": "5"}]


def test_a_gzip_that_was_cut_off(tmp_path: Path, checked: Any) -> None:
    """What cannot be unpacked is a bad line, with the file's name; what came before it is read."""
    path = tmp_path / "data.jsonl.gz"
    whole = gzip.compress(b"1\n" + os.urandom(100_000).hex().encode())
    path.write_bytes(whole[: len(whole) // 2])
    file = checked(path)
    assert file.bad == 1
    assert str(file.shown[0]).startswith(f"{path}:")
    assert "cannot be read from here on" in file.shown[0].problem
    assert file.broken


def test_csv_becomes_what_the_runner_takes(tmp_path: Path, checked: Any) -> None:
    """Cells are text, and numbers where the annotation wants them; quoted newlines and a byte-order mark are read."""
    path = tmp_path / "data.csv"
    path.write_text('\ufeffnumber,how\n1,halve\n2,"two\nlines"\n')
    assert list(checked(path, GRADED)) == [Sample(1), Sample(2, "two\nlines")]
    assert list(checked(path)) == [{"number": "1", "how": "halve"}, {"number": "2", "how": "two\nlines"}]


def test_bad_lines_of_csv(tmp_path: Path, checked: Any) -> None:
    """Cells that do not fit, and lines with more or fewer of them, are told by their line in the file."""
    path = tmp_path / "data.csv"
    path.write_text('number,how\n1,halve\none,halve\n2,"a\nb"\n3\n4,x,y\n')
    file = checked(path, GRADED)
    assert (file.total, file.bad) == (2, 3)
    assert [number for number, _ in bad(file)] == [3, 6, 7]
    assert "Expected `int`, got `str`" in bad(file)[0][1]
    assert "names 2 columns" in bad(file)[1][1]


@pytest.mark.parametrize("data", [b"", b"a,a\n1,2\n", b"a,\xff\n1,2\n"])
def test_csv_needs_a_header(tmp_path: Path, data: bytes, checked: Any) -> None:
    """In an empty file, or where two columns have one name or one has none, nothing can be read."""
    path = tmp_path / "data.csv"
    path.write_bytes(data)
    file = checked(path)
    assert bad(file) == [(1, "the first line must name the columns, each by its own name")]
    assert file.broken


def test_a_byte_that_is_no_text(tmp_path: Path, checked: Any) -> None:
    """It makes its own line bad, and no other."""
    path = tmp_path / "data.csv"
    path.write_bytes(b"number,how\n1,halve\n2,\xff\n3,\xc3\xa4\n4,halve\n")
    file = checked(path, GRADED)
    assert bad(file) == [(3, "not text in UTF-8")]
    assert not file.broken
    assert list(file) == [Sample(1), Sample(3, "ä"), Sample(4)]


def test_a_long_cell(tmp_path: Path, checked: Any) -> None:
    """A cell may be as long as a line of JSON."""
    path = tmp_path / "data.csv"
    path.write_text(f"number,how\n1,{'x' * 200_000}\n")
    assert checked(path, GRADED).bad == 0


def test_a_quote_that_is_never_closed(tmp_path: Path, checked: Any) -> None:
    """It takes the rest of the file with it, which is said."""
    path = tmp_path / "data.csv"
    path.write_text('number,how\n1,halve\n2,"halve\n3,halve\n')
    file = checked(path, GRADED)
    assert (file.total, file.bad, file.broken) == (1, 1, True)
    assert bad(file)[0][1].startswith("cannot be read from here on")


def test_bad_lines_of_json(tmp_path: Path, checked: Any) -> None:
    """What is no JSON, is no text, or does not fit the runner's annotation is told by number, and left out."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"number": 1}\nnot json\n\xff\xfe\n{"number": "x"}\n{"how": "halve"}\n{"number": 2}\n')
    file = checked(path, GRADED)
    assert (file.total, file.bad) == (2, 4)
    assert [number for number, _ in bad(file)] == [2, 3, 4, 5]
    assert bad(file)[0][1].startswith("not JSON: ")
    assert "Expected `int`, got `str` - at `$.number`" in bad(file)[2][1]
    assert "missing required field `number`" in bad(file)[3][1]
    assert list(file) == [{"number": 1}, {"number": 2}]


def test_only_the_first_bad_lines_are_kept(tmp_path: Path, checked: Any) -> None:
    """All are counted; memory does not grow with their number."""
    path = tmp_path / "data.jsonl"
    path.write_text("x\n" * 1000)
    file = checked(path)
    assert (file.bad, len(file.shown)) == (1000, 10)


def test_ids_from_a_field(tmp_path: Path, checked: Any) -> None:
    """A field may hold each shard's id; where it is missing, or stands further up, the line is bad."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"q": "a"}\n{"q": 7}\n{"other": 1}\n5\n{"q": true}\n{"q": ""}\n')
    file = checked(path, id_field="q")
    assert [(shard.id, shard.payload) for shard in file if isinstance(shard, Shard)] == [
        ("a", {"q": "a"}),
        ("7", {"q": 7}),
    ]
    assert [number for number, _ in bad(file)] == [3, 4, 5, 6]
    path.write_text('{"q": "a"}\n{"q": "b"}\n{"q": "a", "n": 1}\n\n{"q": "a"}\n')
    file = checked(path, id_field="q")
    assert bad(file) == [(3, "id 'a' stands on line 1 too"), (5, "id 'a' stands on line 1 too")]
    assert [shard.id for shard in file] == ["a", "b"]
    assert file.total == 2
    table = tmp_path / "data.csv"
    table.write_text("number,how\n1,halve\n")
    assert [shard.id for shard in checked(table, GRADED, id_field="number")] == ["1"]


def test_standard_input_is_read_twice(monkeypatch: pytest.MonkeyPatch, checked: Any) -> None:
    """Standard input is copied, so that all of it is checked before anything runs."""
    text = "".join(f"{json.dumps(n)}\n" for n in range(1000))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    file = checked("-", Fitting(DataParallelDispatchCenter(double)))
    assert file.total == 1000
    assert list(file) == list(range(1000))


def test_a_pipe_is_read_twice(tmp_path: Path, checked: Any) -> None:
    """So is a pipe with a name."""
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text("1\nx\n2\n"))
    writer.start()
    file = checked(path)
    writer.join()
    assert (file.total, bad(file)[0][0]) == (2, 2)
    assert list(file) == [1, 2]


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing.jsonl", "No such file"), ("data.xlsx", ".jsonl or .csv"), (".", ".jsonl or .csv")],
)
def test_what_is_no_file_of_shards(tmp_path: Path, name: str, says: str) -> None:
    """A missing file, or an unknown ending, is an error that names it."""
    with pytest.raises(ConfigError, match=says):
        ShardFile(str(tmp_path / name), ANY)


def test_a_line_that_is_too_big_is_bad(tmp_path: Path, checked: Any) -> None:
    """A payload over max_value_bytes is found before anything runs."""
    path = tmp_path / "data.jsonl"
    path.write_text('"x"\n"' + "x" * 1000 + '"\n')
    center = DataParallelDispatchCenter(anything, config=DispatchConfig(max_value_bytes=500))
    file = checked(path, Fitting(center))
    assert file.total == 1
    assert "over max_value_bytes=500" in bad(file)[0][1]
