"""The host is safe: its signals, its own worker processes, its stalls, and what comes back to it as an exception."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import anyio.to_process
import pytest

from dispatch import DataParallelDispatchCenter, Done, Failed, RemoteError
from tests.faults.culprits import Culprit, Task, double
from tests.faults.scene import Program, config
from tests.hosts_pool import closes_the_hosts_pool

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@LOOPS
def test_ctrl_c_a_hundred_times(loop: str) -> None:
    """100 SIGINTs to the whole process group, handled by the application, leave every answer with its own question."""
    with Program("tests.faults.programs", "ctrl_c", loop) as program:
        code, out, err = program.ended(within=40)
    # asyncio says so where anyio kills a process that a SIGINT has ended already.
    complaints = [line for line in err.splitlines() if not line.startswith("Unknown child process pid")]
    assert (code, complaints) == (0, [])
    assert "wrong" not in out
    assert "asked 400 interrupted" in out


@LOOPS
def test_ctrl_c_while_workers_start(loop: str) -> None:
    """A SIGINT that reaches worker processes before they ignore it costs another start, and no answer."""
    with Program("tests.faults.programs", "ctrl_c_while_starting", loop) as program:
        code, out, err = program.ended(within=40)
    assert (code, out) == (0, "closed\n"), err
    assert "Traceback" not in err


def test_a_host_that_was_stopped_or_stalled() -> None:
    """A host that was stopped for 3 s, or whose loop was blocked for 3 s, fails no finished work."""
    with (
        Program("tests.faults.programs", "stopped_host") as stopped,
        Program("tests.faults.programs", "stalled_loop", "uvloop") as stalled,
    ):
        stopped.hear("open")
        stopped.send(signal.SIGSTOP)
        time.sleep(3)  # the fault itself: so long is the host away
        stopped.send(signal.SIGCONT)
        assert stopped.hear("counts") == "{'done': 16} 1"
        assert stalled.hear("counts") == "{'done': 16} 1"
        assert stopped.ended()[0] == stalled.ended()[0] == 0


@pytest.mark.asyncio
@pytest.mark.both_loops
@closes_the_hosts_pool
async def test_the_hosts_own_worker_processes() -> None:
    """The host's own to_process calls before, during and after a run are answered rightly, by the same idle process."""
    pid = await anyio.to_process.run_sync(os.getpid)
    async with DataParallelDispatchCenter(Culprit, config=config(2)) as center:
        running = asyncio.create_task(center.run([Task(n, "works", 0.005) for n in range(60)]))
        own = [await anyio.to_process.run_sync(double, n) for n in range(30)]
        assert own == [2 * n for n in range(30)]
        assert await anyio.to_process.run_sync(os.getpid) == pid
        assert (await running).counts == {"done": 60}
    assert await anyio.to_process.run_sync(os.getpid) == pid
    assert await anyio.to_process.run_sync(double, 21) == 42
    assert anyio.to_process.current_default_process_limiter().borrowed_tokens == 0


@pytest.mark.asyncio
@closes_the_hosts_pool
async def test_the_hosts_worker_that_exits() -> None:
    """An exit in a call of the host's own ends that call, not a centre's worker, and the centre goes on."""
    async with DataParallelDispatchCenter(Culprit, config=config(1)) as center:
        with pytest.raises(anyio.BrokenWorkerProcess):
            await anyio.to_process.run_sync(os.abort)
        assert (await center.submit(Task(4))).double == 8


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "act",
    [
        "leaves",
        "raises_keyboard_interrupt",
        "raises_generator_exit",
        "raises_cancelled",
        "raises_a_base_group",
        "raises_a_treacherous_one",
        "raises_stop_iteration",
        "raises_stop_async_iteration",
    ],
)
async def test_a_rebuilt_exception_never_ends_the_host(act: str) -> None:
    """Whatever a runner raises, `submit` raises an Exception: nothing that ends or cancels the host."""
    async with DataParallelDispatchCenter(Culprit, config=config(1)) as center:
        try:
            await center.submit(Task(0, act))
        except Exception as raised:  # noqa: BLE001  (that it is one is the test)
            assert not isinstance(raised, asyncio.CancelledError)
            assert str(raised)
        else:
            pytest.fail("it raised nothing")
        outcome = await center.submit_outcome(Task(0, act))
        assert isinstance(outcome, Failed)
        repr(outcome)
        assert isinstance(await center.submit_outcome(Task(1)), Done)
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.asyncio
async def test_a_class_that_the_host_has_not_loaded_is_not_imported() -> None:
    """An exception whose module the host has not loaded comes back as RemoteError, and nothing is imported for it."""
    async with DataParallelDispatchCenter(Culprit, config=config(1)) as center:
        with pytest.raises(RemoteError, match="only workers load this"):
            await center.submit(Task(0, "raises_a_stranger"))
    import sys

    assert "tests.faults.stranger" not in sys.modules
