"""Drain and insist: the first interrupt starts nothing new, the second ends everything; so does `drain` by itself."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import pytest

from dispatch import Cancelled, CenterClosed, DataParallelDispatchCenter, Done
from tests.faults.culprits import Culprit, Juggler, Task
from tests.faults.scene import Lateness, Program, config, until, wait_until

AT_ONCE = (
    3.0  # seconds: the print of the report and the end of an interpreter on a loaded machine, and no grace
)
NUMBERS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


class Interrupted:
    """A program under `start()` whose two workers are at work."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        self._started = tmp_path / "started"
        self._started.touch()
        self.program = Program("tests.faults.programs", "start", *words, ANNOUNCE=str(self._started))
        wait_until(lambda: self.started >= 2)

    @property
    def started(self) -> int:
        """How many of the long shards have begun."""
        return len(self._started.read_text().splitlines())

    def has_taken(self, number: int) -> bool:
        """Whether the program has taken a signal that was sent to it, or is gone."""
        status = Path(f"/proc/{self.program.pid}/status").read_text()
        gone = re.search(r"State:\s+[ZX]", status)  # what a zombie was sent stays pending
        pending = re.search(r"ShdPnd:\s+(\w+)", status)
        return bool(gone) or pending is None or not int(pending[1], 16) & 1 << number - 1

    def ends(self, *, after: float = 0.0) -> dict[str, int]:
        """Wait for its end `after` so many seconds: exit code 130, the report, nothing left. The report's counts."""
        began = time.monotonic()
        code, out, err = self.program.ended(within=after + 10)
        assert time.monotonic() - began < after + AT_ONCE
        assert (code, out) == (130, "")
        assert "Traceback" not in err
        assert "interrupted" in err
        wait_until(lambda: not self.program.alive(), within=1.0, paused=self.program.dying)
        return {
            name: int(number)
            for name, number in re.findall(r"^  (done|cancelled|crashed) +(\d+) ", err, re.MULTILINE)
        }


@NUMBERS
@pytest.mark.parametrize("group", [False, True])
def test_the_first_interrupt_drains(number: int, group: bool, tmp_path: Path) -> None:
    """After the first interrupt no shard starts, those that run finish, the rest is Cancelled; exit code 130."""
    run = Interrupted(tmp_path, "2", "30")
    with run.program:
        run.program.send(number, group=group)
        counts = run.ends(after=2)
        assert run.started == 2
    assert counts == {"done": 4, "cancelled": 16}


@NUMBERS
def test_grace_is_not_for_ever(number: int, tmp_path: Path) -> None:
    """What still runs `grace` seconds after the first interrupt is killed, and Cancelled."""
    run = Interrupted(tmp_path, "600", "0.4")
    with run.program:
        run.program.send(number)
        counts = run.ends(after=0.4)
        assert run.started == 2
    assert counts == {"done": 2, "cancelled": 18}


@NUMBERS
def test_the_second_interrupt_ends_everything_now(number: int, tmp_path: Path) -> None:
    """At the second interrupt everything ends at once, however long the grace; the report still prints."""
    run = Interrupted(tmp_path, "600", "60")
    with run.program:
        run.program.send(number)
        wait_until(lambda: run.has_taken(number))  # two that wait together are one
        run.program.send(signal.SIGINT)
        counts = run.ends()
        assert run.started == 2
    assert counts["cancelled"] >= 18  # what was done a moment ago may not have been told yet
    assert sum(counts.values()) == 20


def test_an_impatient_user(tmp_path: Path) -> None:
    """Ten interrupts in a row, to the whole group, end it at once, and leave nothing behind."""
    run = Interrupted(tmp_path, "600", "60")
    with run.program:
        for _ in range(10):
            run.program.send(signal.SIGINT, group=True)
            wait_until(lambda: run.has_taken(signal.SIGINT))
        began = time.monotonic()
        code, out, _err = run.program.ended()
        assert time.monotonic() - began < AT_ONCE
        assert (code in (130, 1, -signal.SIGINT), out) == (
            True,
            "",
        )  # the last may meet an interpreter that leaves
        wait_until(lambda: not run.program.alive(), within=1.0, paused=run.program.dying)


@pytest.mark.asyncio
@pytest.mark.both_loops
async def test_drain_without_a_signal() -> None:
    """`drain` lets running shards finish, starts no other, and cancels the rest; the report says interrupted."""
    async with DataParallelDispatchCenter(Culprit, config=config(2)) as center:
        running = asyncio.create_task(center.run([Task(n, "sleeps_for", 0.3) for n in range(20)]))
        await until(lambda: [worker for worker in center.snapshot().workers if worker.shard_id][1:])
        before = center.snapshot().counts["done"]
        center.drain()
        report = await running
        assert report.interrupted
        assert before < report.counts["done"] <= before + 2
        assert report.counts["done"] + report.counts["cancelled"] == 20
        assert all(len(outcome.attempts) == isinstance(outcome, Done) for outcome in report.outcomes)
        assert center.snapshot().draining
        with pytest.raises(CenterClosed):
            await center.submit(Task(1))


@pytest.mark.asyncio
@pytest.mark.parametrize("runner", [Culprit, Juggler])
async def test_drain_has_an_end(runner: type, lateness: Lateness) -> None:
    """What runs longer than `grace` after `drain` is stopped and Cancelled, in both lanes."""
    act = "sleeps" if runner is Culprit else "hangs"
    async with DataParallelDispatchCenter(runner, config=config(2, grace=0.3)) as center:
        running = asyncio.create_task(center.run([Task(n, act) for n in range(40)]))
        await until(lambda: all(worker.in_flight for worker in center.snapshot().workers))
        began = time.monotonic()
        center.drain()
        report = await running
        assert time.monotonic() - began < 0.3 + 1 + lateness.slack
    assert report.counts == {"cancelled": 40}


@pytest.mark.asyncio
async def test_drain_of_a_stream_and_a_retry() -> None:
    """A stream that is drained ends after its last outcomes, and a shard that fails meanwhile is not tried again."""
    async with DataParallelDispatchCenter(Culprit, config=config(1, crash_budget=5)) as center:
        seen = []
        async with center.stream(
            [Task(0, "sleeps_for_then_exits", 0.3), *(Task(n) for n in range(1, 50))]
        ) as outcomes:
            await until(lambda: center.snapshot().workers[0].shard_id)
            center.drain()
            seen = [outcome async for outcome in outcomes]
        assert len(seen) == 50
        assert {type(outcome) for outcome in seen} == {Cancelled}
