"""What the tests of faults share: how late the machine is, who was innocent, and a program of its own to interrupt.

Everything waits for facts, bounded in time; nothing here sleeps to let something happen.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import anyio

from dispatch import DataParallelDispatchCenter, DispatchConfig, Done, Failed, Policy, Report
from dispatch.testing.traces import is_alive

MARK = "DISPATCH_TESTING_MARK"  # in the environment of a process and of all that it starts
A_LOOK = 0.005  # seconds between looks
ROOT = Path(__file__).parents[2]


class Lateness:
    """How much later than asked this process wakes up, at the worst, while inside."""

    STEP = 0.01  # seconds

    def __init__(self) -> None:
        self._worst = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def _measure(self) -> None:
        while not self._over.is_set():
            due = time.monotonic() + self.STEP
            self._over.wait(self.STEP)
            self._worst = max(self._worst, time.monotonic() - due)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def slack(self) -> float:
        """Seconds to add to a bound: a few wake-ups in a row, each as late as the latest one seen."""
        return 5 * self._worst


def config(workers: int = 2, *, max_value_bytes: int = 1 << 20, **policy: Any) -> DispatchConfig:
    """A configuration with this policy."""
    return DispatchConfig(data_parallel=workers, max_value_bytes=max_value_bytes, policy=Policy(**policy))


async def run(runner: Any, shards: Iterable[Any], *, workers: int = 2, **policy: Any) -> Report[Any]:
    """Run shards on worker processes."""
    return await DataParallelDispatchCenter(runner, shards, config=config(workers, **policy)).run()


def uncharged(report: Report[Any], *, but: Iterable[int] = ()) -> None:
    """Assert that all shards but some are Done, and at their first attempt, by the parent's books."""
    others = [outcome for outcome in report.outcomes if outcome.index not in set(but)]
    assert [outcome for outcome in others if not isinstance(outcome, Done)] == []
    assert {len(outcome.attempts) for outcome in others} == {1}


def failed(report: Report[Any], index: int) -> Failed:
    """The one outcome that is not Done, which must be this shard's."""
    [outcome] = report.failures
    assert isinstance(outcome, Failed)
    assert outcome.index == index
    return outcome


def wait_until(
    holds: Any, *, within: float = 10.0, lateness: Lateness | None = None, paused: Any = lambda: False
) -> None:
    """Look again and again until something holds; AssertionError if it does not, within so many seconds.

    With `lateness` they are as many more as the machine is late while we wait. Time in which `paused` holds does not
    count, up to 10 s.
    """
    began = last = time.monotonic()
    spent = 0.0
    while not holds():
        seconds = within + (lateness.slack if lateness is not None else 0.0)
        now = time.monotonic()
        spent += 0.0 if paused() else now - last
        last = now
        assert spent < seconds, f"not within {seconds} s"
        assert now - began < seconds + 10.0, f"paused for {now - began - spent} s"
        time.sleep(A_LOOK)


async def until(holds: Any, *, within: float = 10.0) -> None:
    """The same, while the event loop goes on."""
    with anyio.fail_after(within):
        while not holds():
            await anyio.sleep(A_LOOK)


class Program:
    """A Python program in a session of its own, to be interrupted. It says lines, and every one is a fact.

    `mark` finds all its processes, escapees included.
    """

    def __init__(self, module: str, *arguments: str, **variables: str) -> None:
        self.mark = f"{os.getpid()}-{os.urandom(8).hex()}"
        environment = {**os.environ, MARK: self.mark, "PYTHONPATH": str(ROOT), **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._said = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self, word: str, *, within: float = 15.0) -> str:
        """Wait for a line that begins with this word; the rest of the line."""
        until = time.monotonic() + within
        while True:
            while b"\n" in self._said:
                line, _, self._said = self._said.partition(b"\n")
                first, _, rest = line.decode().partition(" ")
                if first == word:
                    return rest
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert data, f"did not say {word!r} within {within} s: {self.ended() if ready else 'silent'}"
            self._said += data

    def ended(self, *, within: float = 15.0) -> tuple[int, str, str]:
        """Wait for its end: exit code, the rest of stdout, stderr."""
        out, err = self.process.communicate(timeout=within)
        return self.process.returncode, (self._said + out).decode(), err.decode()

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the program, or as a terminal does to its whole process group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def alive(self) -> list[int]:
        """Its living processes: itself, its workers, and whatever they have started."""
        words = f"{MARK}={self.mark}".encode()
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if words in _environment(pid) and is_alive(pid)]

    def dying(self) -> bool:
        """Whether one of them has been killed and not had its turn to die: the scheduler's time, and not ours.

        A process that spins has used up its turns: beside ten others on two processors that takes a second, now and
        then, and no sleeper (`Lateness`) is as late.
        """
        return any(map(_is_dying, self.alive()))


def _is_dying(pid: int) -> bool:
    """Whether a process has a SIGKILL pending, or is on its way out (PF_EXITING of Linux' sched.h)."""
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        pending = [int(line[8:], 16) for line in status.splitlines() if line[:7] in ("SigPnd:", "ShdPnd:")]
        flags = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])
        return any(mask >> signal.SIGKILL - 1 & 1 for mask in pending) or bool(flags & 0x4)
    return False


def _environment(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""
