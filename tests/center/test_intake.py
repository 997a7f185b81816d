"""What enters a centre is checked, encoded once, and put on the books."""

from typing import Any

import msgspec
import pytest

from dispatch import ConfigError, Done, DuplicateShard, Shard
from dispatch.center.intake import Intake, by_runner
from dispatch.wire.codec import Codec


def intake() -> Intake:
    """For two runner classes; A takes numbers, and stands first."""
    codecs = {name: Codec(name, kind, Any, limit=100) for name, kind in [("A", int), ("B", str)]}
    return Intake(7, codecs)


def test_plain_payloads_are_numbered_and_encoded() -> None:
    """Positions go on from bunch to bunch; nothing about them is special."""
    door = intake()
    first, second = door.take([1, 2], 5.0), door.take([3], 6.0)
    assert [entry.index for entry in [*first.entries, *second.entries]] == [0, 1, 2]
    assert [entry.shard_id for entry in second.entries] == ["2"]
    assert [bytes(entry.payload) for entry in first.entries] == [b"\x01", b"\x02"]
    assert (first.size, first.special, first.failed, first.error) == (2, False, [], None)
    assert {entry.origin.door for entry in first.entries} == {7}
    assert [entry.ready_at for entry in first.entries] == [5.0, 5.0]


def test_a_payload_that_cannot_travel_fails_by_itself() -> None:
    """Its neighbours are entered; it is an outcome at once, and keeps what was submitted."""
    bad, large = object(), "x" * 200
    taken = intake().take([1, bad, large, 4], 0.0)
    assert [entry.index for entry in taken.entries] == [0, 3]
    assert [failed.index for failed in taken.failed] == [1, 2]
    assert [failed.payload for failed in taken.failed] == [bad, large]
    assert "shard 1: payload of type object cannot be encoded" in taken.failed[0].fault.message
    assert "over max_value_bytes=100" in taken.failed[1].fault.message


def test_a_shard_says_more() -> None:
    """Its id, timeout and runner are on the books, and make it travel with more than its payload."""
    taken = intake().take([Shard(1, id="q", timeout=2.0), Shard("b", runner="B"), 3], 0.0)
    first, second, third = taken.entries
    assert (first.id, first.timeout, first.special) == ("q", 2.0, True)
    assert (second.runner, second.shard_id, second.special) == ("B", "1", False)
    assert second.origin.decode(second.payload) == "b"
    assert (third.index, third.special) == (2, False)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"id": 3}, "shard 3: id is 3: it must be a string"),
        ({"id": "\ud800"}, "it holds lone surrogates; escape them"),
        ({"id": "q", "timeout": 0.0}, "shard q: timeout is 0.0: it must be more than 0 seconds"),
        ({"runner": "C"}, "shard 1: runner is 'C': this centre's init_runners gives: A, B"),
    ],
)
def test_fields_that_make_no_sense_end_a_bunch(fields: dict[str, Any], sentence: str) -> None:
    """What came before is entered, the error names the shard and the field, and what comes after is not read."""
    taken = intake().take([1, Shard(2, **fields), 3], 0.0)
    assert [entry.index for entry in taken.entries] == [0]
    assert isinstance(taken.error, ConfigError)
    assert sentence in str(taken.error)


def test_an_id_is_taken_until_its_shard_has_settled() -> None:
    """So that uniqueness costs memory for unfinished shards only."""
    door = intake()
    [entry] = door.take([Shard(1, id="q")], 0.0).entries
    assert isinstance(door.take([Shard(2, id="q")], 0.0).error, DuplicateShard)
    door.forget([Done(value=1, entry=entry)])
    assert door.take([Shard(2, id="q")], 0.0).error is None


def test_one_is_what_many_are() -> None:
    """A submit enters as a bunch does; its own timeout counts more than the shard's."""
    door = intake()
    plain, failed, size = door.one(5, 1.0)
    assert (plain.index, bytes(plain.payload), failed, size, plain.special) == (0, b"\x05", None, 1, False)
    timed, _, _ = door.one(5, 1.0, timeout=3.0)
    assert (timed.timeout, timed.special) == (3.0, True)
    shard, _, _ = door.one(Shard(5, id="q", timeout=9.0), 1.0, timeout=3.0)
    assert (shard.id, shard.timeout) == ("q", 3.0)
    _, failed, size = door.one(object(), 1.0)
    assert failed is not None
    assert (failed.index, size) == (3, 0)
    assert door.read == 4


def test_entries_are_grouped_by_runner() -> None:
    """In their order; where none names a runner they stay one group."""
    entries = intake().take([Shard(1), Shard("x", runner="B"), Shard(2), Shard("y", runner="B")], 0.0).entries
    assert [[entry.index for entry in group] for group in by_runner(entries)] == [[0, 2], [1, 3]]
    plain = intake().take([1, 2], 0.0).entries
    assert by_runner(plain) == [plain]
    assert msgspec.msgpack.decode(plain[0].payload) == 1
