"""The shards of one frame, as a worker unpacks them."""

from typing import Any

from dispatch.terms.shard import shard_rng
from dispatch.wire.codec import Codec, encode
from dispatch.wire.frames import Work
from dispatch.worker.parcel import Parcel, unpack


def test_a_frame_is_unpacked_in_its_order() -> None:
    """Seqs count up from the first; ids, attempts and timeouts that are not said are the plain ones."""
    work = Work(5, 9.0, [30, 31, 32], {1: "named"}, {2: 3}, {0: 1.5}, 0, ["a", "b", "c"])
    codec = Codec("test", Any, Any, limit=1000)
    body = encode(work)
    found = unpack(work, Parcel(codec, body, 7))
    assert [(seq, timeout) for seq, timeout, _ in found] == [(5, 1.5), (6, 9.0), (7, 9.0)]
    shards = [shard for _, _, shard in found]
    assert [(s.id, s.index, s.attempt, s.timeout, s.payload) for s in shards] == [
        ("30", 30, 1, 1.5, "a"),
        ("named", 31, 1, 9.0, "b"),
        ("32", 32, 3, 9.0, "c"),
    ]


def test_random_numbers_come_from_identity() -> None:
    """A shard's generator depends on seed and supplied id, else on seed and bytes: not on worker, order or attempt."""
    codec = Codec("test", Any, Any, limit=1000)
    one = Work(5, None, [1, 2, 3], {2: "x"}, {}, {}, 0, ["a", "a", "b"])
    other = Work(900, 4.0, [77, 5], {0: "x"}, {1: 9}, {}, 0, ["zzz", "a"])
    first = [shard.rng.random() for _, _, shard in unpack(one, Parcel(codec, encode(one), 7))]
    second = [shard.rng.random() for _, _, shard in unpack(other, Parcel(codec, encode(other), 7))]
    assert first[0] == first[1] == second[1] == shard_rng(7, "", encode("a")).random()
    assert first[2] == second[0] == shard_rng(7, "x", b"").random()
    reseeded = [shard.rng.random() for _, _, shard in unpack(one, Parcel(codec, encode(one), 8))]
    assert not set(reseeded) & set(first)
