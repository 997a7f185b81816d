"""Whoever shows a record reads it here: what stands in it, and what the newest run is."""

import os
from pathlib import Path
from typing import Any

import pytest

from dispatch.record.archive import BUNCH, Archive
from dispatch.record.lock import Lock
from dispatch.terms.errors import JournalError
from tests.record.recorded import add_run, add_shard, writing


def test_no_journal(tmp_path: Path) -> None:
    """A directory without a journal is an error that says so, and stays as it was."""
    with pytest.raises(JournalError, match="there is no journal here"):
        Archive.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_before_the_first_run(tmp_path: Path) -> None:
    """An empty journal has no run, no state and no shard."""
    with writing(tmp_path), Archive.open(tmp_path) as archive:
        assert (archive.runs(), archive.last_run(), archive.state, archive.live()) == ([], None, None, None)
        assert (archive.counts(), archive.total(), list(archive.outcomes()), archive.book()) == ({}, 0, [], 0)
        assert (archive.owner(), list(archive.events()), archive.find("0")) == (None, [], [])


def test_the_state_of_the_newest_run(tmp_path: Path) -> None:
    """Who holds the lock runs; a run that says so and holds none was killed."""
    with writing(tmp_path) as tables:
        add_run(tables)
        add_run(tables, state="running")
    with Archive.open(tmp_path) as archive:
        assert [run.state for run in archive.runs()] == ["finished", "killed"]
        lock = Lock(str(tmp_path))
        assert archive.state == "running"
        owner = archive.owner()
        assert owner is not None
        assert owner.pid == os.getpid()
        lock.release()
        assert archive.state == "killed"


def test_shards_and_their_outcomes(tmp_path: Path) -> None:
    """Shards come in their order, in bunches, and may be chosen by kind and cause, or gone on with."""
    number = BUNCH + 20
    with writing(tmp_path) as tables:
        add_run(tables)
        tables.execute("BEGIN")
        for n in range(number):
            kind = {0: "failed", 1: "cancelled", 2: ""}.get(n % 10, "done")
            add_shard(tables, {"n": n}, kind=kind, value=[n])
        tables.execute("COMMIT")
    with Archive.open(tmp_path) as archive:
        records = list(archive.outcomes())
        assert [record.position for record in records] == list(range(number))
        assert [record.name for record in records[:2]] == ["0", "1"]
        done = list(archive.outcomes(kind="done"))
        assert [record.value for record in done[:2]] == [[3], [4]]
        assert done[0].payload == {"n": 3}
        assert [attempt.seconds for attempt in done[0].attempts] == [0.25]
        failed = list(archive.outcomes(cause="raised"))
        assert failed == list(archive.outcomes(kind="failed", cause="raised"))
        assert failed[0].fault is not None
        assert (failed[0].fault.message, failed[0].value) == ("no", None)
        assert {record.kind for record in archive.outcomes(kind="")} == {""}
        assert [record.shard for record in archive.outcomes(after=number - 2)] == [number - 1, number]
        tens = number // 10 + 1
        assert archive.counts()["failed"] == archive.counts()["raised"] == tens
        assert archive.total() == number


def test_shards_are_found_by_name(tmp_path: Path) -> None:
    """By the supplied id, else by the position; a number may be an id too, and goes before."""
    with writing(tmp_path) as tables:
        add_run(tables)
        for payload, label in enumerate(["", "q1", "0", ""]):
            add_shard(tables, payload, label=label)
    with Archive.open(tmp_path) as archive:
        found = {
            name: [record.shard for record in archive.find(name)]
            for name in ("q1", "0", "3", "1", "x", "9" * 20)
        }
        assert found == {"q1": [2], "0": [3], "3": [4], "1": [], "x": [], "9" * 20: []}


def test_books_stand_apart(tmp_path: Path) -> None:
    """Unless another is asked for, everything is told of the newest book."""
    with writing(tmp_path) as tables:
        add_run(tables)
        for payload in range(3):
            add_shard(tables, payload)
        add_run(tables, book=2, first=4)
        add_shard(tables, 0, book=2, kind="failed")
    with Archive.open(tmp_path) as archive:
        assert (archive.book(), archive.total(), archive.total(book=1)) == (2, 1, 3)
        assert (archive.counts(), archive.counts(book=1)) == ({"failed": 1, "raised": 1}, {"done": 3})
        assert [record.shard for record in archive.find("0")] == []
        assert [record.shard for record in archive.find("0", book=1)] == [1]
        assert [record.book for record in archive.outcomes()] == [2]


def test_events_of_a_run(tmp_path: Path) -> None:
    """Events come in their order, of one run or of all, and may be gone on with."""
    with writing(tmp_path) as tables:
        for run in (1, 2, 1):
            tables.execute(
                "INSERT INTO event (run, at, kind, body) VALUES (?, 1.0, 'draining', '{\"at\": 1.0}')", (run,)
            )
    with Archive.open(tmp_path) as archive:
        assert [event.id for event in archive.events()] == [1, 2, 3]
        assert [event.id for event in archive.events(run=1)] == [1, 3]
        assert [event.id for event in archive.events(after=2)] == [3]
        assert next(archive.events()).body == {"at": 1.0}


def test_a_person_can_ask(tmp_path: Path) -> None:
    """The view shows a shard in one line, in words."""
    with writing(tmp_path) as tables:
        add_shard(tables, 1, label="q1")
        add_shard(tables, 2, kind="")
        rows = tables.execute("SELECT name, kind, cause, attempts, at FROM outcomes").fetchall()
    assert rows == [("q1", "done", "", 1, "1970-01-01 00:00:01"), ("1", "", "", 0, None)]


@pytest.mark.parametrize(
    ("damage", "question"),
    [
        ("UPDATE run SET argv = '{'", lambda archive: archive.last_run()),
        ("UPDATE run SET runners = 5", lambda archive: archive.runs()),
        ("UPDATE run SET live = 'x'", lambda archive: archive.live()),
        ("UPDATE event SET body = x'ff'", lambda archive: list(archive.events())),
        ("UPDATE outcome SET fault = x'c1'", lambda archive: list(archive.outcomes())),
        ("UPDATE attempt SET fault = x'c1'", lambda archive: next(archive.outcomes()).attempts),
        ("UPDATE shard SET payload = x'c1'", lambda archive: next(archive.outcomes()).payload),
        ("DROP TABLE outcome", lambda archive: archive.counts()),
        ("DROP TABLE shard", lambda archive: archive.total()),
        ("DROP TABLE run", lambda archive: archive.book()),
    ],
)
def test_what_is_damaged_is_told(tmp_path: Path, damage: str, question: Any) -> None:
    """Whatever is asked of it, a damaged journal is a JournalError that names the file."""
    with writing(tmp_path) as tables:
        add_run(tables)
        add_shard(tables, 1)
        tables.execute("INSERT INTO event (run, at, kind, body) VALUES (1, 1.0, 'draining', '{}')")
        tables.execute(damage)
    with (
        Archive.open(tmp_path) as archive,
        pytest.raises(JournalError, match=r"journal\.db: it cannot be read"),
    ):
        question(archive)
