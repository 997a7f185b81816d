"""From the nanny to a runner process: by fork, or afresh where the nanny has threads and must not fork.

Between the fork and `run_process` stands what makes a runner process its own: a process group, death with its
nanny, the null device on fd 0, none of the nanny's descriptors, and first in line for the kernel's OOM killer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from msgspec import Struct

from dispatch.wire.codec import decoder_for, encode
from dispatch.worker.kernel import die_with_parent, keep_freed_memory
from dispatch.worker.main import run_process
from dispatch.worker.slot import Slot
from dispatch.worker.spec import Place

__all__ = ("Birth", "close_others", "fork_runner", "spawn_runner", "spawned")

_BOOT = "from dispatch.worker.birth import spawned; spawned()"


class Birth(Struct, frozen=True, kw_only=True):
    """What a runner process is born with: its place and life, its nanny's pid, and descriptors of the nanny's."""

    place: Place
    life: int
    nanny: int
    slot_fd: int
    output_fd: int
    stack_fd: int


def fork_runner(birth: Birth, slot: Slot) -> int:
    """Fork a runner process; its pid. Only from a process with one thread."""
    pid = os.fork()
    if pid:
        return pid
    try:
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
        birth.place.lease.runner.partition(":")[0],
        birth.place.lease.center.partition(":")[0],
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
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    keep = {0, birth.output_fd, birth.stack_fd}  # the slot is mapped by now
    os.dup2(birth.output_fd, 1)
    os.dup2(birth.output_fd, 2)
    close_others(keep | {1, 2})
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    run_process(birth.place, birth.life, slot=slot, capture_fd=birth.output_fd, stack_fd=birth.stack_fd)
    raise AssertionError("run_process does not return")


def close_others(keep: set[int]) -> None:
    """Close every descriptor of this process but those in `keep`."""
    try:
        fds = [int(fd) for fd in os.listdir("/dev/fd")]
    except OSError:
        fds = list(range(3, 256))
    for fd in fds:
        if fd not in keep:
            with suppress(OSError):
                os.close(fd)
