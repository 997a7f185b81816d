"""`dispatch status`: a live, a finished, an interrupted and a killed run, each said to be what it is."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dispatch.cli.status import find_work_dir
from dispatch.terms.errors import ConfigError
from tests.center.facts import until_true
from tests.cli.conftest import Going, Recorded
from tests.cli.terminal import TARGETS, Typed, dispatch


def told(work_dir: object) -> dict[str, Any]:
    """One look, as JSON."""
    said = dispatch("status", work_dir, "--json")
    assert said.code == 0, said.err
    return said.lines[0]


def test_a_run_that_goes_on(going: Going) -> None:
    """It is running: with its process, its counts, what each worker does and for how long."""
    seen = until_true(lambda: (now := told(going.work_dir))["workers"][0]["shard_id"] == "10" and now)
    assert seen["state"] == "running"
    assert seen["run"]["pid"] == going.typed.process.pid
    assert (seen["total"], seen["total_known"], seen["counts"]) == (50, True, {"done": 10})
    worker = seen["workers"][0]
    assert (worker["runner"], worker["shard_id"]) == ("Grader", "10")
    assert worker["seconds"] > 0
    said = dispatch("status", going.work_dir)
    assert f"{going.work_dir} is running since " in " ".join(said.out.split()).replace(
        " is running ", " is running "
    )
    assert "10/50" in said.out
    assert str(worker["pid"]) in said.out


def test_a_run_that_was_killed(going: Going) -> None:
    """It is killed, with what had been recorded, and the command that resumes; that command finishes it."""
    os.killpg(going.typed.process.pid, signal.SIGKILL)
    going.typed.process.wait(20)
    seen = told(going.work_dir)
    assert seen["state"] == "killed"
    assert seen["counts"] == {"done": 10}
    assert (seen["workers"], seen["left"]) == ([], None)
    said = dispatch("status", going.work_dir)
    assert "resume    python -m dispatch run tests.cli.targets:Grader --shards " in said.out
    going.open()
    again = dispatch(*going.arguments)
    assert again.code == 0, again.err
    assert told(going.work_dir)["counts"] == {"done": 50}


def test_a_run_that_was_interrupted_and_resumed(going: Going) -> None:
    """Ctrl-C tells the command that resumes; the second run reuses what was done, and says so."""
    going.typed.interrupt()
    until_true(lambda: told(going.work_dir)["counts"].get("cancelled") == 39)
    going.open()
    said = going.typed.ended()
    assert said.code == 130, said.err
    assert "resume    python -m dispatch run tests.cli.targets:Grader --shards " in said.out
    seen = told(going.work_dir)
    assert seen["state"] == "interrupted"
    assert seen["counts"] == {"done": 11, "cancelled": 39}
    again = dispatch(*going.arguments)
    assert again.code == 0, again.err
    assert "reused from the journal" in again.out
    seen = told(going.work_dir)
    assert (seen["state"], seen["counts"]) == ("finished", {"done": 50})
    assert seen["reused"] == 11


def test_a_finished_run(recorded: Recorded) -> None:
    """What came of it, by kind and cause, and where to look next."""
    assert recorded.said.code == 1, recorded.said.err
    assert f"failures  dispatch show {recorded.path} --failed\n" in recorded.said.out
    said = dispatch("status", recorded.path)
    assert said.code == 0
    flat = " ".join(said.out.split())
    assert "is finished since" in flat
    assert "5 shards: 2 done, 3 failed (" in flat
    assert f"failures  dispatch show {recorded.path} --failed\n" in said.out


def test_watching(going: Going) -> None:
    """--watch goes on until the run ends, and ends with what it came to."""
    watching = Typed("status", going.work_dir, "--watch", "--json")
    assert watching.process.stdout is not None
    first = json.loads(watching.process.stdout.readline())
    assert first["state"] == "running"
    going.open()
    said = watching.ended()
    assert said.code == 0, said.err
    assert said.lines[-1]["state"] == "finished"
    assert said.lines[-1]["counts"] == {"done": 50}


def test_a_second_run_is_refused(going: Going) -> None:
    """It is told who runs there; exit code 3."""
    said = dispatch(*going.arguments)
    assert said.code == 3
    assert f"in use by process {going.typed.process.pid} on " in said.err
    assert "Traceback" not in said.err


def test_drift_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    """Another runner on the same record: exit code 3, with what differs, and an option that overrides."""
    shards = tmp_path / "in.jsonl"
    shards.write_text("1\n")
    arguments = (
        "run",
        "tests.cli.targets:double",
        "--shards",
        shards,
        "--work-dir",
        tmp_path / "work",
        "-j",
        1,
    )
    assert dispatch(*arguments).code == 0
    other = (*arguments[:1], "tests.cli.targets:anything", *arguments[2:])
    said = dispatch(*other)
    assert said.code == 3
    assert "double" in said.err
    assert "anything" in said.err
    assert dispatch(*other, "--allow-drift").code == 0


@pytest.mark.parametrize("command", ["status", "show", "stop", "export"])
def test_where_nothing_was_recorded(command: str, tmp_path: Path) -> None:
    """One line says that there is no journal; exit code 3."""
    said = dispatch(command, tmp_path)
    assert said.code == 3
    assert "there is no journal here" in said.err
    assert "Traceback" not in said.err


def test_values_that_are_gone_or_cut_off(tmp_path: Path) -> None:
    """Their shards run again, and only those; then the record is whole."""
    shards = tmp_path / "in.jsonl"
    shards.write_text("1\n2\n3\n4\n")
    work_dir = tmp_path / "work"
    arguments = ("run", f"{TARGETS}:large", "--shards", shards, "--work-dir", work_dir, "-j", 1)
    assert dispatch(*arguments).code == 0
    gone, cut, empty, whole = files = list((work_dir / "values").iterdir())
    gone.unlink()
    os.truncate(cut, 1_000_000)
    os.truncate(empty, 0)
    said = dispatch(*arguments)
    assert said.code == 0, said.err
    assert told(work_dir)["reused"] == 1
    assert {file.stat().st_size for file in files} == {whole.stat().st_size}
    assert len(dispatch("export", work_dir).lines) == 4


@pytest.mark.parametrize("command", ["status", "show", "stop", "export"])
def test_a_record_that_is_damaged(recorded: Recorded, command: str, tmp_path: Path) -> None:
    """One line says that it cannot be read; exit code 3."""
    work_dir = tmp_path / "work"
    shutil.copytree(recorded.path, work_dir)
    journal = work_dir / "journal.db"
    data = journal.read_bytes()
    journal.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))  # behind the page that says what it is
    said = dispatch(command, work_dir)
    assert said.code == 3
    assert "it cannot be read" in said.err
    assert "Traceback" not in said.err


def test_the_newest_work_dir_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This directory if it is one, else the one written last, here or in ./runs; none is an error."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="name one"):
        find_work_dir()
    now = time.time()
    for age, name in ((30, "a"), (20, "runs/b"), (40, "runs/c")):
        Path(name).mkdir(parents=True)
        for file, older in (("journal.db", 100), ("journal.db-wal", age)):
            Path(name, file).touch()
            os.utime(Path(name, file), (now - older, now - older))
    assert find_work_dir() == "runs/b"
    Path("journal.db").touch()
    assert find_work_dir() == "."
