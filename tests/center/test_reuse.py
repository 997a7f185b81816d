"""What identifies a shard: its content, and what was supplied for it; nothing else."""

from typing import Any

from dispatch import Shard
from dispatch.center.intake import Intake
from dispatch.center.reuse import digests
from dispatch.wire.codec import Codec


def named(payloads: list[Any], *, before: int = 0) -> list[bytes]:
    """The digests of payloads that come behind some others."""
    codecs = {name: Codec(name, Any, Any, limit=1000) for name in ("first", "second")}
    intake = Intake(1, codecs)
    intake.take([0] * before, 0.0)
    taken = intake.take(payloads, 0.0)
    entries = sorted(
        [*taken.entries, *(failed.entry for failed in taken.failed)], key=lambda entry: entry.index
    )
    return digests(entries, payloads, start=before, special=taken.special)


def test_the_content_identifies() -> None:
    """Equal payloads have equal digests, wherever they stand and whether they came as a Shard; others have others."""
    payloads = [1, "1", None, {"a": 1}, [1], b"1", Shard(7)]
    assert named(payloads) == named([7, *payloads[:-1]])[1:] + named([7])
    assert named(payloads) == named(payloads, before=5)
    assert len(set(named(payloads))) == len(payloads)


def test_the_order_of_keys_and_members_does_not_count() -> None:
    """A dict and a set are the same content in any order; where that cannot be seen, the encoding counts."""
    assert named([{"a": 1, "b": {"x", "y"}}]) == named([{"b": {"y", "x"}, "a": 1}])
    assert named([{1: 1, 2: 2}, {"a": 1, "b": 2}]) == named([{1: 1, 2: 2}, {"b": 2, "a": 1}])
    assert named([{1: 1, 2: 2}]) != named([{2: 2, 1: 1}])


def test_what_was_supplied_counts() -> None:
    """The same content is another shard under another id or for another runner; a timeout makes no difference."""
    shards = [
        1,
        Shard(1, id="a"),
        Shard(1, id="b"),
        Shard(1, runner="second"),
        Shard(1, id="c", runner="second"),
    ]
    assert len(set(named(shards))) == len(shards)
    assert named([Shard(1, timeout=5.0), Shard(1, id="a", timeout=5.0)]) == named(shards[:2])


def test_what_cannot_be_encoded_is_known_by_its_place() -> None:
    """Without an encoding there is no content to go by: position and id stand in, and match nothing else."""
    first, second, none = named([object(), object(), None])
    assert len({first, second, none}) == 3
    assert named([object(), object()]) == [first, second]
    assert named([object(), 5, Shard(object(), id="x")])[2] != named([object(), 5, object()])[2]
