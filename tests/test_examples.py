"""Every example does what it says, run as a user would run it: a command, its output, its exit code."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch import Cancelled, Done, Report
from examples.custom_center import ScoreCenter
from examples.custom_runner import Score
from examples.humaneval.demo import Demo

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")
PLAIN_KINDS = ["canonical", "wrong answer", "raises", "does not compile", "calls sys.exit"]
COSTLY_KINDS = ["never returns", "kills its process", "leaves a daemon", "forges a verdict"]


def run(name: str, *arguments: str) -> str:
    """What the example prints; any other exit code than 0, and any word on stderr, fails the test."""
    ended = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def table(output: str) -> dict[str, tuple[int, int, int, str]]:
    """Number, passed, failed and causes of each kind in HumanEval's table."""
    rows = re.findall(r"^(\S.{19}) +(\d+) +(\d+) +(\d+) *(.*)$", output, flags=re.MULTILINE)
    return {
        name.strip(): (int(n), int(passed), int(failed), why.strip()) for name, n, passed, failed, why in rows
    }


def test_humaneval_grades_every_kind_by_its_own_cause() -> None:
    """Canonical candidates pass, each other kind fails for its own cause, and hangs and deaths are shown."""
    output = run("humaneval", "--limit", "9", "-j", "2")
    assert table(output) == {
        "canonical": (9, 9, 0, ""),
        "wrong answer": (9, 0, 9, "raised AssertionError (9)"),
        "raises": (9, 0, 9, "raised ZeroDivisionError (9)"),
        "does not compile": (9, 0, 9, "raised SyntaxError (9)"),
        "calls sys.exit": (9, 0, 9, "raised SystemExit (9)"),
        "never returns": (3, 0, 3, "timed_out (3)"),
        "kills its process": (9, 0, 9, "crashed, SIGKILL (9)"),
        "leaves a daemon": (1, 0, 1, "crashed, exit code 7 (1)"),
        "forges a verdict": (1, 0, 1, "crashed, exit code 0 (1)"),
    }
    assert "pass@1 of the canonical set: 1.000" in output
    assert "every candidate ended as its kind must" in output
    assert re.search(r'File "<HumanEval/\d+: never returns>", line \d+ in \w+', output)
    assert re.search(r"'HumanEval/\d+: kills its process' ended with SIGKILL: .+", output)


def test_humaneval_leaves_no_daemon() -> None:
    """The daemon that a candidate started is gone when the program has ended."""
    output = run("humaneval", "--limit", "1", "-j", "1")
    found = re.search(r"the daemon \(pid (\d+)\) is gone", output)
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(int(found[1]), 0)


def test_humaneval_in_this_process_gives_the_same_verdicts() -> None:
    """The local runner leaves out what it cannot survive, says so, and agrees on the rest."""
    local = run("humaneval", "--limit", "6", "--runner", "local")
    pooled = table(run("humaneval", "--limit", "6", "-j", "2"))
    assert table(local) == {kind: pooled[kind] for kind in PLAIN_KINDS}
    assert (
        f"left out, because they hang, kill or attack the process they run in: {', '.join(COSTLY_KINDS)}"
        in local
    )


def test_humaneval_plan_executes_nothing() -> None:
    """The dummy runner lists runners, shared param and shards, and prints no verdict."""
    output = run("humaneval", "--limit", "1", "--runner", "dummy", "-j", "2")
    assert re.search(r"^would start +GradeRunner, GradeRunner$", output, flags=re.MULTILINE)
    assert re.search(r"^shared param +[\d,]+ bytes$", output, flags=re.MULTILINE)
    assert re.search(r"^shards +9, [\d,]+ bytes$", output, flags=re.MULTILINE)
    assert re.findall(r"^  HumanEval/0: (.+?)  +\d+  \w+$", output, flags=re.MULTILINE) == [
        *PLAIN_KINDS,
        *COSTLY_KINDS,
    ]
    assert "pass@1" not in output


def test_humaneval_draws_bars_on_a_terminal() -> None:
    """On a terminal each kind of candidate has a live bar, and the table comes after."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "examples.humaneval", "--limit", "1", "--runner", "local"]
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=child, stdout=child, stderr=child) as program:
        os.close(child)
        output = read_all(parent)
    assert program.returncode == 0, output
    assert "━" in output
    assert re.search(r"does not compile.*1/1", output)
    assert "every candidate ended as its kind must" in output


def read_all(terminal: int) -> str:
    """Everything that is written to a terminal before its last writer leaves."""
    chunks = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        try:
            while chunk := stream.read(65536):
                chunks.append(chunk)
        except OSError:  # EIO: how Linux says that nobody writes any more
            pass
    return b"".join(chunks).decode()


def test_humaneval_fails_when_a_verdict_is_not_as_expected() -> None:
    """A candidate that ends otherwise than its kind must is named, and the exit code is 1."""
    program = (
        "import sys, msgspec\n"
        "from examples.humaneval import __main__ as main, candidates\n"
        "first, *others = candidates.KINDS\n"
        "main.KINDS = (msgspec.structs.replace(first, ending='raised OSError'), *others)\n"
        "sys.argv[1:] = ['--runner', 'local', '--limit', '1']\n"
        "sys.exit(main.asyncio.run(main.main(main.arguments())))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "HumanEval/0: canonical: passed, expected raised OSError" in ended.stdout


class SmallDemo(Demo):
    """The demo, of two problems."""

    limit = 2


def test_the_demo_is_a_recorded_run(tmp_path: Path) -> None:
    """`make demo` in small: the table is as it must be; the same command again runs only what had failed."""
    config = ROOT / "examples" / "humaneval" / "run.toml"
    command = [
        sys.executable,
        "-m",
        "dispatch",
        "run",
        "tests.test_examples:SmallDemo",
        "--config",
        str(config),
    ]
    for reused in ("", "2 of them reused from the journal, 13 run\n"):
        ended = subprocess.run(
            [*command, "--work-dir", str(tmp_path / "work"), "-j", "2"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert ended.returncode == 1, ended.stderr
        assert table(ended.stdout)["canonical"] == (2, 2, 0, "")
        assert table(ended.stdout)["never returns"] == (1, 0, 1, "timed_out (1)")
        assert "all as it must be\n" in ended.stdout
        assert "2 done of 15 shards" in ended.stdout
        assert reused in ended.stdout


def test_custom_center_answers_its_runners() -> None:
    """Workers get their keys from one event loop, so that the turns come out even."""
    assert run("custom_center").splitlines() == [
        "correct: 90 of 100",
        "key-a for tiny: 25 calls",
        "key-b for tiny: 25 calls",
        "key-c for tiny: 25 calls",
        "key-d for tiny: 25 calls",
    ]


@pytest.mark.asyncio
async def test_custom_center_tells_of_a_run_that_was_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    """What is Done is told, whatever became of the rest: `post_process` is called for every run."""
    done = Done(value=Score(correct=True, key="key-a"))
    await ScoreCenter().post_process(Report(outcomes=[done, Cancelled()], total=2, interrupted=True))
    assert capsys.readouterr().out.splitlines() == ["correct: 1 of 2", "key-a: 1 calls"]


def test_map_takes_three_lines() -> None:
    """A plain function maps over all processors, and values come back in input order."""
    assert run("map_three_lines") == "the longest of 10000 walks takes 261 steps, from 6171\n"


def test_service_stays_open_through_its_failures() -> None:
    """Concurrent submits are answered by warm workers; a fault reaches its submitter and no one else."""
    first, *others = run("service").splitlines()
    assert re.fullmatch("200 answers from [12] workers?", first)
    assert others == [
        "raised here, as there: ZeroDivisionError('Fraction(1, 0)')",
        "stopped: ShardTimeout",
        "and still open: 0.25",
    ]


def test_async_runner_keeps_eight_requests_in_flight() -> None:
    """The server lets nobody go before eight wait, so every reply proves the overlap."""
    assert run("async_http") == "40 replies, 8 at a time: WORD-0 to WORD-39\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_opens_with_its_law(path: Path) -> None:
    """Every example of one file stays under 60 lines and begins with a docstring."""
    text = path.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) < 60
