"""The process engine: who may connect, and what becomes of workers whose nanny or whose centre dies."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from anyio import to_process

from dispatch.engines import pool, process
from dispatch.engines.process import ProcessEngine
from dispatch.testing import Identify, Succeed, Touch, WaitFor, leaves_nothing, play, until
from dispatch.testing.stage import on_stage
from dispatch.testing.traces import is_alive, processes
from dispatch.wire import frames
from tests.hosts_pool import closes_the_hosts_pool
from tests.worker.nannies import parent_of

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]


def length(number: int) -> bytes:
    """What stands before a frame of so many bytes."""
    return struct.pack("<I", number)


def hello(engine, *, token=None, role="runner", worker=0) -> bytes:
    """What a peer says first."""
    return frames.encode(frames.Connect(token or engine._token, role, worker, os.getpid(), 1))


STRANGERS = {
    "no token": lambda engine: hello(engine, token=b"x" * 16),
    "half a token": lambda engine: hello(engine, token=engine._token[:8]),
    "a nanny without a token": lambda engine: hello(engine, token=b"n" * 16, role="nanny"),
    "another worker": lambda engine: hello(engine, worker=99),
    "a second runner": hello,
    "garbage": lambda engine: length(64) + os.urandom(64),
    "another frame": lambda engine: frames.encode(frames.Ready(1, 1, several=False)),
    "an oversized length": lambda engine: length(1 << 31) + b"x",
    "more than a stranger may say": lambda engine: length(2 << 20) + b"x",
    "nothing at all": lambda engine: length(0),
}


@pytest.mark.both_loops
async def test_strangers_are_dropped() -> None:
    """A peer that does not prove itself is disconnected at once, and the workers do not notice."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate), Succeed("undisturbed")))
        await stage.see_file("began")
        for who, says in STRANGERS.items():
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.setblocking(False)
                stranger.connect(stage.engine._address)
                stranger.send(says(stage.engine))
                await stage.see(lambda: _is_closed(stranger), f"{who} was not dropped")
        assert not stage.engine._strangers
        stage.open_gate()
        await stage.see(stage.host.done, "the worker was disturbed")
        assert stage.host.done() == [(first, "undisturbed")]
        assert not stage.host.all(frames.Ended)


def _is_closed(sock) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def test_half_a_frame_and_gone_is_nothing() -> None:
    """A stranger that says half a hello and leaves is forgotten, and one that stays silent is dropped in time."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(stage.engine._address)
            stranger.send(hello(stage.engine)[:-3])
            await stage.see(lambda: stage.engine._strangers, "the stranger was not let in")
        await stage.see(lambda: not stage.engine._strangers, "the stranger was not forgotten")
        stage.give(play(Succeed("undisturbed")))
        await stage.see(stage.host.done, "the worker was disturbed")


async def test_a_silent_stranger_is_dropped_in_time(monkeypatch) -> None:
    """A peer gets HANDSHAKE seconds to say who it is."""
    monkeypatch.setattr(process, "HANDSHAKE", 0.1)
    async with on_stage(ProcessEngine) as stage:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.setblocking(False)
            stranger.connect(stage.engine._address)
            await stage.see(lambda: _is_closed(stranger), "the stranger was not dropped")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_another_user_is_dropped() -> None:
    """A peer of another user is disconnected, even with the token: the address has no permissions of its own."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        code = f"""if True:
            import os, socket
            os.setuid(65534)
            sock = socket.socket(socket.AF_UNIX)
            sock.connect({stage.engine._address!r})
            try:
                sock.send({hello(stage.engine, role="nanny")!r})
                print(sock.recv(1))
            except OSError:
                print(b"")
        """
        other = await anyio.run_process([sys.executable, "-c", code])
        assert other.stdout == b"b''\n"
        assert not stage.host.all(frames.Ended)


@pytest.mark.both_loops
async def test_a_nanny_that_is_killed_costs_a_life_and_no_more() -> None:
    """After SIGKILL to a nanny its runner is gone, the end is told, nobody is blamed, and the worker lives again."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate)))
        await stage.see_file("began")
        os.kill(parent_of(runner), signal.SIGKILL)
        ended = await stage.see_end()
        assert (ended.why, ended.seq) == ("nanny", 0)
        assert await until(lambda: not is_alive(runner), within=2.0)
        for life in (2, 3):
            stage.start()
            await stage.ready(lives=life)
            stage.give(play(Identify()))
            await stage.see(lambda: len(stage.host.done()) == life - 1, "the new life does not work")  # noqa: B023
            os.kill(parent_of(stage.host.all(frames.Ready)[-1].pid), signal.SIGKILL)
            await stage.see_end(lives=life)
        assert len(stage.host.all(frames.Ended)) == 3


async def test_a_runner_dies_with_its_nanny() -> None:
    """A runner whose nanny is killed dies by itself: here the engine's loop stands still and cannot help."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        os.kill(parent_of(runner), signal.SIGKILL)
        until_when = time.monotonic() + 10
        while is_alive(runner) and time.monotonic() < until_when:
            time.sleep(0.005)
        assert not is_alive(runner)


async def test_a_nanny_that_cannot_take_over_is_told_and_ended(monkeypatch) -> None:
    """What a nanny raises before it has its place is the reason of a failed start, and its process does not stay."""
    monkeypatch.setattr(process, "encode", lambda place: b"\xc1")
    async with leaves_nothing(), on_stage(ProcessEngine) as stage:
        stage.start()
        ended = await stage.see_end()
        assert ended.why == "startup"
        [fault] = stage.host.faults()
        assert "could not be started" in fault.message
        assert "DecodeError" in fault.message
        assert await until(lambda: not processes(), within=2.0), f"left: {processes()}"


async def test_a_nanny_that_stands_still_is_ended(monkeypatch) -> None:
    """A nanny that is stopped watches nobody: after SILENCE it is killed, and the end is told."""
    monkeypatch.setattr(process, "SILENCE", 0.5)
    async with leaves_nothing(), on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        nanny = parent_of(runner)
        os.kill(nanny, signal.SIGSTOP)
        ended = await stage.see_end()
        assert ended.why == "nanny"
        for pid in (nanny, runner):
            assert await until(lambda: not is_alive(pid), within=2.0)  # noqa: B023


def _age_of(pid: int) -> float:
    """Seconds since a process was started."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.both_loops
@pytest.mark.parametrize("apart", [True, False], ids=["a pool of our own", "the host's pool"])
@closes_the_hosts_pool
async def test_the_hosts_own_process_is_left_alone(monkeypatch, apart) -> None:
    """A process that has served the host is no worker of ours, and serves the host again afterwards.

    Without a pool of our own anyio gives us the host's idle process: it is refused, and let go again.
    """
    if not apart:
        monkeypatch.setattr(pool, "_variables", [])
    theirs = await to_process.run_sync(os.getpid)
    assert await until(lambda: _age_of(theirs) > 0.3)
    async with on_stage(ProcessEngine) as stage:
        for worker in (0, 1):
            stage.start(worker)
            await stage.ready(worker)
            assert parent_of(stage.host.all(frames.Ready, worker)[0].pid) != theirs
        assert await to_process.run_sync(os.getpid) == theirs, "during"
        stage.give(play(Succeed("ours")))
        await stage.see(stage.host.done, "our worker does not work")
    assert await to_process.run_sync(os.getpid) == theirs, "afterwards"
    assert is_alive(theirs)


PARENT = """
import sys
from dispatch import DataParallelDispatchCenter, DispatchConfig
from dispatch.testing import Daemon, Hang, ScriptedRunner, play

if __name__ == "__main__":
    scripts = [play(Daemon(path), Hang(spinning=True)) for path in sys.argv[1:]]
    DataParallelDispatchCenter(ScriptedRunner, scripts, config=DispatchConfig(data_parallel=2)).start()
"""


async def test_a_killed_parent_leaves_nothing(tmp_path) -> None:
    """After `kill -9` of the parent no runner, no nanny and no daemon is left."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    daemons = [tmp_path / "one", tmp_path / "two"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    async with leaves_nothing():
        environment |= {name: os.environ[name] for name in os.environ if name.startswith("DISPATCH_")}
        parent = subprocess.Popen(
            [sys.executable, script, *daemons], env={**environment, "PYTHONPATH": str(ROOT)}
        )
        try:
            assert await until(lambda: all(path.exists() for path in daemons))
            # The parent; a nanny, a runner and a daemon for each; what forked the daemon ends a moment later.
            assert await until(lambda: len(processes()) == 1 + 2 * 3), f"there are: {processes()}"
        finally:
            parent.kill()
            parent.wait()
        assert await until(lambda: not processes(), within=3.0), f"left: {processes()}"
    assert not any(is_alive(int(path.read_text())) for path in daemons)


BAD_MAINS = {
    "raises": ("raise LookupError('not for import')", "LookupError: not for import.*must import cleanly"),
    "reads argv": ("sys.argv[1]", "IndexError.*every worker imports the main script"),
    "exits": ("sys.exit(5)", "main script"),
    "unguarded": ("center.start()", "(?i)every worker imports it; put the start under: if __name__"),
}
BAD_MAIN = """
import sys
from dispatch import DataParallelDispatchCenter, DispatchConfig
from dispatch.testing import ScriptedRunner, Succeed, play

center = DataParallelDispatchCenter(ScriptedRunner, [play(Succeed())], config=DispatchConfig(data_parallel=2))
if __name__ == "__mp_main__":
    {what}
if __name__ == "__main__":
    center.start()
"""


@pytest.mark.parametrize("which", BAD_MAINS)
async def test_a_main_script_that_workers_cannot_import_is_told(tmp_path, which) -> None:
    """A main script that fails in a worker is one clear error in the parent, with the cure, and leaves nothing."""
    what, says = BAD_MAINS[which]
    script = tmp_path / "main.py"
    script.write_text(BAD_MAIN.format(what=what))
    async with leaves_nothing():
        with anyio.fail_after(30):
            done = await anyio.run_process(
                [sys.executable, "-W", "error", str(script), "argument"],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
    error = done.stderr.decode()
    assert done.returncode == 1
    assert "StartupFailed" in error
    assert re.search(says, error, re.DOTALL), error
    assert "ResourceWarning" not in error
