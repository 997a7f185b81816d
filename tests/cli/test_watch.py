"""The watcher writes every outcome before the run goes on, and ends the run when it cannot."""

import asyncio
import errno
import io
import json
from typing import Any

import pytest

from dispatch import Done, Draining, Failed, Fault, Printed, Settled
from dispatch.cli.watch import Watcher
from dispatch.record.progress import Progress
from dispatch.terms.errors import CenterClosed
from dispatch.terms.shard import Entry, Origin

ORIGIN = Origin(0, bytes)


class Kept:
    """Rows in a list; a disk that is full after so many."""

    def __init__(self, room: int = 100) -> None:
        self.rows: list[tuple[int, Any]] = []
        self._room = room

    def add(self, index: int, line: bytes) -> None:
        """Keep it, if there is room."""
        if len(self.rows) >= self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.rows.append((index, json.loads(line)))


class Center:
    """Knows whether it was drained."""

    drained = False

    def __init__(self) -> None:
        self.was_drained = asyncio.Event()

    def drain(self) -> None:
        """Yes."""
        self.drained = True
        self.was_drained.set()

    def snapshot(self) -> Any:
        """It is not open."""
        raise CenterClosed("snapshot")


def settled(*indices: int) -> Settled:
    """These shards are done."""
    outcomes = [Done(value=index, entry=Entry(index, b"", ORIGIN)) for index in indices]
    return Settled(at=0.0, outcomes=outcomes)


def test_every_outcome_is_written_when_it_is_said() -> None:
    """In the order in which they come, before `hear` returns."""
    kept: Any = Kept()
    watcher = Watcher(Progress(3), out=kept, as_json=False)
    watcher.hear(settled(2, 0))
    assert [index for index, _ in kept.rows] == [2, 0]
    watcher.hear(settled(1))
    assert kept.rows[-1][1]["value"] == 1
    assert watcher.progress.finished == 3


def test_a_full_disk_ends_the_run() -> None:
    """The centre is drained, the error is kept for `run`, and nothing more is written."""
    kept: Any = Kept(room=1)
    center: Any = Center()
    watcher = Watcher(Progress(3), out=kept, as_json=False)
    watcher.center = center
    watcher.hear(settled(0, 1))
    assert isinstance(watcher.error, OSError)
    assert center.drained
    watcher.hear(settled(2))
    assert len(kept.rows) == 1
    assert watcher.progress.finished == 3


def test_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Outcomes and rare events are told at once, and what shards print is not."""
    watcher = Watcher(Progress(), out=None, as_json=True)
    fault = Fault(cause="raised", type="ValueError", message="no")
    watcher.hear(Settled(at=0.0, outcomes=[Failed(fault=fault, entry=Entry(0, b"", ORIGIN))]))
    watcher.hear(Printed(at=0.0, shard_id="0", pid=1, text="hello"))
    watcher.hear(Draining(at=2.0))
    failed, draining = map(json.loads, capsys.readouterr().out.splitlines())
    assert (failed["cause"], failed["fault"]) == ("raised", {"type": "ValueError", "message": "no"})
    assert draining == {"event": "draining", "at": 2.0}


class Gone(io.StringIO):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        """It was one."""
        return True

    def write(self, text: str, /) -> int:
        """Not any more."""
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.asyncio
async def test_what_fails_in_showing_ends_the_showing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is gone ends no run, and the watcher goes on with what else it does."""
    monkeypatch.setattr("sys.stderr", Gone())
    center: Any = Center()
    watcher = Watcher(Progress(3), out=None, as_json=False)
    watcher.error = OSError(errno.ENOSPC, "No space left on device")
    watching = asyncio.create_task(watcher.watch(center))
    await asyncio.wait_for(center.was_drained.wait(), 20)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


@pytest.mark.asyncio
async def test_lines_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under stderr ends no run either."""
    monkeypatch.setattr("dispatch.cli.watch.FIRST_LINE", 0.0)
    center: Any = Center()
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        watcher = Watcher(Progress(3), out=None, as_json=False)
        watcher.error = OSError(errno.ENOSPC, "No space left on device")
        watching = asyncio.create_task(watcher.watch(center))
        await asyncio.wait_for(center.was_drained.wait(), 20)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
