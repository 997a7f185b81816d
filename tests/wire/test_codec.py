"""Payloads and values as bytes, typed by annotations; what cannot travel says why, and hurts only itself."""

import dataclasses
import datetime as dt
import random
import threading
import time
import uuid
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from dispatch.terms.errors import RunnerError
from dispatch.terms.outcome import Fault
from dispatch.wire import frames
from dispatch.wire.codec import Codec, NotDeliverable, control_decoder, from_plain, undeliverable
from dispatch.wire.frames import FrameError
from tests.wire import fuzz

LIMIT = 1000


class Sample(Struct):
    """A payload with a field that may hold anything."""

    question: str
    extra: Any = None


class Fussy(Struct):
    """A payload that raises what no decoder raises."""

    x: int

    def __post_init__(self) -> None:
        """Refuse 13."""
        if self.x == 13:
            raise KeyError("thirteen")


class Address(pydantic.BaseModel):
    """A pydantic model with an alias and a field that is computed."""

    model_config = pydantic.ConfigDict(extra="forbid")
    street: str = pydantic.Field(alias="streetName")
    number: int = pydantic.Field(gt=0)

    @pydantic.computed_field
    def line(self) -> str:
        """Say it in one line."""
        return f"{self.street} {self.number}"


class Person(Struct):
    """A Struct with a pydantic model inside."""

    name: str
    home: Address | None = None


@dataclasses.dataclass
class Half:
    """A dataclass that was never finished: reading its field raises."""

    missing: int = dataclasses.field(init=False)
    lock: Any = None


class Rude:
    """A key whose repr raises."""

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        return 1


def codec(payload: Any = Any, value: Any = Any, *, limit: int = LIMIT) -> Codec:
    """Return a codec."""
    return Codec("Scorer", payload, value, limit=limit)


def work_of(*payloads: Any) -> bytes:
    """Return the body of a Work frame with these payloads."""
    return frames.encode(frames.Work(5, None, list(range(len(payloads))), payloads=list(payloads)))[4:]


def endless(*, key: bool = False) -> Any:
    """Return a value that holds itself."""
    inner: list[Any] = [1]
    inner.append({"again": inner} if key else inner)
    return inner


def nested(depth: int, core: Any = None) -> Any:
    """Return lists in lists."""
    for _ in range(depth):
        core = [core]
    return core


# ------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Sample, Sample("2+2?", [1, {"a": None}])),
        (list[Sample], [Sample("a"), Sample("b")]),
        (dict[str, float], {"a": 1.5, "b": float("inf")}),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (dt.datetime, dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        (uuid.UUID, uuid.UUID(int=7)),
        (bytes, b"\x00\xff"),
        (int, 2**64 - 1),
        (int, -(2**63)),
        (Half | None, None),
        (Address, Address(streetName="Main", number=7)),
        (list[Address], [Address(streetName="Main", number=7)]),
        (Person, Person("Ann", Address(streetName="Main", number=7))),
        (Address | None, None),
    ],
    ids=str,
)
def test_what_is_annotated_arrives_in_its_type(kind: Any, value: Any) -> None:
    """Payload and value come out as they went in, also where a pydantic model is the whole or a part of it."""
    both = codec(kind, kind)
    data = both.encode(value)
    assert both.decode_payload(data) == value
    assert both.decode_value(Raw(data)) == value
    assert type(both.decode_value(data)) is type(value)


def test_without_an_annotation_what_arrives_is_plain() -> None:
    """Structs and models become dicts, tuples and sets become lists."""
    plain = codec()
    sent = {"s": Sample("a"), "t": (1, 2), "m": Address(streetName="Main", number=7)}
    assert plain.decode_payload(plain.encode(sent)) == {
        "s": {"question": "a", "extra": None},
        "t": [1, 2],
        "m": {"streetName": "Main", "number": 7},
    }


@pytest.mark.parametrize(
    ("kind", "plain", "says"),
    [
        (
            Sample,
            {"question": 7},
            r"payload does not fit Sample: Expected `str`, got `int` - at `\$.question`",
        ),
        (Sample, {}, "payload does not fit Sample: .*missing required field `question`"),
        (list[int], [1, "b"], r"payload does not fit list\[int\]: Expected `int`, got `str` - at `\$\[1\]`"),
        (
            Person,
            {"name": "A", "home": {"streetName": "M", "number": 0}},
            r"(?s)fit Person: .*number.*greater than 0",
        ),
        (Address, {"number": 1}, "(?s)fit Address: .*streetName.*Field required"),
        (Fussy, {"x": 13}, "payload does not fit Fussy: 'thirteen'"),
    ],
)
def test_what_does_not_fit_says_the_type_and_the_place(kind: Any, plain: Any, says: str) -> None:
    """A payload that its annotation refuses is not deliverable, for a reason that is told."""
    with pytest.raises(NotDeliverable, match=says):
        codec(kind).decode_payload(msgspec.msgpack.encode(plain))


def test_plain_values_are_converted_like_payloads() -> None:
    """Arguments of a call become Structs and models, or a ValidationError says where not."""
    assert from_plain({"name": "A", "home": {"streetName": "M", "number": 1}}, Person).home == Address(
        streetName="M", number=1
    )
    with pytest.raises(msgspec.ValidationError, match="name"):
        from_plain({"name": 1}, Person)


# --------------------------------------------------------------------------------- what cannot travel


@pytest.mark.parametrize(
    ("value", "kind", "path"),
    [
        (threading.Lock(), "lock", ""),
        ((n for n in ()), "generator", ""),
        ({"a": [1, {"b": threading.Lock()}]}, "lock", "$['a'][1]['b']"),
        (Sample("a", {"deep": (0, threading.Lock())}), "lock", "$.extra['deep'][1]"),
        ({"n": [10**100]}, "int", "$['n'][0]"),
        (-(10**100), "int", ""),
        ({(1, len): 1}, "builtin_function_or_method", "$<key (1, <built-in function len>)>[1]"),
        ("\udc80", "str", ""),
        ([1, "\udc80"], "str", "$[1]"),
        (endless(), "list", "$[1]"),
        (endless(key=True), "list", "$[1]['again']"),
        (nested(150, threading.Lock()), "lock", "$" + "[0]" * 33),
        (nested(20_000), "list", "$" + "[0]" * 33),
        (Half(lock=threading.Lock()), "Half", ""),
        ({Rude(): 1}, "dict", ""),
        (Person, "StructMeta", ""),
    ],
    ids=range(16),
)
def test_what_cannot_be_encoded_says_its_type_and_its_path(value: Any, kind: str, path: str) -> None:
    """A lock deep inside, an int of 100 digits, a list that holds itself: the innermost culprit is named, at once."""
    began = time.monotonic()
    with pytest.raises(NotDeliverable) as raised:
        codec().encode(value, "value")
    says = str(raised.value)
    assert says.startswith(f"value of type {type(value).__name__} cannot be encoded: {kind}")
    assert path in says
    assert len(says) < 500
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (endless(), "it refers to itself"),
        (nested(20_000), "it is nested too deeply"),
        ([10**100], "can't serialize ints"),
        ([object()], "objects of type object cannot be encoded"),
    ],
    ids=range(4),
)
def test_what_cannot_be_encoded_says_why(value: Any, reason: str) -> None:
    """The reason is the last thing that is said."""
    with pytest.raises(NotDeliverable, match=reason):
        codec().encode(value)


def test_the_culprit_is_found_in_a_large_value() -> None:
    """One int too large behind 100,000 others is found without a noticeable delay."""
    began = time.monotonic()
    with pytest.raises(NotDeliverable, match=r"int at \$\['rows'\]\[100000\]"):
        codec().encode({"rows": [*range(100_000), 10**100]})
    assert time.monotonic() - began < 5.0


def test_what_is_too_big_says_both_sizes() -> None:
    """The limit is on the encoded bytes: a value at the limit passes, one byte more does not."""
    assert len(codec().encode(b"x" * (LIMIT - 3))) == LIMIT
    with pytest.raises(
        NotDeliverable, match=f"payload is {LIMIT + 1} bytes encoded, over max_value_bytes={LIMIT}"
    ):
        codec().encode(b"x" * (LIMIT - 2))


def test_a_bunch_is_encoded_together_or_refused_together() -> None:
    """Many small payloads may be over the limit of one; a single one that cannot travel is told, to be sought."""
    many = [b"x" * 500] * 10
    assert codec().encode_all(many) == [codec().encode(one) for one in many]
    assert codec().encode_all([]) == []
    for culprit in (object(), b"x" * LIMIT, "\udc80"):
        with pytest.raises(NotDeliverable):
            codec().encode_all([*many, culprit])


def test_an_undeliverable_fault_says_whose_it_is() -> None:
    """The fault names what it is about."""
    fault = undeliverable("shard q17", "payload is too odd")
    assert fault == Fault(cause="undeliverable", message="shard q17: payload is too odd")


@pytest.mark.parametrize("kind", [int | list[int] | set[int], Address | Person | Rude])
def test_an_annotation_that_cannot_be_decoded_is_an_early_error(kind: Any) -> None:
    """The runner is named before anything runs, and how to mend it."""
    with pytest.raises(
        RunnerError, match=r"(?s)runner Scorer: its annotations cannot be encoded.*leave the annotation out"
    ):
        codec(kind)


# --------------------------------------------------------------------------------- one among others


@pytest.mark.parametrize(
    ("kind", "bad"), [(Sample, {"question": 7}), (Fussy, {"x": 13}), (Address, {"number": 1})]
)
def test_a_payload_that_does_not_fit_leaves_the_others_as_they_are(kind: Any, bad: Any) -> None:
    """Its frame is still a frame: the payloads stay bytes, and each is read by itself."""
    good: dict[Any, Any] = {
        Sample: {"question": "a"}, Fussy: {"x": 1}, Address: {"streetName": "M", "number": 1}
    }[kind]  # fmt: skip
    reader = codec(kind)
    whole = reader.work(work_of(good, good))
    assert [type(payload) for payload in whole.payloads] == [kind, kind]
    mixed = reader.work(work_of(good, bad, good))
    assert (mixed.first, mixed.indexes) == (5, [0, 1, 2])
    assert (
        reader.decode_payload(mixed.payloads[0])
        == reader.decode_payload(mixed.payloads[2])
        == whole.payloads[0]
    )
    with pytest.raises(NotDeliverable):
        reader.decode_payload(mixed.payloads[1])


@pytest.mark.parametrize("seqs", [[], [4, 9, 2]])
def test_a_value_that_does_not_fit_fails_its_own_shard(seqs: list[int]) -> None:
    """Of a frame of values each good one is settled with its own times, the bad one is an undeliverable fault."""
    starts = [1.0, 2.0, 3.0] if seqs else [1.0]
    values = [{"x": 1}, {"x": 13}, {"x": 3}]
    body = frames.encode(frames.Results(7, seqs, starts, [2.0, 3.0, 4.5], values))[4:]
    first, bad, last = codec(Any, Fussy).from_runner(body)
    names = seqs or [7, 8, 9]
    assert isinstance(first, frames.Results)
    assert isinstance(last, frames.Results)
    assert (first.first, first.started, first.ended, first.values[0].x) == (names[0], [1.0], [2.0], 1)
    assert (last.first, last.started, last.ended, last.values[0].x) == (names[2], [3.0], [4.5], 3)
    assert isinstance(bad, frames.Fail)
    assert (bad.seq, bad.started, bad.seconds) == (names[1], 2.0, 1.0)
    assert bad.fault.cause == "undeliverable"
    assert bad.fault.message == "Scorer: value does not fit Fussy: 'thirteen'"


@pytest.mark.parametrize(
    "results",
    [
        frames.Results(7, [], [1.0], [2.0], ["a", "b"]),
        frames.Results(7, [], [1.0], [2.0, 3.0], ["a"]),
        frames.Results(7, [], [], [2.0], ["a"]),
        frames.Results(7, [], [1.0, 2.0], [2.0], ["a"]),
        frames.Results(0, [7, 8], [1.0, 1.0], [2.0, 2.0], ["a"]),
        frames.Results(0, [7], [1.0], [2.0, 2.0], ["a", "b"]),
        frames.Results(0, [7, 8], [1.0], [2.0, 2.0], ["a", "b"]),
        frames.Results(7, [], [1.0], [2.0], [{"bad": 1}, 2]),
    ],
    ids=range(8),
)
def test_values_without_their_times_are_garbage(results: frames.Results[Any]) -> None:
    """Columns of different lengths would settle a shard for nobody: such a frame is none."""
    for kind in (Any, int):
        with pytest.raises(FrameError):
            codec(Any, kind).from_runner(frames.encode(results)[4:])


def test_good_values_are_one_frame() -> None:
    """The happy path is a single decode."""
    body = frames.encode(frames.Results(7, [], [1.0], [2.0, 3.0], [{"x": 1}, {"x": 2}]))[4:]
    (told,) = codec(Any, Fussy).from_runner(body)
    assert isinstance(told, frames.Results)
    assert told.values == [Fussy(1), Fussy(2)]


def test_what_identifies_a_shard_can_be_read_without_its_type() -> None:
    """The bytes of a payload are had as they were sent."""
    body = work_of({"question": 7}, [1])
    assert [bytes(raw) for raw in codec(Sample).work_raw(body).payloads] == [
        b"\x81\xa8question\x07",
        b"\x91\x01",
    ]


# ----------------------------------------------------------------------------------------- garbage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91\xa4nope",
        b"\x92\xa7results",
        b"\x95\xa7results\x01\x90\x90\x90\xdd\xff\xff\xff\xff",
        b"\x95\xa7results\x01\x90\x90\x90" + b"\x91" * 100_000,
        b"\x95\xa7results\x01\x90\x90\x90\x91\xa2\xff\xff",
        b"\x93\xa6answer\x01" + b"\x81\xa1a" * 100_000,
        b"\x91" * 100_000,
    ],
    ids=range(9),
)
def test_garbage_is_a_frame_error_and_nothing_else(body: bytes) -> None:
    """No bytes make a decoder of a centre, a worker or a nanny raise anything else, run deep or claim memory."""
    readers = [codec(kind, kind) for kind in (Any, Fussy, list[int])]
    for decode in [*(one.from_runner for one in readers), *(one.work for one in readers), fuzz.CONTROL]:
        with pytest.raises(FrameError):
            decode(body)


def test_a_control_decoder_knows_its_own_kinds_only() -> None:
    """A frame that has no business on a connection is garbage there."""
    read = control_decoder(frames.Kill, frames.Stop)
    assert read(frames.encode(frames.Stop())[4:]) == frames.Stop()
    with pytest.raises(FrameError):
        read(frames.encode(frames.Launch(1, Raw(b"\xc0")))[4:])


@given(st.binary(max_size=200))
def test_noise_is_read_as_frames_or_refused(data: bytes) -> None:
    """Any bytes are a frame of ours or a FrameError, at every decoder."""
    fuzz.read(data)


@given(st.integers(0, 2**32))
def test_changed_frames_are_read_or_refused(seed: int) -> None:
    """Frames of ours with bytes changed, cut or repeated are read or refused; `tests.wire.fuzz` makes a million."""
    for data in fuzz.bodies(random.Random(seed), 16):
        fuzz.read(data)
