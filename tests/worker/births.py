"""Runners that say what their process was born with. Workers import this, so it imports nothing of pytest's."""

import os
import signal
import sys
import threading
from typing import Any

from dispatch.worker.kernel import thread_count


def parent_of(pid: int) -> int:
    """A process's parent, 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def birth(_payload: Any) -> dict[str, Any]:
    """What there is to know of the process that runs this."""
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the listing's own
    default = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCHLD)
    numbers = {signal.SIGINT: "__name__", **dict.fromkeys(default, "name")}
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "fds": fds,
        "oom": int(_read("/proc/self/oom_score_adj")),
        "handlers": [
            getattr(signal.getsignal(number), attribute, None) for number, attribute in numbers.items()
        ],
        "threads": (threading.active_count(), thread_count()),
        "argv": sys.argv,
        "path": sys.path,
        "stdin": sys.stdin.read(),
        "environment": dict(os.environ),
        "command": _read("/proc/self/cmdline").replace("\0", " "),
        "modules": sorted(sys.modules),
        "main": sys.modules["__main__"].__name__,
    }


async def async_birth(payload: Any) -> dict[str, Any]:
    """The same, from an event loop."""
    return birth(payload)
