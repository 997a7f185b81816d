"""Who owns a work_dir: whoever holds an OS lock on its file. The lock dies with its process, whatever kills it.

The file's content names the owner, for others to read; it is not what locks. The file is never removed: a lock on a
removed file locks nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from contextlib import suppress

from msgspec import Struct

from dispatch.terms.errors import JournalError, WorkDirOccupied

__all__ = ("Lock", "Owner", "owner_of")

TRIES = 10  # somebody who only looks holds the lock for microseconds
WAIT = 0.01  # seconds between them


class Owner(Struct, frozen=True, kw_only=True):
    """The process that runs on a work_dir. `started_at` is wall time in seconds."""

    pid: int
    host: str
    started_at: float
    argv: list[str] = []


class Lock:
    """Holds a work_dir until it is released, or this process ends."""

    def __init__(self, work_dir: str) -> None:
        """Take it, or say who has it. Raises WorkDirOccupied, and JournalError if the file cannot be written."""
        self.owner = Owner(
            pid=os.getpid(), host=os.uname().nodename, started_at=time.time(), argv=list(sys.orig_argv)
        )
        path = _path(work_dir)
        try:
            os.makedirs(work_dir, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(path, str(error)) from error
        try:
            self._take(work_dir)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(_plain(self.owner)).encode(), 0)
        except OSError as error:
            self.release()
            raise JournalError(path, str(error)) from error
        except BaseException:
            self.release()
            raise

    def _take(self, work_dir: str) -> None:
        for left in reversed(range(TRIES)):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not left:
                    owner = _read(self._fd)
                    raise WorkDirOccupied(
                        work_dir, pid=owner.pid, host=owner.host, started_at=owner.started_at
                    ) from None
                time.sleep(WAIT)
            else:
                return

    def release(self) -> None:
        """Let another have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def owner_of(work_dir: str) -> Owner | None:
    """Who holds a work_dir now; None: nobody."""
    try:
        fd = os.open(_path(work_dir), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    finally:
        os.close(fd)
    return None


def _path(work_dir: str) -> str:
    return os.path.join(work_dir, "lock")


def _plain(owner: Owner) -> dict[str, object]:
    return {"pid": owner.pid, "host": owner.host, "started_at": owner.started_at, "argv": owner.argv}


def _read(fd: int) -> Owner:
    with suppress(OSError, ValueError, TypeError):
        return Owner(**json.loads(os.pread(fd, 1 << 20, 0)))
    return Owner(pid=0, host="?", started_at=0.0)  # it has the lock, and has not written its name yet
