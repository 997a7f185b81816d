"""One owner at a time, named by whoever asks; its lock dies with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch.record.lock import Lock, owner_of
from dispatch.terms.errors import JournalError, WorkDirOccupied


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    """While it is held nobody else gets it, not in this process either; the error names the owner."""
    lock = Lock(str(tmp_path / "deep" / "dir"))
    with pytest.raises(WorkDirOccupied, match=f"process {os.getpid()} on {os.uname().nodename}"):
        Lock(str(tmp_path / "deep" / "dir"))
    assert owner_of(str(tmp_path / "deep" / "dir")) == lock.owner
    lock.release()
    lock.release()
    assert owner_of(str(tmp_path / "deep" / "dir")) is None
    Lock(str(tmp_path / "deep" / "dir")).release()


def test_looking_takes_nothing(tmp_path: Path) -> None:
    """Who asks for the owner neither makes a file nor stands in anybody's way."""
    assert owner_of(str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """However its owner is killed, and whatever it has left in the file, the next one gets it."""
    code = f"from dispatch.record.lock import Lock; lock = Lock({str(tmp_path)!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        found = owner_of(str(tmp_path))
        assert found is not None
        assert (found.pid, found.argv[-1]) == (owner.pid, code)
        owner.send_signal(signal.SIGKILL)
        owner.wait(20)
    assert owner_of(str(tmp_path)) is None
    Lock(str(tmp_path)).release()


def test_an_owner_that_has_not_said_its_name(tmp_path: Path) -> None:
    """A lock counts, whatever stands in its file."""
    lock = Lock(str(tmp_path))
    (tmp_path / "lock").write_bytes(b"")
    found = owner_of(str(tmp_path))
    assert found is not None
    assert found.pid == 0
    lock.release()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """Where no lock can be, there is an error that names the place."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="file/lock"):
        Lock(str(tmp_path / "file"))
