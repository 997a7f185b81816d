"""A recorded shard is met once, whatever the order; equal ones are counted; memory and questions stay bounded."""

import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch.record.recall import AHEAD, Known, Recall
from dispatch.terms.errors import JournalError
from tests.record.recorded import add_shard, digest_of, writing


def met(recall: Recall, payloads: list[int], bunch: int = 7) -> list[int | None]:
    """The row ids of what is known of these payloads, asked for in bunches."""
    found: list[int | None] = []
    digests = [digest_of(payload) for payload in payloads]
    while digests:
        number = min(bunch, recall.ready(min(bunch, len(digests))))
        some, digests = digests[:number], digests[number:]
        if not recall.in_step(some):
            recall.index()
        found.extend(None if row is None else Known(*row).id for row in recall.match(some))
    return found


def recalled(work_dir: Path, number: int, **more: bool) -> Recall:
    """All shards of a record."""
    return Recall(str(work_dir), first=1, last=number, twins=more.get("twins", False))


@given(
    recorded=st.lists(st.integers(0, 5), max_size=30),
    asked=st.lists(st.integers(0, 7), max_size=40),
    bunch=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_each_recorded_shard_is_met_once(recorded: list[int], asked: list[int], bunch: int) -> None:
    """Of equal shards as many are known as were recorded, each row once, and always with the same content."""
    with tempfile.TemporaryDirectory() as directory:
        with writing(Path(directory)) as tables:
            for payload in recorded:
                add_shard(tables, payload)
        with closing(recalled(Path(directory), len(recorded))) as recall:
            found = met(recall, asked, bunch)
            rows = [row for row in found if row is not None]
            assert len(rows) == len(set(rows)) == len(recorded) - recall.left
            assert all(recorded[row - 1] == asked[at] for at, row in enumerate(found) if row is not None)
            known = Counter(recorded[row - 1] for row in rows)
            assert known == Counter(recorded) & Counter(asked)


@pytest.mark.parametrize(
    "change",
    [
        lambda shards: shards,
        lambda shards: [-1, *shards],
        lambda shards: shards[3:],
        lambda shards: shards[:500] + shards[505:],
        lambda shards: shards[1000:] + shards[:1000],
        lambda shards: shards[::-1],
    ],
    ids=["the same", "one more", "the first gone", "some gone", "turned", "reversed"],
)
def test_any_order_of_many(tmp_path: Path, change: object) -> None:
    """Shards are found in step and out of step, across the bunches in which the record is read."""
    number = 2 * AHEAD + 100
    with writing(tmp_path) as tables:
        tables.execute("BEGIN")
        for payload in range(number):
            add_shard(tables, payload, value=payload)
        tables.execute("COMMIT")
    asked: list[int] = change(list(range(number)))  # type: ignore[operator]
    with closing(recalled(tmp_path, number)) as recall:
        found = met(recall, asked, 300)
        assert found == [payload + 1 if payload >= 0 else None for payload in asked]
        assert recall.left == number - sum(payload >= 0 for payload in asked)


def test_what_comes_in_step_needs_no_index(tmp_path: Path) -> None:
    """The same order, and what is new behind it, is read from the record: nothing is sorted."""
    with writing(tmp_path) as tables:
        for payload in range(20):
            add_shard(tables, payload)
    with closing(recalled(tmp_path, 20)) as recall:
        for at in range(0, 25, 5):
            digests = [digest_of(payload) for payload in range(at, at + 5)]
            recall.ready(5)
            assert recall.in_step(digests)
            recall.match(digests)
        recall.ready(1)
        assert recall.in_step([digest_of("new")])


def test_few_large_values_are_held(tmp_path: Path) -> None:
    """Recorded values of a megabyte are read a few at a time, however many shards are asked about at once."""
    with writing(tmp_path) as tables:
        for payload in range(60):
            add_shard(tables, payload, value=bytes(1 << 20))
    with closing(recalled(tmp_path, 60)) as recall:
        assert recall.ready(60) < 60
        assert met(recall, list(range(60)), 60) == list(range(1, 61))


def test_what_is_known_of_a_shard(tmp_path: Path) -> None:
    """A row tells outcome and last attempt; what is rarely needed is asked for by its id."""
    with writing(tmp_path) as tables:
        add_shard(tables, "a", value=[1, 2])
        add_shard(tables, "b", kind="failed")
        add_shard(tables, "c", kind="")
    with closing(recalled(tmp_path, 3)) as recall:
        recall.ready(3)
        rows = recall.match([digest_of(payload) for payload in "abc"])
        done, failed, none = (Known(*row) for row in rows if row is not None)
        assert (done.kind, done.value, done.number, done.pid, done.seconds) == (
            "done",
            b"\x92\x01\x02",
            1,
            412,
            0.25,
        )
        assert recall.value(done.id) == done.value
        assert (none.kind, none.number, recall.history(none.id), recall.lost(none.id)) == (None, None, (), 0)
        fault = recall.fault(failed.id)
        assert fault is not None
        assert fault.message == "no"
        assert [attempt.runner for attempt in recall.history(failed.id)] == ["double"]


def test_labels_are_looked_up_in_their_book(tmp_path: Path) -> None:
    """A label is found with whether its shard was met: those of this run's own shards always, older books' never."""
    with writing(tmp_path) as tables:
        for payload, label in enumerate(["old", "a", "b", "new"]):
            add_shard(tables, payload, label=label)
    with closing(Recall(str(tmp_path), first=2, last=3, twins=False)) as recall:
        recall.ready(1)
        recall.match([digest_of(1)])
        assert sorted(recall.labelled(["old", "a", "b", "new", "other"])) == [
            ("a", 2, True),
            ("b", 3, False),
            ("new", 4, True),
        ]


def test_a_damaged_record_is_an_error_that_says_so(tmp_path: Path) -> None:
    """What SQLite cannot read is a JournalError, not an exception of sqlite3's."""
    with writing(tmp_path) as tables:
        add_shard(tables, 1)
    with closing(recalled(tmp_path, 1)) as recall:
        with writing(tmp_path) as tables:
            tables.execute("DROP TABLE attempt")
        with pytest.raises(JournalError, match="cannot be read: no such table"):
            recall.ready(1)
