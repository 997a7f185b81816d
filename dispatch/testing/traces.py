"""What a centre or an engine could leave behind: processes, sockets, files. Reads /proc; elsewhere it sees nothing.

Processes are known by a mark in their environment, which children inherit: so one that has left its parent, its
group and its session is found too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from glob import glob

from msgspec import Struct

from dispatch.testing.proof import until

__all__ = ("Traces", "is_alive", "leaves_nothing", "processes")

WITHIN = 2.0  # seconds in which what was left has to go, on a loaded machine
MARK = "DISPATCH_TESTING_MARK"


class Traces(Struct, frozen=True):
    """What is there now: pids with their command lines, open sockets and nameless files, names of ours."""

    processes: frozenset[str]
    descriptors: frozenset[str]
    names: frozenset[str]

    @classmethod
    def now(cls) -> Traces:
        """What is there now."""
        found = frozenset(f"process {pid} ({_command(pid)})" for pid in processes())
        return cls(found, frozenset(_descriptors()), frozenset(_names()))

    def beyond(self, before: Traces) -> list[str]:
        """What is here and was not there before."""
        return sorted(
            (self.processes - before.processes)
            | (self.descriptors - before.descriptors)
            | (self.names - before.names)
        )


@asynccontextmanager
async def leaves_nothing(*, within: float | None = None) -> AsyncGenerator[None]:
    """A block after which, `within` so many seconds (WITHIN), nothing is left that was not there before.

    Looked for: processes of ours, also such as have left our tree; sockets and nameless files; files and addresses.

    Raises AssertionError, naming what is left. What the block raises comes first.
    """
    _mark()
    before = Traces.now()
    yield
    if not await until(lambda: not Traces.now().beyond(before), within=WITHIN if within is None else within):
        raise AssertionError("left behind: " + ", ".join(Traces.now().beyond(before)))


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def processes() -> list[int]:
    """Processes that this one has started since `leaves_nothing` marked it, and that live; escapees included."""
    mark = os.environ.get(MARK)
    if mark is None:
        return []
    words = f"{MARK}={mark}".encode()
    return [pid for pid in _pids() if pid != os.getpid() and words in _environment(pid) and is_alive(pid)]


def _mark() -> None:
    if not os.environ.get(MARK, "").startswith(f"{os.getpid()}-"):
        os.environ[MARK] = f"{os.getpid()}-{os.urandom(8).hex()}"


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _environment(pid: int) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()
    return b""


def _command(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return "gone"


def _descriptors() -> Iterator[str]:
    """Open sockets and nameless files. Not pipes and the like: event loops open those when they first need them."""
    with suppress(OSError):
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/self/fd/{fd}")
                if target.startswith(("socket:", "/memfd:")) or "(deleted)" in target:
                    yield f"descriptor {fd} ({target})"


def _names() -> Iterator[str]:
    """Files of ours, and addresses that this process listens on."""
    for directory in {"/dev/shm", "/tmp", tempfile.gettempdir()}:  # noqa: S108  (to look there)
        yield from glob(os.path.join(directory, "dispatch-*"))
    with suppress(OSError), open("/proc/net/unix") as file:
        for line in file:
            name = line.rpartition(" ")[2].strip()
            if name.startswith(f"@dispatch-{os.getpid()}-"):
                yield name
