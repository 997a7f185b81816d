"""From the nanny to a runner process: by fork, or afresh where the nanny has threads and must not fork.

Between the fork and `run_process` stands what makes a runner process its own: a process group, death with its
nanny, the null device on fd 0, none of the nanny's descriptors, and first in line for the kernel's OOM killer.
What the main script opened while it was imported stays open: its handlers and connections know it by number.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from msgspec import Struct

from dispatch.wire.codec import decoder_for, encode
from dispatch.worker.kernel import die_with_parent, keep_freed_memory
from dispatch.worker.main import run_process
from dispatch.worker.slot import Slot
from dispatch.worker.spec import Lease, Place

__all__ = ("Birth", "close_if", "fork_runner", "spawn_runner", "spawned")

_BOOT = "from dispatch.worker.birth import spawned; spawned()"


class Birth(Struct, frozen=True, kw_only=True):
    """What a runner process is born with: its place, lease and life, its nanny's pid, and files."""

    place: Place
    lease: Lease
    life: int
    nanny: int
    slot_fd: int
    output_fd: int
    stack_fd: int


def fork_runner(birth: Birth, slot: Slot, *, line: int) -> int:
    """Fork a runner process; its pid. Only from a process with one thread. `line` is the nanny's, and not for it."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(line)
        _begin(birth, slot)
    finally:
        os._exit(1)


def spawn_runner(birth: Birth) -> int:
    """Start a runner process from nothing: slower by the imports; its pid."""
    fd = os.memfd_create("dispatch-birth") if hasattr(os, "memfd_create") else _pipe_end()
    os.write(fd, encode(birth))
    fds = (fd, birth.slot_fd, birth.output_fd, birth.stack_fd)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(birth.place.paths)}
    child = subprocess.Popen(  # noqa: S603  (our own interpreter and our own words)
        [sys.executable, "-c", _BOOT, str(fd)], pass_fds=fds, env=environment, stdin=subprocess.DEVNULL
    )
    os.close(fd)
    child.returncode = 0  # the nanny waits for it, not subprocess
    return child.pid


def _pipe_end() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def spawned() -> NoReturn:
    """Entry of a runner process that was started from nothing."""
    fd = int(sys.argv[1])
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb") as file:
        birth: Birth = decoder_for(Birth).decode(file.read())
    sys.path[:] = birth.place.paths
    sys.argv[:] = [""]
    os.environ.pop("PYTHONPATH", None)
    if birth.place.main and "__main__" in (
        birth.lease.runner.partition(":")[0],
        birth.lease.center.partition(":")[0],
    ):
        _rerun_main(birth.place.main)
    _begin(birth, Slot.mapped(birth.slot_fd))


def _rerun_main(path: str) -> None:
    """Import the parent's script as anyio does: under another name, so that its guarded part stays out."""
    import runpy
    from types import ModuleType

    main = ModuleType("__mp_main__")
    main.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def _begin(birth: Birth, slot: Slot) -> NoReturn:
    os.setpgid(0, 0)
    die_with_parent(birth.nanny)
    keep_freed_memory()
    # Anyio's pipes, of which uvloop leaves the originals open as well, and the slot, which its map keeps open.
    unwanted = {_file(fd) for fd in (birth.slot_fd, *filter(_is_pipe, (0, 1, 2)))}
    close_if(lambda fd: fd > 2 and _file(fd) in unwanted)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # The streams are anyio's, to the null device: a log handler may have kept them.
    for fd in (1, 2, _number(sys.stdout), _number(sys.stderr)):
        os.dup2(birth.output_fd, fd)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    run_process(
        birth.place, birth.lease, birth.life, slot=slot, capture_fd=birth.output_fd, stack_fd=birth.stack_fd
    )
    raise AssertionError("run_process does not return")


def _number(stream: Any) -> int:
    """A stream's descriptor, 2 if it has none."""
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return 2


def _file(fd: int) -> tuple[int, int]:
    """What a descriptor and its copies have in common; zeros if it is not open."""
    try:
        found = os.fstat(fd)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def close_if(unwanted: Callable[[int], bool]) -> None:
    """Close the descriptors of this process that are not wanted."""
    try:
        fds = [int(fd) for fd in os.listdir("/dev/fd")]
    except OSError:
        fds = list(range(3, 256))
    for fd in fds:
        if unwanted(fd):
            with suppress(OSError):
                os.close(fd)
