"""However it ends, nothing is left: no process, no socket, no file. The tests count, and trust no return value."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

from dispatch import DataParallelDispatchCenter, Done
from dispatch.engines.process import ProcessEngine
from dispatch.testing.faults import FaultyChannel, Hold, Passing
from dispatch.testing.traces import leaves_nothing
from tests.faults.culprits import Culprit, Juggler, Task
from tests.faults.scene import Lateness, Program, config, until, wait_until

GONE = 1.0  # seconds, from the last starting worker's hello
DAEMONS = [Task(1, "leaves_a_child"), Task(2, "leaves_a_daemon"), Task(3, "leaves_a_stubborn_daemon")]


class Relayed(DataParallelDispatchCenter):
    """A centre whose workers talk to it through a faulty channel."""

    relay: FaultyChannel

    def make_engine(self) -> ProcessEngine:
        return ProcessEngine(relay=self.relay)


# The doors, as coroutines to be cancelled.


async def runs(center: Any) -> None:
    """A run."""
    await center.run([Task(n) for n in range(4)])


async def streams(center: Any) -> None:
    """A stream."""
    async with center.stream([Task(n) for n in range(4)]) as outcomes:
        async for outcome in outcomes:
            assert isinstance(outcome, Done)


async def submits(center: Any) -> None:
    """Three submits at once."""
    async with center:
        await asyncio.gather(*(center.submit(Task(n)) for n in range(3)))


@asynccontextmanager
async def _leaves_nothing(lateness: Lateness) -> AsyncGenerator[None]:
    """A block after which nothing is left within GONE, and what the machine was late until then."""
    async with leaves_nothing(within=10 * GONE):
        yield
        began = time.monotonic()
    assert time.monotonic() - began < GONE + lateness.slack


DOORS = pytest.mark.parametrize("door", [runs, streams, submits])


@pytest.mark.asyncio
@pytest.mark.both_loops
@DOORS
async def test_cancelled_at_every_frame(door: Any, lateness: Lateness) -> None:
    """Whatever frame is on its way, in whichever direction: stalled and cancelled there, a door leaves nothing."""
    odd = isinstance(asyncio.get_running_loop(), uvloop.Loop)  # one loop takes the odd frames, one the even
    for number in itertools.count(int(odd), 2):
        async with _leaves_nothing(lateness):
            if not await _stalled_and_cancelled(door, number, lateness):
                break
    assert number > 10


async def _stalled_and_cancelled(door: Any, number: int, lateness: Lateness) -> bool:
    """Stall the frame of this number, cancel the door, let the frame go; whether there was such a frame."""
    stalled, released = anyio.Event(), anyio.Event()
    numbers = itertools.count()

    def judge(passing: Passing) -> Hold | None:
        if passing.kind == "pulse" or next(numbers) != number:
            return None
        stalled.set()
        return Hold(released)

    async with FaultyChannel(judge) as faulty:
        center = Relayed(Culprit, config=config(1))
        center.relay = faulty
        task = asyncio.create_task(door(center))
        waiting = asyncio.create_task(stalled.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=20)
        waiting.cancel()
        began = time.monotonic()
        task.cancel()
        released.set()
        with suppress(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < GONE + lateness.slack
    return stalled.is_set()


@pytest.mark.asyncio
@pytest.mark.both_loops
@DOORS
async def test_cancelled_after_some_turns_of_the_loop(door: Any, lateness: Lateness) -> None:
    """Cancelled after any number of turns of the event loop, a door leaves nothing."""
    for turns in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
        async with _leaves_nothing(lateness):
            task = asyncio.create_task(door(DataParallelDispatchCenter(Culprit, config=config(1))))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.asyncio
@pytest.mark.both_loops
async def test_a_normal_end(lateness: Lateness) -> None:
    """After a run every process is gone, also what shards left behind on purpose."""
    async with _leaves_nothing(lateness):
        report = await DataParallelDispatchCenter(Culprit, [Task(0), *DAEMONS], config=config()).run()
        assert report.counts == {"done": 4}


@pytest.mark.asyncio
@pytest.mark.parametrize("runner", [Culprit, Juggler])
@pytest.mark.parametrize("end", ["raise", "break", "return", "cancel"])
async def test_leaving_a_stream(runner: Any, end: str, lateness: Lateness) -> None:
    """An exception in the consumer, a break, a return or a cancellation stops shards that hang, and their daemons."""
    hangs = "deaf" if runner is Culprit else "refuses"
    all_done = asyncio.Event()

    async def source() -> AsyncIterator[Task]:
        for task in DAEMONS:
            yield task
        await all_done.wait()
        for number in range(20):
            yield Task(number, hangs)

    async def consume() -> None:
        async with (
            DataParallelDispatchCenter(runner, config=config()) as center,
            center.stream(source()) as outcomes,
        ):
            seen = 0
            async for _ in outcomes:
                seen += 1
                if seen < len(DAEMONS):
                    continue
                all_done.set()
                await until(lambda: all(worker.in_flight for worker in center.snapshot().workers))
                if end == "raise":
                    raise ZeroDivisionError
                if end == "break":
                    break
                if end == "return":
                    return
                asyncio.current_task().cancel()

    async with _leaves_nothing(lateness):
        began = time.monotonic()
        with suppress(ZeroDivisionError, asyncio.CancelledError):
            await consume()
        assert time.monotonic() - began < 10


@pytest.mark.asyncio
async def test_a_source_that_raises(lateness: Lateness) -> None:
    """A source of shards that raises half-way ends the run with its error, and leaves nothing."""

    async def source() -> AsyncIterator[Task]:
        for task in DAEMONS:
            yield task
        raise ZeroDivisionError

    async with _leaves_nothing(lateness):
        with pytest.raises(ZeroDivisionError):
            await DataParallelDispatchCenter(Culprit, source(), config=config()).run()


@pytest.mark.asyncio
async def test_a_shared_param(lateness: Lateness) -> None:
    """The shared param's file is gone with its centre, though a worker died while it was mapped."""
    async with _leaves_nothing(lateness):
        center = DataParallelDispatchCenter(
            Culprit, [Task(0), Task(1, "kills_itself")], shared_param=b"x" * 1_000_000, config=config()
        )
        await center.run()


# From outside: nobody there is left to clear up.


def _gone(program: Program, directory: Path, lateness: Lateness, *, within: float = GONE) -> None:
    """Assert that nothing of a program is left, within so many seconds."""
    wait_until(lambda: not program.alive(), within=within, lateness=lateness, paused=program.dying)
    sockets = Path("/proc/net/unix").read_text()
    assert f"@dispatch-{program.pid}-" not in sockets
    assert list(directory.iterdir()) == []
    assert [name for name in os.listdir("/dev/shm") if "dispatch" in name] == []


@pytest.mark.parametrize("processes", [2, 3, 4, 5])
def test_kill_9_during_start_up(processes: int, tmp_path: Path, lateness: Lateness) -> None:
    """A parent that is killed when its first, second, ... process has just started leaves nothing."""
    with Program("tests.faults.programs", "busy", "plain", "sleeps", TMPDIR=str(tmp_path)) as program:
        program.hear("opening")
        wait_until(lambda: len(program.alive()) >= processes)
        program.send(signal.SIGKILL)
        _gone(program, tmp_path, lateness, within=2 * GONE)  # it may say hello a second later


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        ("plain", "spins"),
        ("plain", "backtracks"),
        ("plain", "deaf"),
        ("juggler", "refuses"),
        ("fork", "spins"),
    ],
)
def test_kill_9_while_it_is_busy(kind: str, act: str, tmp_path: Path, lateness: Lateness) -> None:
    """A parent that is killed while shards hang, with their children and daemons about, leaves nothing."""
    with Program("tests.faults.programs", "busy", kind, act, TMPDIR=str(tmp_path)) as program:
        program.hear("busy")
        assert len(program.alive()) >= 5
        program.send(signal.SIGKILL)
        _gone(program, tmp_path, lateness)


def test_kill_9_while_a_nanny_is_stopped(tmp_path: Path, lateness: Lateness) -> None:
    """A nanny that somebody stopped goes on when its parent is killed, and leaves nothing."""
    with Program("tests.faults.programs", "busy", "plain", "spins", TMPDIR=str(tmp_path)) as program:
        program.hear("busy")
        for pid in program.alive():
            if _ids(pid)[0] == program.pid:
                os.kill(pid, signal.SIGSTOP)
        program.send(signal.SIGKILL)
        _gone(program, tmp_path, lateness)


def test_kill_9_during_shutdown(tmp_path: Path, lateness: Lateness) -> None:
    """A parent that is killed while its workers are in their teardown leaves nothing."""
    with Program("tests.faults.programs", "closing", TMPDIR=str(tmp_path)) as program:
        program.hear("closing")
        program.send(signal.SIGKILL)
        _gone(program, tmp_path, lateness)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_ends_the_parent(number: int, tmp_path: Path, lateness: Lateness) -> None:
    """A parent that dies of a signal that it does not handle leaves nothing."""
    with Program("tests.faults.programs", "busy", "plain", "spins", TMPDIR=str(tmp_path)) as program:
        program.hear("busy")
        program.send(number, group=True)
        _gone(program, tmp_path, lateness)


@pytest.mark.parametrize("group", [False, True])
def test_ctrl_c_in_a_program_without_handlers(group: bool, tmp_path: Path, lateness: Lateness) -> None:
    """A Ctrl-C that asyncio turns into a cancellation of the main task ends the run at once, and leaves nothing."""
    with Program("tests.faults.programs", "busy", "plain", "spins", TMPDIR=str(tmp_path)) as program:
        program.hear("busy")
        program.send(signal.SIGINT, group=group)
        code, _, err = program.ended()
        _gone(program, tmp_path, lateness)
    assert code == -signal.SIGINT
    assert "never awaited" not in err
    assert "destroyed" not in err


@pytest.mark.parametrize("kind", ["plain", "fork"])
def test_a_nanny_that_is_killed(kind: str, lateness: Lateness) -> None:
    """A nanny that is killed, which we never do, takes its runner and the shard's process along; others come."""
    with Program("tests.faults.programs", "busy", kind, "sleeps") as program:
        program.hear("busy")
        before = {pid: _ids(pid) for pid in program.alive() if pid != program.pid}
        nannies = [pid for pid, (parent, _) in before.items() if parent == program.pid]
        # Daemons that have left the session are beyond us when their nanny is dead; everything else must go.
        doomed = {pid for pid, (_, session) in before.items() if session == program.pid}
        assert len(nannies) == 2
        assert len(doomed) >= (6 if kind == "fork" else 4)
        for pid in nannies:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: not doomed & set(program.alive()), within=GONE, lateness=lateness, paused=program.dying
        )
        wait_until(lambda: len([pid for pid in program.alive() if _ids(pid)[0] == program.pid]) == 2)


def _ids(pid: int) -> tuple[int, int]:
    """A process's parent and its session."""
    with suppress(OSError):
        _, parent, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
        return int(parent), int(session)
    return 0, 0
