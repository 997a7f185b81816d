"""A run begins by owning its work_dir, and by noting what became of the run before."""

import asyncio
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dispatch.record.archive import Archive
from dispatch.record.journal import Identity, Journal
from dispatch.record.schema import connect_reader
from dispatch.terms.errors import RunDrifted, WorkDirOccupied
from tests.record.recorded import add_run, add_shard, writing

pytestmark = pytest.mark.asyncio
SAME = Identity(runners={"double": "1"}, shared=None)


async def begun(work_dir: Path, identity: Identity = SAME, **how: Any) -> Journal:
    """A run."""
    options: dict[str, Any] = {"resume": "done", "allow_drift": False, "config": {}} | how
    return await Journal.open(str(work_dir), identity, **options)


async def test_what_differs_is_named() -> None:
    """Each thing that has changed since the run before is named, with what it was and what it is."""
    before = Identity(runners={"a": "1", "b": "1"}, shared=None)
    assert before.changes(before) == {}
    assert Identity(runners={"a": "2", "b": "1"}, shared=bytes(16)).changes(before) == {
        "a.version": ("'1'", "'2'"),
        "the shared param": ("none", "000000000000"),
    }
    assert Identity(runners={"c": "1"}, shared=None).changes(before) == {"the runner": ("a, b", "c")}


async def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    """A run is running and owned while it is open, then it is what it was closed as, and nobody's."""
    journal = await begun(tmp_path, config={"seed": 7})
    with Archive.open(tmp_path) as archive:
        assert archive.state == "running"
        with pytest.raises(WorkDirOccupied):
            await begun(tmp_path)
        await journal.close(state="interrupted")
        run = archive.last_run()
        assert run is not None
        assert (run.state, run.config, run.ended_at is not None) == ("interrupted", {"seed": 7}, True)
        assert (archive.owner(), len(archive.runs())) == (None, 1)


async def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    """What has drifted is refused before anything is written, and does not keep the work_dir."""
    await (await begun(tmp_path)).close(state="finished")
    with pytest.raises(RunDrifted):
        await begun(tmp_path, Identity(runners={"double": "2"}, shared=None))
    with Archive.open(tmp_path) as archive:
        assert (len(archive.runs()), archive.owner()) == (1, None)


async def test_an_opening_that_is_cancelled(tmp_path: Path) -> None:
    """Who is cancelled while the journal opens leaves it to others, with no run that seems to go on."""
    opening = asyncio.ensure_future(begun(tmp_path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(20):
        while True:
            try:
                await (await begun(tmp_path)).close(state="finished")
                break
            except WorkDirOccupied:
                await asyncio.sleep(0.005)
    with Archive.open(tmp_path) as archive:
        states = [run.state for run in archive.runs()]
        assert states in (["interrupted", "finished"], ["finished"])  # it had the lock, or had not yet


async def test_what_a_killed_run_had_in_hand(tmp_path: Path) -> None:
    """Each worker ran the first of its shards that had no outcome, several at once as many; a shard is lost once."""
    with writing(tmp_path) as tables:
        add_run(tables, state="running")
        for payload in range(10):
            add_shard(tables, payload, kind="done" if payload == 0 else "")
        flights = [
            (1, 1, [1, 2, 3], 1),  # the first was done
            (2, 2, [4, 5, 6, 7], 2),  # an event loop: two at once
            (3, 3, [2, 9], 1),  # it was taken back, and given to another
        ]
        for worker, turn, shards, running in flights:
            row = (worker, turn, 9.0, "double", 412, running, array("q", shards).tobytes())
            tables.execute("INSERT INTO flight VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        tables.execute('UPDATE run SET runners = \'{"double": "1"}\'')
    await (await begun(tmp_path)).close(state="finished")
    with Archive.open(tmp_path) as archive:
        lost = {record.shard: record.attempts for record in archive.outcomes() if record.lost}
        assert [run.state for run in archive.runs()] == ["killed", "finished"]
    assert lost.keys() == {2, 3, 4, 5}
    assert {len(attempts) for attempts in lost.values()} == {1}
    [attempt] = lost[4]
    assert attempt.fault is not None
    assert (attempt.fault.cause, attempt.pid, attempt.started_at) == ("lost", 412, 9.0)
    await (await begun(tmp_path)).close(state="finished")
    with closing(connect_reader(str(tmp_path))) as connection:
        assert connection.execute("SELECT sum(lost) FROM shard").fetchone() == (4,)
