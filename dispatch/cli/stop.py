"""Stop a run that another process does: what Ctrl-C does there, once to drain, twice to stop."""

from __future__ import annotations

import os
import signal
import time

from dispatch.cli.ending import ALL_DONE, FAILURES, REFUSED, warn
from dispatch.record.archive import Archive, Owner
from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import ConfigError

__all__ = ("stop",)

LOOK = 0.05  # seconds between two looks at whether it has ended
GRACE = 5.0  # seconds, where we cannot read what the run says
SLACK = 10.0  # seconds beyond its grace in which a run must have ended


def stop(work_dir: str, *, now: bool = False) -> int:
    """Ask the run to drain, or with `now` to stop, and wait until it has ended.

    The exit code is 1 if nothing runs there or it did not end within its grace and 10 s, 3 if it runs on another
    machine. Raises JournalError if there is no journal.
    """
    with Archive.open(work_dir) as archive:
        owner = archive.owner()
        if owner is None:
            warn(f"dispatch: nothing runs in {work_dir} (its last run is {archive.state or 'none'})")
            return FAILURES
        if owner.host != os.uname().nodename:
            warn(f"dispatch: process {owner.pid} runs it on {owner.host}; stop it there")
            return REFUSED
        if not _signal(archive, owner, now=now):
            warn("dispatch: it has just ended")
            return ALL_DONE
        said = "stop now" if now else "drain: what runs may finish, nothing new starts"
        warn(f"asked process {owner.pid} to {said}")
        ended = _ended(archive, owner, within=_grace(archive) + SLACK)
        warn(
            "it has ended" if ended else "dispatch: it has not ended; try --now, and look at dispatch status"
        )
        return ALL_DONE if ended else FAILURES


def _signal(archive: Archive, owner: Owner, *, now: bool) -> bool:
    """Send it SIGINT; `now`: SIGTERM behind it, because two equal signals may count as one. Whether it was there."""
    numbers = (signal.SIGINT, signal.SIGTERM) if now else (signal.SIGINT,)
    try:
        if not hasattr(os, "pidfd_open"):  # not Linux: the pid could be another's by now, in theory
            for number in numbers:
                os.kill(owner.pid, number)
            return True
        process = os.pidfd_open(owner.pid)
        try:
            if archive.owner() != owner:  # the lock says that the process is still the run's
                return False
            for number in numbers:
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)
    except ProcessLookupError:
        return False
    return True


def _grace(archive: Archive) -> float:
    run = archive.last_run()
    try:
        return DispatchConfig.load({} if run is None else run.config).policy.grace
    except ConfigError:  # another version wrote it
        return GRACE


def _ended(archive: Archive, owner: Owner, *, within: float) -> bool:
    deadline = time.monotonic() + within
    while archive.owner() == owner:
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK)
    return True
