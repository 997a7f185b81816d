"""The first signal asks, the second insists; `start()` listens, nothing else does unless it is told to."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig
from dispatch.center.interrupts import interrupts
from tests.center.facts import ROOT, Gate, descendants, on_both_loops, until_true
from tests.center.runners import Actor, Job, lines

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)


class Program:
    """The program of interrupted.py, in a process group of its own as under a shell."""

    def __init__(self, gate: Gate, *, grace: float = 60, setup: float = 0) -> None:
        self.gate = gate
        arguments = ["-m", "tests.center.interrupted", str(gate.job.arg), str(grace), str(setup)]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def running(self) -> set[int]:
        """Wait until the first shard runs; the processes of the program."""
        until_true(lambda: self.gate.pids)
        return descendants(self.process.pid)

    def draining(self) -> None:
        """Wait until the first signal was heard."""
        until_true(lambda: lines(f"{self.gate.job.arg}.draining"))

    def signal(self, number: int) -> None:
        """What Ctrl-C and `kill` do: to the whole group, workers included."""
        os.killpg(self.process.pid, number)

    def ended(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=40)
        return self.process.returncode, out, err


def told(out: str) -> dict[str, int]:
    """The counts that post_process printed."""
    return json.loads(out.splitlines()[0])


@BOTH
def test_the_first_signal_drains(gate: Gate, number: signal.Signals) -> None:
    """The shard that runs finishes, the rest is Cancelled, workers tear down, the report is printed; exit code 130."""
    program = Program(gate)
    pids = program.running()
    program.signal(number)
    program.draining()
    gate.open()
    code, out, err = program.ended()
    assert code == 130
    assert told(out) == {"done": 1, "cancelled": 20}
    assert "interrupted: what had not finished is cancelled" in err
    assert "1 done of 21" in err
    assert "Traceback" not in err
    assert lines(f"{gate.job.arg}.teardown")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@BOTH
def test_the_second_signal_stops_at_once(gate: Gate, number: signal.Signals) -> None:
    """With a shard that never ends and a grace of a minute: killed, Cancelled, printed; exit code 130."""
    program = Program(gate)
    pids = program.running()
    program.signal(number)
    program.draining()  # two signals at once are one
    began = time.monotonic()
    program.signal(number)
    code, out, err = program.ended()
    assert time.monotonic() - began < 10
    assert code == 130
    assert told(out) == {"cancelled": 21}
    assert "interrupted" in err
    assert "Traceback" not in err
    assert not lines(f"{gate.job.arg}.teardown")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_grace_bounds_a_drain(gate: Gate) -> None:
    """`policy.grace` seconds after the first signal what still runs is stopped, without a second one."""
    program = Program(gate, grace=0.2)
    program.running()
    program.signal(signal.SIGINT)
    code, out, _ = program.ended()
    assert (code, told(out)) == (130, {"cancelled": 21})


def test_a_program_that_is_not_interrupted_goes_on(gate: Gate) -> None:
    """`start()` returns the report."""
    gate.open()
    program = Program(gate)
    assert program.ended() == (0, '{"done": 21}\nended well with 21 shards\n', "")


@BOTH
def test_a_signal_during_start_up_ends_the_program(gate: Gate, number: signal.Signals) -> None:
    """While `setup` runs too: nothing is run, everything is Cancelled or unread; exit code 130, no traceback."""
    program = Program(gate, grace=0.2, setup=30)
    until_true(lambda: lines(f"{gate.job.arg}.setup"))
    pids = descendants(program.process.pid)
    program.signal(number)
    code, _, err = program.ended()
    assert code == 130
    assert "Traceback" not in err
    assert not gate.pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@on_both_loops
async def test_a_run_handles_signals_when_it_is_told_to(gate: Gate) -> None:
    """`run(handle_signals=True)` drains at the first SIGINT and puts the host's handlers back."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with DataParallelDispatchCenter(Actor, config=DispatchConfig(data_parallel=1)) as center:
        running = asyncio.create_task(center.run([gate.job, Job(arg=1)], handle_signals=True))
        await gate.entered()
        os.kill(os.getpid(), signal.SIGINT)
        async for event in center.events():
            if type(event).__name__ == "Draining":
                break
        gate.open()
        report = await running
    assert report.counts == {"done": 1, "cancelled": 1}
    assert report.interrupted
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@on_both_loops
async def test_a_centre_touches_no_signals_by_itself(center: Any) -> None:
    """Opening, running and streaming leave every handler as the host had it."""
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    await center.run([Job()])
    async with center.stream([Job()]) as outcomes, asyncio.timeout(20):
        await anext(outcomes)
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before


@on_both_loops
async def test_the_first_asks_and_the_second_insists() -> None:
    """The first signal calls back and nothing more; the second cancels what stands in the block."""
    asked: list[float] = []
    async with interrupts(lambda: asked.append(time.monotonic())) as scope:
        os.kill(os.getpid(), signal.SIGTERM)
        with anyio.fail_after(10):
            while not asked:
                await anyio.sleep(0.001)
        assert not scope.cancel_called
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep(10)
    assert scope.cancelled_caught
    assert len(asked) == 1
