"""`dispatch show`: a shard with all its evidence, failures by cause, and an overview."""

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Recorded
from tests.cli.terminal import TARGETS, dispatch, on_terminal


def test_one_shard(recorded: Recorded) -> None:
    """By its id: payload, value, and each attempt with runner, process and times."""
    said = dispatch("show", recorded.path, "good")
    assert said.code == 0, said.err
    first, payload, value, attempt = said.out.splitlines()
    assert first == "shard good  done"
    assert payload == 'payload   {"number":1,"id":"good"}'
    assert value == "value     0.5"
    assert attempt.startswith("attempt 1 Grader in process ")
    assert attempt.endswith(": done")


def test_an_id_that_is_a_number(recorded: Recorded) -> None:
    """An id goes before a position."""
    assert dispatch("show", recorded.path, "5").out.startswith("shard 5  done\n")


def test_every_attempt_is_shown(recorded: Recorded) -> None:
    """A shard that was retried shows each attempt, and the traceback."""
    said = dispatch("show", recorded.path, "bad one")
    assert "shard bad one  failed: raised\n" in said.out
    assert "attempt 1 " in said.out
    assert "attempt 2 " in said.out
    assert "  ValueError: no 2\n  traceback\n    Traceback (most recent call last):\n" in said.out


def test_where_it_hung_and_what_it_said(recorded: Recorded) -> None:
    """Of a timeout the stack and the output; of a death its exit code."""
    said = dispatch("show", recorded.path, "--cause", "timed_out")
    assert said.code == 0
    assert said.out.startswith("shard stuck  failed: timed_out\n")
    assert "in do_run" in said.out.split("  stack\n")[1]
    assert said.out.endswith("  output\n    hanging now\n")
    assert "  ended by\n    exit code 7\n" in dispatch("show", recorded.path, "dead").out


def test_all_failures(recorded: Recorded) -> None:
    """--failed shows each of them, as many as --limit allows, and says how many more there are."""
    said = dispatch("show", recorded.path, "--failed")
    shards = [line.split("  ")[0] for line in said.out.splitlines() if line.startswith("shard ")]
    assert shards == ["shard bad one", "shard stuck", "shard dead"]
    said = dispatch("show", recorded.path, "--failed", "--limit", 1)
    assert said.out.count("\nshard ") + said.out.startswith("shard ") == 1
    assert said.out.endswith("\nand 2 more; --limit 0 shows all\n")


def test_an_overview(recorded: Recorded) -> None:
    """Without a shard: every run, the counts, the failures in a line each, and how to see one."""
    said = dispatch("show", recorded.path)
    assert said.code == 0, said.err
    assert "Grader" in said.out
    assert "  finished     20" in said.out or "  finished  20" in said.out
    assert "5 shards: 2 done, 3 failed (" in said.out
    assert "ValueError: no 2" in said.out
    assert said.out.endswith(f"one of them: dispatch show {recorded.path} 'bad one'\n")


@pytest.mark.parametrize("arguments", [["nobody"], ["--cause", "out_of_memory"]])
def test_no_such_shard(recorded: Recorded, arguments: list[str]) -> None:
    """Exit code 1, and a line that says so."""
    said = dispatch("show", recorded.path, *arguments)
    assert (said.code, said.out) == (1, "")
    assert "no such shard" in said.err


def test_an_id_that_looks_like_an_option(tmp_path: Path) -> None:
    """The command that is suggested shows it."""
    shards = tmp_path / "in.jsonl"
    shards.write_text('{"number": 1, "how": "raise", "id": "-1"}\n')
    arguments = ("--shards", shards, "--id", "id", "--work-dir", tmp_path / "work", "-j", 1)
    assert dispatch("run", f"{TARGETS}:Grader", *arguments).code == 1
    suggested = dispatch("show", tmp_path / "work").out.splitlines()[-1]
    words = shlex.split(suggested.removeprefix("one of them: dispatch "))
    assert dispatch(*words).out.startswith("shard -1  failed")


def test_ids_and_directories_that_look_like_markup(tmp_path: Path) -> None:
    """They are shown as they are, live and afterwards; what a terminal would obey is escaped."""
    work_dir, out = tmp_path / "[bold]", tmp_path / "in.jsonl"
    gate = tmp_path / "gate"
    Path(f"{gate}.go").touch()
    shards = [
        {"number": 1, "how": "raise", "id": "[/f1]"},
        {"number": 2, "how": "raise", "id": "\x1b[31m:smile:"},
        {"number": 3, "how": f"wait {gate}", "id": "[/f3]"},
    ]
    out.write_text("".join(json.dumps(shard) + "\n" for shard in shards))
    arguments = ("--shards", out, "--id", "id", "--work-dir", work_dir, "-j", 1)
    code, written = on_terminal(["run", f"{TARGETS}:Grader", *arguments], columns=200)
    assert (code, "Traceback" in written) == (1, False)
    said = dispatch("show", work_dir)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == f"one of them: dispatch show '{work_dir}' '[/f1]'"
    assert [line.split()[0] for line in said.out.splitlines()[-4:-2]] == ["[/f1]", "\\x1b[31m:smile:"]
    assert dispatch("show", work_dir, "\x1b[31m:smile:").out.startswith("shard \\x1b[31m:smile:  failed")
    assert f"failures  dispatch show '{work_dir}' --failed\n" in dispatch("status", work_dir).out
