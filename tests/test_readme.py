"""What the README says runs, and what it points at is there."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from dispatch import JournalError
from dispatch.record.archive import Archive
from tests.center.facts import until_true

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
FIRST_SCREEN = 45  # lines


class Block(NamedTuple):
    """A fenced block: its language, its text, its first line's number, and the ```text that follows at once."""

    language: str
    text: str
    line: int
    says: str


def blocks(text: str) -> list[Block]:
    """Every fenced block, in order."""
    fenced = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 2, found[3] or "")
        for found in fenced.finditer(text)
    ]


PROGRAMS = [block for block in blocks(README) if block.language == "python"]


def masked(output: str) -> str:
    """Output without what differs from run to run: pids."""
    return re.sub(r"worker \d+", "worker PID", output)


@pytest.mark.parametrize("block", PROGRAMS, ids=[f"line-{block.line}" for block in PROGRAMS])
def test_every_program_runs_as_printed(block: Block, tmp_path: Path) -> None:
    """A python block is a program that runs as a script, is silent on stderr, and prints what stands below it."""
    script = tmp_path / "program.py"
    script.write_text(block.text)
    ended = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    if block.says:
        assert masked(ended.stdout) == masked(block.says)


def test_the_first_screen_holds_a_whole_program() -> None:
    """The first program starts on the first screen, is under 20 lines, and its output follows."""
    first = PROGRAMS[0]
    length = len(first.text.splitlines())
    assert length < 20
    assert first.line + length <= FIRST_SCREEN
    assert first.says


def test_every_command_is_a_target_of_make() -> None:
    """Each `$ make x` of a console block, and each `make x` in the text, is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"^\$ make (\w+)|`make (\w+)`", README, re.MULTILINE)
    assert {"demo", "test"} <= {"".join(names) for names in commands} <= targets
    for block in blocks(README):
        if block.language == "console" and "$ dispatch " not in block.text:
            assert [line for line in block.text.splitlines() if not line.startswith("$ make ")] == []


def test_the_command_line_does_as_shown(tmp_path: Path) -> None:
    """The session of the command line, typed again: an interrupt, a resumption, and a look at a failure."""
    section = README.split("\n## The command line\n")[1].split("\n## ")[0]
    program, session = (block.text for block in blocks(section)[:2])
    (tmp_path / "grading.py").write_text(program)
    answers = [{"question": f"{n} * 7", "answer": str(7 * n)} for n in range(100)]
    answers[0] = {"question": "6 * 7", "answer": "forty-two"}
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    for typed in session.removeprefix("$ ").split("\n$ "):
        command, *shown = typed.splitlines()
        lines = [line for line in shown if line != "^C"]
        pattern = "".join(".*\n" if line == "..." else f"{re.escape(plain(line))}\n" for line in lines)
        said = type_in(command, tmp_path, interrupt="^C" in shown)
        assert re.fullmatch(pattern, plain(said), re.DOTALL), said


def type_in(command: str, folder: Path, *, interrupt: bool) -> str:
    """What a command prints; interrupted as soon as something is recorded as done."""
    typed = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", *shlex.split(command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    if interrupt:
        until_true(lambda: is_under_way(folder / "runs" / "a"))
        typed.send_signal(signal.SIGINT)
    out, _ = typed.communicate(timeout=40)
    return out


def is_under_way(work_dir: Path) -> bool:
    """Whether anything is done there."""
    try:
        with Archive.open(work_dir) as archive:
            return archive.counts().get("done", 0) > 0
    except JournalError:
        return False


def plain(text: str) -> str:
    """Text without what differs from run to run: numbers, and the room that they take."""
    text = re.sub(r"\b\d[\d.,:]*", "#", text.replace("python -m dispatch", "dispatch"))
    return re.sub(r" +", " ", re.sub(r" +$", "", text, flags=re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    """A link to a file of ours finds it, and a link that is named after a test finds that test in it."""
    links = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", README)
    assert links
    for name, target in links:
        if target.startswith("https://"):
            continue
        assert (ROOT / target).exists(), target
        test = re.fullmatch(r"`(test_\w+)`", name)
        if test:
            assert f"def {test[1]}(" in (ROOT / target).read_text(), f"{target} has no {test[1]}"


def test_the_tables_of_configuration_are_complete() -> None:
    """Every field of DispatchConfig and of Policy has its row, and no row has another name."""
    from dispatch import DispatchConfig, Policy

    section = README.split("\n## Configuration\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    fields = [*DispatchConfig.__struct_fields__, *Policy.__struct_fields__]
    assert sorted(set(named) - {"DispatchConfig", "Policy"}) == sorted(set(fields) - {"policy"})
