"""What a runner prints: fd 1 and 2 go to a nameless file, which runner and nanny both hold.

A file never blocks its writer, survives the runner, and needs no reader. After each shard the runner asks how
long it is; the nanny cuts it back when a flood makes it long.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from time import monotonic, sleep

from dispatch.worker.kernel import punch_hole
from dispatch.worker.slot import Slot

__all__ = ("HEAD", "TAIL", "Capture", "await_dump", "nameless_file", "read_tail", "trim")

HEAD = 64 * 1024  # bytes of each shard's output that reach the parent
TAIL = 8 * 1024  # bytes at its end that are attached to a fault
FLOOD = 1024 * 1024  # bytes at which the nanny cuts the file back
DUMP_WAIT = 0.1  # seconds that a process gets to write down where it hangs
DUMP_LOOK = 0.002  # seconds between two looks whether it has


def nameless_file(name: str) -> int:
    """A file without a name, in append mode; its descriptor."""
    import fcntl

    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name)
    else:
        import tempfile  # 3 ms, and not on Linux

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


def read_tail(fd: int, number: int = TAIL) -> str:
    """The last bytes of a file, as text."""
    size = os.lseek(fd, 0, os.SEEK_END)
    start = max(0, size - number)
    return os.pread(fd, size - start, start).decode(errors="replace")


def await_dump(fd: int, before: int, wanted: Callable[[], bool]) -> None:
    """Wait, not for long and while it is `wanted`, until a file of `before` bytes has got a dump of faulthandler.

    A dump is written in small pieces: it is whole when a line has ended and nothing followed until the next look.
    """
    until, seen = monotonic() + DUMP_WAIT, before
    while wanted() and monotonic() < until:
        sleep(DUMP_LOOK)
        size = os.fstat(fd).st_size
        if before < size == seen and os.pread(fd, 1, size - 1) == b"\n":
            return
        seen = size


def trim(fd: int, slot: Slot) -> None:
    """Cut a flood back to its head and its tail; where holes are known, what is written meanwhile is kept."""
    size = os.lseek(fd, 0, os.SEEK_END)
    if size > FLOOD and not punch_hole(fd, HEAD, size - TAIL):
        tail = os.pread(fd, TAIL, size - TAIL)
        slot.cut += size - HEAD - len(tail)
        os.ftruncate(fd, HEAD)
        os.write(fd, tail)


class Capture:
    """The runner's side: takes over fd 1 and 2, and the three streams of `sys`.

    `touched` says that something may have been printed. What goes through Python sets it at once; what is written
    past Python is found when a lane flushes, and from then on (`watchful`) it stays set: look after every shard.
    """

    def __init__(self, fd: int, slot: Slot) -> None:
        self.fd, self._slot = fd, slot
        self.touched = self.watchful = False
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        self._former = (sys.stdin, sys.stdout, sys.stderr)  # a log handler may write to them yet
        stdin = open(0, closefd=False)  # noqa: SIM115  (it stays)
        sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]  # the interpreter's own names
        sys.stdout = sys.__stdout__ = _Text(1, self)  # type: ignore[misc]  # the interpreter's own names
        sys.stderr = sys.__stderr__ = _Text(2, self)  # type: ignore[misc]  # the interpreter's own names

    def size(self) -> int:
        """Bytes printed and not yet taken."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def take(self) -> tuple[str, int, str]:
        """The head of what was printed, the number of bytes left out of it, and the tail. Starts afresh."""
        size = self.size()
        head = os.pread(self.fd, min(size, HEAD), 0).decode(errors="replace")
        tail = head[-TAIL:] if size <= HEAD else read_tail(self.fd)
        cut = size - min(size, HEAD) + self._slot.cut
        os.ftruncate(self.fd, 0)
        self._slot.cut = 0
        self.touched = self.watchful
        return head, cut, tail


class _Text(io.TextIOWrapper):
    """Unbuffered, as under `python -u`: what a shard printed is in the file when the shard ends or dies."""

    def __init__(self, fd: int, capture: Capture) -> None:
        raw = io.FileIO(fd, "w", closefd=False)
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        self._capture = capture

    def write(self, text: str) -> int:
        self._capture.touched = True
        return super().write(text)
