"""How these tests wait for facts, and count what is left: processes, descriptors, files."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.center.runners import Job, lines

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds that a fact gets on a loaded machine


def on_both_loops(test: Any) -> Any:
    """Run an async test on asyncio's own loop and on uvloop; a file's tests share it, so that centres stay open."""
    return pytest.mark.asyncio(loop_scope="module")(pytest.mark.both_loops(test))


def on_one_loop(test: Any) -> Any:
    """The same on asyncio's own loop only: for what no event loop has a say in."""
    return pytest.mark.asyncio(loop_scope="module")(test)


async def until(fact: Callable[[], Any], within: float = PATIENCE) -> Any:
    """What `fact()` says as soon as it is true; TimeoutError if it never is."""
    with anyio.fail_after(within):
        while not (found := fact()):
            await anyio.sleep(0.005)
    return found


def until_true(fact: Callable[[], Any], within: float = PATIENCE) -> Any:
    """The same, for a test without an event loop."""
    deadline = time.monotonic() + within
    while not (found := fact()):
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.005)
    return found


class Gate:
    """A place where shards wait until it is opened: `job` goes there."""

    def __init__(self, path: Path) -> None:
        self.job = Job("gate", str(path))
        self._path = path

    @property
    def pids(self) -> list[int]:
        """Who has come, in that order."""
        return [int(line) for line in lines(f"{self._path}.in")]

    @property
    def cancelled(self) -> list[int]:
        """Whose task was cancelled here."""
        return [int(line) for line in lines(f"{self._path}.cancelled")]

    async def entered(self, number: int = 1) -> list[int]:
        """Wait until so many are there; who they are."""
        await until(lambda: len(self.pids) >= number)
        return self.pids

    def open(self) -> None:
        """Let them go."""
        Path(f"{self._path}.go").touch()


NewGate = Callable[[], Gate]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def descendants(of: int | None = None) -> set[int]:
    """The living processes below one, by default below this one."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    below = [os.getpid() if of is None else of]
    while below:
        own = children.get(below.pop(), [])
        found.update(own)
        below.extend(own)
    return found


def open_files() -> list[str]:
    """What this process holds open: sockets, pipes, files; without the numbers that differ each time."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(":[")[0])
        except OSError:
            continue  # the one that lists the directory
    return sorted(found)


def script(*arguments: str, stdin: bool = False) -> subprocess.Popen[str]:
    """Start Python with these arguments, in development mode and with warnings as errors."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", *arguments],
        cwd=ROOT,
        env=environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Run Python with these arguments to its end: exit code, stdout, stderr.

    Left out: asyncio's remarks on a slow step of its loop, which say that this machine is busy.
    """
    with script(*arguments, stdin=stdin is not None) as program:
        out, err = program.communicate(stdin, timeout=50)
    complaints = [line for line in err.splitlines(keepends=True) if not line.startswith("Executing <")]
    return program.returncode, out, "".join(complaints)
