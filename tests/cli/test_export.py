"""`dispatch export`: every recorded outcome, in order, in a form that other programs read."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Recorded
from tests.cli.terminal import Typed, dispatch


def test_json_lines(recorded: Recorded) -> None:
    """The rows that `run --out` writes, with the run that settled them; values as JSON."""
    said = dispatch("export", recorded.path)
    assert said.code == 0, said.err
    good, bad, stuck, dead, five = said.lines
    assert {**good, "seconds": 0} == {
        "id": "good",
        "index": 0,
        "outcome": "done",
        "value": 0.5,
        "attempts": 1,
        "seconds": 0,
        "run": 1,
    }
    assert (bad["cause"], bad["attempts"], bad["fault"]["message"]) == ("raised", 2, "no 2")
    assert "do_run" in stuck["fault"]["stack"]
    assert dead["fault"]["exit_code"] == 7
    assert five["value"] == 2.5


def test_csv(recorded: Recorded, tmp_path: Path) -> None:
    """A line for each outcome under a header; with --payloads what was submitted too, as JSON."""
    out = tmp_path / "out.csv"
    said = dispatch("export", recorded.path, "--format", "csv", "--out", out, "--payloads")
    assert (said.code, said.out) == (0, ""), said.err
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["outcome"], row["cause"]) for row in rows] == [
        ("good", "done", ""),
        ("bad one", "failed", "raised"),
        ("stuck", "failed", "timed_out"),
        ("dead", "failed", "crashed"),
        ("5", "done", ""),
    ]
    assert (rows[0]["value"], rows[1]["type"], rows[1]["message"]) == ("0.5", "ValueError", "no 2")
    assert json.loads(rows[4]["payload"]) == {"number": 5, "id": "5"}
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    shown = dispatch("export", recorded.path, "--format", "csv").out
    assert [row["id"] for row in csv.DictReader(io.StringIO(shown))] == [row["id"] for row in rows]


def test_parquet(recorded: Recorded, tmp_path: Path) -> None:
    """With pyarrow a table with the same rows; without it a line that says how to get it, and exit code 2."""
    out = tmp_path / "out.parquet"
    said = dispatch("export", recorded.path, "--format", "parquet", "--out", out)
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        assert said.code == 2
        assert "it needs pyarrow: pip install pyarrow" in said.err
        assert list(tmp_path.iterdir()) == []
    else:
        assert said.code == 0, said.err
        rows = parquet.read_table(out).to_pylist()
        assert [row["id"] for row in rows] == ["good", "bad one", "stuck", "dead", "5"]


@pytest.mark.parametrize("arguments", [["--format", "parquet"], ["--format", "xml"]])
def test_usage(recorded: Recorded, arguments: list[str]) -> None:
    """A Parquet file needs a name, and other formats are unknown; exit code 2."""
    said = dispatch("export", recorded.path, *arguments)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_a_reader_that_leaves(recorded: Recorded) -> None:
    """`dispatch export | head -0` leaves no traceback."""
    typed = Typed("export", recorded.path)
    assert typed.process.stdout is not None
    typed.process.stdout.close()
    assert typed.process.stderr is not None
    with typed.process.stderr as stderr:
        assert "Traceback" not in stderr.read()
    assert typed.process.wait(20) == 1


def test_where_no_file_can_stand(recorded: Recorded, tmp_path: Path) -> None:
    """A directory and a missing folder are refused by their names; exit code 2. A device stays one."""
    for out in (tmp_path, tmp_path / "no" / "out"):
        said = dispatch("export", recorded.path, "--out", out)
        assert (said.code, str(out) in said.err) == (2, True)
    assert (
        dispatch("export", recorded.path, "--out", "/dev/stdout").out == dispatch("export", recorded.path).out
    )
    assert list(tmp_path.iterdir()) == []
