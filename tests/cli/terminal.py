"""How these tests type a command: into a shell without a terminal, or into a terminal of so many columns."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "dispatch"]
TARGETS = "tests.cli.targets"


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its output as lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment() -> dict[str, str]:
    """Ours, with this tree first and a terminal of 80 columns."""
    told = {"PYTHONPATH": str(ROOT), "COLUMNS": "80", "TERM": "xterm-256color"}
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}, **told}


def dispatch(*arguments: object, text: str | None = None, cwd: Path = ROOT, **variables: str) -> Said:
    """Run a command to its end; `text` is its standard input, `variables` are added to its environment."""
    ended = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**environment(), **variables},
        input=text or "",
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return Said(ended.returncode, ended.stdout, ended.stderr)


class Typed:
    """A command that goes on, in a process group of its own as under a shell."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> Said:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=40)
        return Said(self.process.returncode, out, err)


def on_terminal(arguments: Sequence[object], *, columns: int = 80, lines: int = 24) -> tuple[int, str]:
    """Run a command in a terminal; its exit code, and every byte that it wrote there."""
    env = {name: value for name, value in environment().items() if name != "COLUMNS"}
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [*COMMAND, *map(str, arguments)], env)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    written = b""
    while True:
        try:
            read = os.read(fd, 65536)
        except OSError:  # the terminal has no other end any more
            break
        if not read:
            break
        written += read
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), written.decode()
