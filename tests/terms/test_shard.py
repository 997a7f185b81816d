"""The unit of work: what users make, what runners get, what the parent keeps."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.terms.shard import Entry, Origin, Shard, is_shard, shard_rng
from dispatch.wire import frames
from dispatch.wire.codec import Codec
from dispatch.worker.parcel import Parcel, unpack

DOOR = Origin(1, bytes)


class Travelled:
    """The frame that a shard came in, with what identifies the shard."""

    def __init__(self, seed: int, supplied: str, payload: bytes) -> None:
        self.seed, self._identity = seed, (supplied, payload)

    def identity(self, offset: int) -> tuple[str, bytes]:
        """Tell the same of every shard."""
        return self._identity


def dice(shard: Shard[Any]) -> list[float]:
    """Return what a shard's first rolls are."""
    return [shard.rng.random() for _ in range(3)]


def arrived(
    payloads: list[Any], *, seed: int = 0, ids: dict[int, str] | None = None, start: int = 0
) -> list[Shard[Any]]:
    """Return shards as a worker unpacks them from a real frame."""
    codec = Codec("R", Any, Any, limit=10**6)
    indexes = list(range(start, start + len(payloads)))
    body = frames.encode(frames.Work(1, None, indexes, ids or {}, {0: 2}, {}, 0, payloads))[4:]
    work = codec.work(body)
    assert isinstance(work, frames.Work)
    return [shard for _seq, _limit, shard in unpack(work, Parcel(codec, body, seed))]


# ------------------------------------------------------------------------------------ what it is


def test_a_shard_needs_a_payload_and_no_more() -> None:
    """What a user does not say is left to the centre; an attempt counts from one."""
    shard = Shard({"a": 1})
    assert (shard.payload, shard.id, shard.timeout, shard.runner) == ({"a": 1}, "", None, None)
    assert (shard.index, shard.attempt) == (0, 1)
    full = Shard("p", id="q17", timeout=5.0, runner="Scorer")
    assert (full.payload, full.id, full.timeout, full.runner) == ("p", "q17", 5.0, "Scorer")


def test_a_shard_is_told_from_a_payload_by_its_type() -> None:
    """A dict with the same fields is a payload."""
    assert is_shard(Shard(1))
    assert not is_shard({"payload": 1, "id": "a"})
    assert not is_shard(Shard)


def test_two_shards_are_never_the_same() -> None:
    """Equal content is two pieces of work: shards and entries are compared by identity."""
    assert Shard(1) != Shard(1)
    assert Entry(0, b"", DOOR) != Entry(0, b"", DOOR)
    assert len({Shard(1), Shard(1)}) == 2


def test_an_entry_is_called_by_its_id_or_its_position() -> None:
    """A supplied id is an identity, a position a label."""
    assert Entry(17, b"", DOOR).shard_id == "17"
    assert Entry(17, b"", DOOR, id="q").shard_id == "q"


# --------------------------------------------------------------------------------- random numbers


def test_random_numbers_come_from_the_seed_and_the_content() -> None:
    """The same payload has the same numbers, another one or another seed has others."""
    rolls = shard_rng(7, "", b"payload").random()
    assert rolls == shard_rng(7, "", b"payload").random()
    assert rolls != shard_rng(8, "", b"payload").random()
    assert rolls != shard_rng(7, "", b"another").random()


def test_a_supplied_id_stands_for_the_content() -> None:
    """With an id the payload does not matter; an id is never mistaken for a payload of the same bytes."""
    assert shard_rng(7, "q17", b"a").random() == shard_rng(7, "q17", b"b").random()
    assert shard_rng(7, "q17", b"a").random() != shard_rng(7, "q18", b"a").random()
    assert shard_rng(7, "x", b"").random() != shard_rng(7, "", b"x").random()


@given(
    st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**100), 10**100),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)
def test_any_seed_and_any_identity_give_a_generator(seed: int, supplied: str, payload: bytes) -> None:
    """Nothing a user can say breaks it."""
    assert isinstance(shard_rng(seed, supplied, payload), random.Random)


def test_a_shard_rolls_its_own_dice_on() -> None:
    """`rng` is one generator: asking again goes on, and does not begin anew."""
    shard = Shard(1, _frame=Travelled(7, "", b"p"))
    assert shard.rng is shard.rng
    assert dice(shard) != dice(shard)


def test_random_numbers_do_not_depend_on_attempt_or_position() -> None:
    """Worker, order and attempt change nothing: only seed, id and content do."""
    first = Shard(1, index=0, attempt=1, _frame=Travelled(7, "", b"p"), _offset=0)
    again = Shard(1, index=99, attempt=3, _frame=Travelled(7, "", b"p"), _offset=4)
    assert dice(first) == dice(again)


def test_a_shard_made_by_hand_has_random_numbers_too() -> None:
    """A runner can be tried without a centre: the id, or the position, is the identity."""
    assert dice(Shard(1, id="a")) == dice(Shard(2, id="a"))
    assert dice(Shard(1, id="a")) != dice(Shard(1, id="b"))
    assert dice(Shard(1, index=1)) != dice(Shard(1, index=2))


@pytest.mark.parametrize("ids", [{}, {0: "q"}, {0: "5"}])
def test_in_a_worker_they_are_the_same_at_every_position(ids: dict[int, str]) -> None:
    """A shard that travels in another frame, at another place, has the numbers it had, whatever its id looks like."""
    (alone,) = arrived(["payload"], seed=3, ids=ids, start=5)
    moved, other = arrived(["payload", "other"], seed=3, ids=ids, start=40)
    assert alone.id == ids.get(0, "5")
    assert dice(alone) == dice(moved)
    assert dice(other) != dice(moved)
    assert dice(arrived(["payload"], seed=4, ids=ids)[0]) != dice(arrived(["payload"], seed=3, ids=ids)[0])


def test_in_a_worker_equal_content_has_equal_numbers_and_ids_tell_apart() -> None:
    """Without ids equal payloads are equal; with ids they are what the user calls them."""
    one, two = arrived(["same", "same"])
    assert dice(one) == dice(two)
    one, two = arrived(["same", "same"], ids={0: "a", 1: "b"})
    assert dice(one) != dice(two)
