"""What the nanny asks of the operating system about processes: subreaper, children, memory, threads.

Linux answers all of it. Elsewhere there is no subreaper and no /proc: a runner's process group is killed, what
escaped from it by `setsid` is not found, and memory is not known.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from time import monotonic, sleep
from typing import Any

__all__ = (
    "become_subreaper",
    "catches",
    "children",
    "die_with_parent",
    "keep_freed_memory",
    "kill_tree",
    "memory_of",
    "punch_hole",
    "started_at",
    "thread_count",
    "wake_with_parent",
)

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PUNCH_HOLE_KEEP_SIZE = 3  # fallocate(2)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_PAGE = os.sysconf("SC_PAGE_SIZE")


@cache  # a fork per shard asks it each time
def _libc() -> Any:
    import ctypes  # 5 ms: only processes that call this pay

    return ctypes.CDLL(None)


def _prctl(option: int, value: int) -> None:
    _libc().prctl(option, value, 0, 0, 0)


def become_subreaper() -> None:
    """Inherit every orphan among the descendants, daemons and `setsid` escapees included (prctl(2))."""
    if _LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent` dies; exit at once if it has died already."""
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def wake_with_parent() -> None:
    """Go on when the parent dies, even if stopped: else a process that somebody stopped would outlive it for ever."""
    if _LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def keep_freed_memory() -> None:
    """Use freed memory again, up to 64 MiB, before it goes back to the kernel; where malloc is not glibc's, nothing.

    A value of 1 MiB is allocated and freed for each shard: with a page fault for each of its pages, again and again,
    it costs four times as much. Who has set malloc's own variables knows better.
    """
    if _LINUX and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(_libc(), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
            mallopt(_M_TRIM_THRESHOLD, 64 * 1024 * 1024)


def thread_count() -> int:
    """Threads of this process, native ones included; 1 where that is not known."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        import threading

        return threading.active_count()


def started_at() -> float:
    """When this process started, wall time in seconds, at least 10 ms coarse; infinity where not known."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            uptime = float(file.read().split()[0])
    except OSError:
        return float("inf")
    import time

    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; True where that is not known."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            caught = next((line[7:] for line in file if line.startswith(b"SigCgt:")), None)
    except OSError:
        caught = None
    return caught is None or bool(int(caught, 16) >> (number - 1) & 1)


def memory_of(pid: int) -> tuple[int, int]:
    """Resident and private bytes of a process; zeros where not known. Mapped files do not count as private."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _size, resident, shared = map(int, file.read().split()[:3])
    except (OSError, ValueError):
        return 0, 0
    return resident * _PAGE, (resident - shared) * _PAGE


def punch_hole(fd: int, start: int, end: int) -> bool:
    """Let go of a part of a file and keep its size: who writes at its end notices nothing. False if it cannot be."""
    if not _LINUX:
        return False
    import ctypes

    sizes = ctypes.c_int64(start), ctypes.c_int64(end - start)
    return not _libc().fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, *sizes)


def kill_tree(group: int, *, within: float = 2.0, spare: Collection[int] = ()) -> bool:
    """Kill and reap a process group and all our children until none is left, orphans that reach us included.

    False if something could not be killed `within` so many seconds. Processes in `spare` stay.
    """
    if _LINUX and not has_children():
        return True  # every orphan reaches us, so nothing of the group is left either
    with suppress(ProcessLookupError, PermissionError):
        if group > 1:
            os.killpg(group, signal.SIGKILL)
    if not has_children():
        return True
    until = monotonic() + within
    pause = 0.0002
    while True:
        found = [pid for pid in children() if pid not in spare]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not _reap(found) and not found:
            return True
        if monotonic() > until:
            return False
        sleep(pause)
        pause = min(0.01, pause * 2)


def _reap(pids: list[int]) -> bool:
    """Collect those that are dead; whether there was one."""
    found = False
    for pid in pids:
        with suppress(ChildProcessError):
            found = os.waitpid(pid, os.WNOHANG)[0] != 0 or found
    return found


def has_children() -> bool:
    """Whether there is any child of ours, dead or alive: much quicker to know than which."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The processes whose parent we are; orphans that reached us included. Empty where not known."""
    if not _LINUX:
        return []
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == me]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
