"""`dispatch run` and `dispatch plan`, typed as a user would: what is said, what is written, and the exit code."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.center.facts import descendants, until_true
from tests.cli.terminal import COMMAND, ROOT, TARGETS, Typed, dispatch, environment, on_terminal

GRADER = f"{TARGETS}:Grader"


def lines(path: Path, *payloads: Any) -> Path:
    """A file of these shards."""
    path.write_text("".join(json.dumps(payload) + "\n" for payload in payloads))
    return path


def numbers(path: Path, count: int) -> Path:
    """A file of so many shards that all get done."""
    return lines(path, *({"number": n} for n in range(count)))


def rows(path: Path) -> list[dict[str, Any]]:
    """What --out wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_done(tmp_path: Path) -> None:
    """The report is printed, outcomes stand in the file in input order, and the exit code is 0."""
    out = tmp_path / "out.jsonl"
    said = dispatch("run", GRADER, "--shards", numbers(tmp_path / "in.jsonl", 500), "-j", 2, "--out", out)
    assert said.code == 0, said.err
    assert said.out.startswith("500 done of 500 shards in ")
    assert said.out.endswith(f"outcomes  {out}\n")
    assert said.err == ""
    assert [(row["index"], row["value"]) for row in rows(out)] == [(n, n / 2) for n in range(500)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_failures(tmp_path: Path) -> None:
    """What failed is in the report by cause and in the file with its evidence, retries are made; exit code 1."""
    shards = lines(
        tmp_path / "in.jsonl",
        {"number": 1, "id": "a"},
        {"number": 2, "how": "raise", "id": "b"},
        {"number": 3, "how": "hang", "id": "c"},
        {"number": 4, "how": "die", "id": "d"},
    )
    out = tmp_path / "out.jsonl"
    arguments = ("--shards", shards, "--id", "id", "--out", out, "-j", 2, "--timeout", 0.3, "--retries", 1)
    said = dispatch("run", GRADER, *arguments)
    assert said.code == 1, said.err
    assert re.search(r"^  raised +1 +25.0%$", said.out, re.MULTILINE)
    good, raised, hung, died = rows(out)
    assert (good["id"], good["outcome"], good["value"]) == ("a", "done", 0.5)
    assert (raised["id"], raised["cause"], raised["attempts"]) == ("b", "raised", 2)
    assert raised["fault"]["traceback"].endswith("ValueError: no 2\n")
    assert (hung["id"], hung["cause"]) == ("c", "timed_out")
    assert hung["fault"]["output"] == "hanging now\n"
    assert "in do_run" in hung["fault"]["stack"]
    assert (died["cause"], died["fault"]["exit_code"]) == ("crashed", 7)


def test_bad_lines_before_anything_runs(tmp_path: Path) -> None:
    """They are told with file and line, nothing runs, and the exit code is 2."""
    shards = tmp_path / "in.jsonl"
    shards.write_text('{"number": 1}\n{"number": "one"}\nnot json\n')
    out = tmp_path / "out.jsonl"
    said = dispatch("run", GRADER, "--shards", shards, "--out", out)
    assert said.code == 2
    assert said.out == ""
    assert f"{shards}:2: payload does not fit Sample: Expected `int`, got `str` - at `$.number`\n" in said.err
    assert f"{shards}:3: not JSON: " in said.err
    assert said.err.endswith("nothing was run; mend these lines, or leave them out with --skip-bad\n")
    assert not out.exists()


def test_an_id_that_stands_twice(tmp_path: Path) -> None:
    """It is told with both lines before anything runs; exit code 2."""
    shards = lines(tmp_path / "in.jsonl", *({"number": n, "id": f"k{n % 40}"} for n in range(41)))
    said = dispatch("run", GRADER, "--shards", shards, "--id", "id", "--work-dir", tmp_path / "work")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"{shards}:41: id 'k0' stands on line 1 too\n")
    assert not (tmp_path / "work").exists()


def test_bad_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    """With --skip-bad the others run."""
    shards = tmp_path / "in.jsonl"
    shards.write_text("x\n" * 15 + '{"number": 1}\n')
    said = dispatch("run", GRADER, "--shards", shards, "--skip-bad", "-j", 1)
    assert said.code == 0
    assert "and 5 more bad lines\n" in said.err
    assert "15 bad lines left out, 1 shards remain\n" in said.err
    assert said.out.startswith("1 done of 1 shards")


def test_a_file_that_breaks_off_is_not_skipped(tmp_path: Path) -> None:
    """--skip-bad leaves lines out, and not the unknown rest of a file; nothing runs, and the exit code is 2."""
    shards = tmp_path / "in.csv.gz"
    shards.write_bytes(gzip.compress(b"number\n" + b"".join(b"%d\n" % n for n in range(5000)))[:-20])
    said = dispatch("run", GRADER, "--shards", shards, "--skip-bad", "-j", 1)
    assert (said.code, said.out) == (2, "")
    assert "cannot be read from here on" in said.err
    assert said.err.endswith("nothing was run; what is behind the last of these lines cannot be read\n")


def test_warnings_that_cannot_be_written(tmp_path: Path) -> None:
    """With stderr on a full disk all is run, reported, and the exit code is that of the run."""
    shards = tmp_path / "in.jsonl"
    shards.write_text('x\n{"number": 1}\n')
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, "run", GRADER, "--shards", shards, "--skip-bad", "-j", "1"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=50,
            check=False,
        )
    assert ended.returncode == 0
    assert ended.stdout.startswith("1 done of 1 shards")


def test_json_lines() -> None:
    """--json prints an object a line: events, every outcome as it comes, and the report last; shards from stdin."""
    text = '{"number": 1}\n{"number": 2, "how": "raise"}\n'
    said = dispatch("run", GRADER, "--shards", "-", "--json", "-j", 1, "--retries", 1, text=text)
    assert said.code == 1, said.err
    told = said.lines
    assert {line["event"] for line in told if "event" in line} >= {
        "opened",
        "workerready",
        "retrying",
        "closed",
    }
    assert [(line["id"], line.get("value")) for line in told if "outcome" in line] == [
        ("0", 0.5),
        ("1", None),
    ]
    assert told[-1]["event"] == "report"
    assert told[-1]["counts"] == {"done": 1, "failed": 1, "raised": 1}
    assert (told[-1]["total"], told[-1]["coverage"], told[-1]["interrupted"]) == (2, 0.5, False)


def test_what_a_terminal_cannot_encode(tmp_path: Path) -> None:
    """It is escaped for a person, and for a program JSON stays UTF-8; the exit code is the run's."""
    shards = lines(tmp_path / "in.jsonl", {"number": 2, "how": "raise", "id": "\U0001f600"})
    work_dir = tmp_path / "work"
    arguments = ("--shards", shards, "--id", "id", "-j", 1, "--work-dir", work_dir)
    said = dispatch("run", GRADER, *arguments, "--json", PYTHONIOENCODING="ascii")
    assert said.code == 1, said.err
    assert [line["id"] for line in said.lines if "outcome" in line] == ["\U0001f600"]
    said = dispatch("show", work_dir, "--failed", PYTHONIOENCODING="ascii")
    assert said.code == 0, said.err
    assert said.out.startswith("shard \\U0001f600  failed: raised\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed(tmp_path: Path, closed: str) -> None:
    """A run needs none of them."""
    out = tmp_path / "out.jsonl"
    shards = numbers(tmp_path / "in.jsonl", 3)
    command = shlex.join([*COMMAND, "run", GRADER, "--shards", str(shards), "--out", str(out), "-j", "1"])
    ended = subprocess.run(
        ["/bin/sh", "-c", f"{command} {closed}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert [row["value"] for row in rows(out)] == [0.0, 0.5, 1.0]


def test_a_centre_brings_its_own_shards() -> None:
    """Without --shards a centre class runs its own, with its own shared param."""
    said = dispatch("run", f"{TARGETS}:Own", "--json", "-j", 1)
    assert said.code == 0, said.err
    assert sorted(line["value"] for line in said.lines if "outcome" in line) == [11, 12, 13]


def test_shards_given_to_a_centre(tmp_path: Path) -> None:
    """--shards stands in for a centre's own, and --shared gives a function its second argument."""
    shards = lines(tmp_path / "in.jsonl", 5)
    said = dispatch("run", f"{TARGETS}:Own", "--shards", shards, "--json", "-j", 1)
    assert [line["value"] for line in said.lines if "outcome" in line] == [15]
    params = tmp_path / "params.json"
    params.write_text("100")
    said = dispatch(
        "run", f"{TARGETS}:add", "--shards", shards, "--shared", params, "--json", "--runner", "local"
    )
    assert [line["value"] for line in said.lines if "outcome" in line] == [105]


def test_workers_stay_lean(tmp_path: Path) -> None:
    """A worker imports the program that started it, and that brings neither typer nor rich nor the commands."""
    said = dispatch("run", f"{TARGETS}:needs_threads", "--shards", lines(tmp_path / "in.jsonl", 1), "--json")
    assert [line["value"] for line in said.lines if "outcome" in line] == [[]]


def test_a_module_in_the_current_directory(tmp_path: Path) -> None:
    """Workers find it too."""
    (tmp_path / "here.py").write_text("def work(n: int) -> int:\n    return n + 1\n")
    lines(tmp_path / "in.jsonl", 1)
    said = dispatch("run", "here:work", "--shards", "in.jsonl", "--json", cwd=tmp_path)
    assert said.code == 0, said.err
    assert [line["value"] for line in said.lines if "outcome" in line] == [2]


def test_a_runner_that_cannot_start(tmp_path: Path) -> None:
    """The reason is told with the worker's traceback, not ours; exit code 1, and an older --out stays as it was."""
    out = tmp_path / "out.jsonl"
    out.write_text("older")
    said = dispatch("run", f"{TARGETS}:Broken", "--shards", lines(tmp_path / "in.jsonl", 1), "--out", out)
    assert said.code == 1
    assert out.read_text() == "older"
    assert "RuntimeError: no GPU here" in said.err
    assert "dispatch/cli" not in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "Missing argument 'MODULE:NAME'"),
        (["run", "nowhere:Grader"], "there is no module nowhere"),
        (["run", GRADER], "name a file of shards"),
        (["run", GRADER, "--shards", "missing.jsonl"], "--shards is 'missing.jsonl': No such file"),
        (["run", GRADER, "--shards", "/dev/null", "--runner", "slurm"], "runner_type is 'slurm'"),
        (["run", GRADER, "--isolation", "jail"], "--isolation"),
        (["run", GRADER, "-j", "0"], "-j"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_usage(arguments: list[str], says: str) -> None:
    """What makes no sense is told in a line that names it; exit code 2."""
    said = dispatch(*arguments)
    assert said.code == 2
    assert says in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("out", "says"), [("no/out.jsonl", "there is no folder"), (".", "a directory"), ("in.jsonl", "--shards")]
)
def test_outcomes_that_cannot_be_written(tmp_path: Path, out: str, says: str) -> None:
    """A folder that is missing, a directory, and the shards themselves are refused before anything runs."""
    shards = numbers(tmp_path / "in.jsonl", 3)
    before = shards.read_text()
    arguments = ("--shards", shards, "--work-dir", tmp_path / "work", "--out", tmp_path / out)
    said = dispatch("run", GRADER, *arguments)
    assert said.code == 2
    assert said.err.startswith("dispatch: --out is ")
    assert says in said.err
    assert shards.read_text() == before
    assert not (tmp_path / "work").exists()


def interrupted(tmp_path: Path, *arguments: object) -> tuple[Typed, Path]:
    """A run whose first shard waits, and the gate at which it does."""
    gate = tmp_path / "gate"
    first = {"number": 0, "how": f"wait {gate}"}
    shards = lines(tmp_path / "in.jsonl", first, *({"number": n} for n in range(1, 50)))
    typed = Typed("run", GRADER, "--shards", shards, "-j", 1, "--json", *arguments)
    until_true(Path(f"{gate}.in").exists)
    return typed, gate


def until_draining(typed: Typed) -> None:
    """Wait until the run says that the interrupt was heard."""
    assert typed.process.stdout is not None
    for line in typed.process.stdout:
        if json.loads(line).get("event") == "draining":
            return
    raise AssertionError("it never drained")


def test_ctrl_c_drains(tmp_path: Path) -> None:
    """What runs is finished, the rest is Cancelled, and written so; exit code 130, and how to go on."""
    out = tmp_path / "out.jsonl"
    typed, gate = interrupted(tmp_path, "--out", out)
    typed.interrupt()
    until_draining(typed)
    Path(f"{gate}.go").touch()
    said = typed.ended()
    assert said.code == 130, said.err
    report = said.lines[-1]
    assert report["interrupted"]
    assert report["counts"] == {"done": 1, "cancelled": 49}
    assert [row["outcome"] for row in rows(out)] == ["done", *["cancelled"] * 49]
    assert "Traceback" not in said.err


def test_ctrl_c_twice_stops(tmp_path: Path) -> None:
    """A shard that never ends is killed with its process, and everything is over; exit code 130."""
    typed, _ = interrupted(tmp_path)
    pids = descendants(typed.process.pid)
    typed.interrupt()
    until_draining(typed)
    typed.interrupt()
    said = typed.ended()
    assert said.code == 130, said.err
    assert said.lines[-1]["counts"] == {"cancelled": 50}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    """`dispatch run --json | head -1` ends the run; no traceback, no process left."""
    gate = tmp_path / "gate"
    first = {"number": 0, "how": f"wait {gate}"}
    shards = lines(tmp_path / "in.jsonl", first, *({"number": n} for n in range(1, 20_000)))
    typed = Typed("run", GRADER, "--shards", shards, "-j", 1, "--json")
    until_true(Path(f"{gate}.in").exists)
    assert typed.process.stdout is not None
    typed.process.stdout.close()
    Path(f"{gate}.go").touch()
    assert typed.process.stderr is not None
    with typed.process.stderr as stderr:
        assert "Traceback" not in stderr.read()
    assert typed.process.wait(40) == 1


def test_a_live_view_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal a bar with rate, coverage and workers is drawn, and gone when the report comes."""
    gate = tmp_path / "gate"
    first = {"number": 0, "how": f"wait {gate}"}
    shards = lines(tmp_path / "in.jsonl", {"number": 2, "how": "raise"}, first)
    Path(f"{gate}.go").touch()
    code, written = on_terminal(["run", GRADER, "--shards", shards, "-j", 1])
    assert code == 1
    assert "coverage" in written
    assert "━" in written
    assert re.search(r"Grader +\d+ ", written)
    assert "1 done of 2 shards in " in written.rpartition("\x1b[")[2] + written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")


def test_plan(tmp_path: Path) -> None:
    """`plan` says what would run and starts nothing; `run --runner dummy` is the same."""
    shards = numbers(tmp_path / "in.jsonl", 30)
    said = dispatch("plan", GRADER, "--shards", shards, "-j", 3)
    assert said.code == 0, said.err
    assert said.out.startswith("workers       3 x Grader\nshared param  none\nshards        30, ")
    assert "  and 20 more\n" in said.out
    assert dispatch("run", GRADER, "--shards", shards, "-j", 3, "--runner", "dummy").out == said.out
    plan = json.loads(dispatch("plan", GRADER, "--shards", shards, "--json").out)
    assert len(plan["shards"]) == 30


def test_a_plan_with_problems() -> None:
    """Shards that could not be delivered are named; exit code 1."""
    said = dispatch("plan", f"{TARGETS}:Twice")
    assert said.code == 1
    assert "undeliverable 1\n  a: another shard has this id\n" in said.out


def test_sigterm_is_an_interrupt_too(tmp_path: Path) -> None:
    """As `kill` or a scheduler sends it: the run drains, and the exit code is 130."""
    typed, gate = interrupted(tmp_path)
    os.kill(typed.process.pid, signal.SIGTERM)
    until_draining(typed)
    Path(f"{gate}.go").touch()
    said = typed.ended()
    assert said.code == 130, said.err
    assert said.lines[-1]["counts"] == {"done": 1, "cancelled": 49}
