"""Guarantee 4: a run that is killed at any instant resumes, and no outcome that a caller has seen is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from dispatch import DispatchConfig, JournalError, LocalDispatchCenter
from dispatch.record.archive import Archive
from tests.faults.culprits import double
from tests.faults.scene import ROOT, Program, wait_until

TOTAL = 5_000
KILLS = 50


class Killed:
    """The program in `resumed.py`."""

    def __init__(self, work_dir: Path, *, seconds: float) -> None:
        self.work_dir = work_dir
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.resumed", str(work_dir), str(TOTAL), str(seconds)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, number: int, delay: float | None = None) -> None:
        """One run, killed after so many seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{number} {'' if delay is None else delay}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{number} over\n"

    def said(self, what: str) -> set[tuple[int, int]]:
        """The runs and indexes of the file WORK_DIR.what."""
        try:
            lines = Path(f"{self.work_dir}.{what}").read_text().splitlines()
        except FileNotFoundError:
            return set()
        return {(int(run), int(index)) for run, index in map(str.split, lines)}

    def recorded(self) -> set[int]:
        """The shards that have an outcome, each of which must be Done and right."""
        try:
            with Archive.open(self.work_dir) as archive:
                return {record.position for record in archive.outcomes(kind="done")}
        except JournalError as error:
            assert "there is no journal here" in str(error)  # killed before there was one
            return set()


@pytest.mark.timeout(120)
def test_killed_at_fifty_random_moments(tmp_path: Path) -> None:
    """Killed 50 times, a run of 5,000 shards ends with each outcome once; what was recorded or seen never ran again."""
    dice = random.Random(5)
    recorded: dict[int, set[int]] = {}
    with Killed(tmp_path / "record", seconds=0.005) as program:
        for number in range(KILLS):
            recorded[number] = program.recorded()
            program.run(number, dice.uniform(0.1, 0.5))
        assert len(program.recorded()) < TOTAL, "it was over before it was killed so often"
        recorded[KILLS] = program.recorded()
        program.run(KILLS)
        recorded[KILLS + 1] = program.recorded()
        again = [(run, index) for run, index in program.said("ran") if index in recorded[run]]
        lost = [(run, index) for run, index in program.said("seen") if index not in recorded[run + 1]]
        assert (again, lost) == ([], [])
        assert {index for run, index in program.said("seen") if run == KILLS} == set(range(TOTAL))
    with Archive.open(tmp_path / "record") as archive:
        assert archive.counts() == {"done": TOTAL}
        assert archive.total() == TOTAL
        records = list(archive.outcomes())
        assert sum(record.value for record in records) == TOTAL * (TOTAL - 1)
        assert [record.position for record in records] == list(range(TOTAL))
        states = [run.state for run in archive.runs()]
        assert (set(states[:-1]), states[-1]) == ({"killed"}, "finished")
        attempts = [attempt for record in records for attempt in record.attempts]
        lost_attempts = [attempt for attempt in attempts if attempt.fault is not None]
        assert {attempt.fault.cause for attempt in lost_attempts if attempt.fault} <= {"lost"}
        assert len(attempts) - len(lost_attempts) == TOTAL
        assert len(lost_attempts) <= 2 * KILLS  # at most one for each worker and kill
    with sqlite3.connect(tmp_path / "record" / "journal.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A recorded run whose shards wait at a gate."""
    with Program(
        "tests.faults.programs", "recorded", str(tmp_path / "record"), str(tmp_path / "gate")
    ) as program:
        yield program


def query(work_dir: Path, question: str) -> list[Any]:
    """What the database answers."""
    with sqlite3.connect(work_dir / "journal.db") as database:
        found = database.execute(question).fetchall()
    database.close()
    return found


def test_what_ran_when_the_run_was_killed_is_lost(tmp_path: Path, program: Program) -> None:
    """What was running when the parent was killed has a lost attempt, is charged nothing, and what waited has none."""
    work_dir = tmp_path / "record"
    program.hear("running")
    wait_until(lambda: len(query(work_dir, "SELECT * FROM flight WHERE shards <> ''")) == 2)
    program.send(signal.SIGKILL)
    program.ended()
    with Archive.open(work_dir) as archive:
        assert (archive.state, archive.owner()) == ("killed", None)
    (tmp_path / "gate.go").touch()
    with Program("tests.faults.programs", "recorded", str(work_dir), str(tmp_path / "gate")) as again:
        attempts = again.hear("attempts")
    assert attempts.split() == ["2", "2", *["1"] * 8]
    with Archive.open(work_dir) as archive:
        assert [run.state for run in archive.runs()] == ["killed", "finished"]
        first, second, *others = archive.outcomes()
        for record in (first, second):
            lost, done = record.attempts
            assert lost.fault is not None
            assert (lost.fault.cause, lost.pid > 0, done.fault, record.lost) == ("lost", True, None, 1)
        assert {(len(record.attempts), record.lost) for record in others} == {(1, 0)}


@pytest.mark.asyncio
async def test_a_full_disk(tmp_path: Path) -> None:
    """When nothing can be written any more, the run ends with an error; what was reported stands, and it resumes."""
    work_dir = tmp_path / "record"
    with Program("tests.faults.programs", "full_disk", str(work_dir)) as program:
        code, out, err = program.ended(within=30)
    assert code == 0, err
    *seen, error = out.splitlines()
    assert error.startswith(f"JournalError journal {work_dir}/journal.db: it cannot be written: ")
    with Archive.open(work_dir) as archive:
        done = {record.position for record in archive.outcomes(kind="done")}
        assert archive.state != "finished"
    assert {int(index) for index in seen} <= done
    assert 100 < len(done) < 20_000
    config = DispatchConfig(work_dir=str(work_dir))
    report = await LocalDispatchCenter(double, range(20_000), config=config).run(collect=False)
    assert (report.counts, report.reused) == ({"done": 20_000}, len(done))
