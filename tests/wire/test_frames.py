"""Frames as bytes and back, and a stream of them however it is cut."""

import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from dispatch.terms.outcome import Fault
from dispatch.wire import frames
from dispatch.wire.codec import control_decoder
from dispatch.wire.frames import FrameError, Splitter, encode, open_ended

FAULT = Fault(cause="raised", type="ValueError", message="no", args=b"\x91\xa2no", after=1.5)

ONE_OF_EACH = [
    frames.Connect(b"\x00token", "runner", 3, 412, 2),
    frames.Work(7, 1.5, [0, 1], {1: "q17"}, {0: 2}, {1: 0.5}, 3, ["a", {"b": 1}]),
    frames.Answer(5, Raw(b"\x92\x01\x02")),
    frames.Answer(5, fault=FAULT),
    frames.Withdraw([3, 4], waiting=True),
    frames.Bye(),
    frames.Ready(412, 8, several=True),
    frames.NotReady(FAULT),
    frames.Results(7, [], [1.0], [2.0, 3.0], ["a", None]),
    frames.Results(0, [9, 4], [1.0, 1.5], [2.0, 3.0], [[1], {}]),
    frames.Fail(7, 1.0, 0.25, FAULT),
    frames.Back([8, 9]),
    frames.Call(5, "next_key", Raw(b"\x91\x01"), Raw(b"\x80")),
    frames.Progress(7, 1.0, None),
    frames.Output(0, "hé\n", 17),
    frames.Launch(2, Raw(b"\xc0")),
    frames.Fence(9, [7]),
    frames.Kill(),
    frames.Stop(),
    frames.Welcome(forks=True),
    frames.Refused(),
    frames.Fenced(9, 6),
    frames.Pulse(7, 1.0, 10**9),
    frames.Ended(2, 412, "timed_out", 9, None, 7, 1.0, 2.0, "stack", "output"),
]
KINDS = {
    kind
    for kind in vars(frames).values()
    if isinstance(kind, type) and issubclass(kind, Struct) and kind.__struct_config__.tag is not None
}


# --------------------------------------------------------------------------------- frames as bytes


@pytest.mark.parametrize("frame", ONE_OF_EACH, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_back_as_it_was(frame: Struct) -> None:
    """Every kind of frame is read again, field by field, among all the others."""
    data = encode(frame)
    assert control_decoder(*KINDS)(data[4:]) == frame


def test_there_is_one_of_each_kind_above() -> None:
    """No frame is left out, and no two kinds share a tag."""
    assert {type(frame) for frame in ONE_OF_EACH} == KINDS
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("frame", ONE_OF_EACH, ids=lambda frame: type(frame).__name__)
def test_a_frame_is_its_length_and_a_tagged_array(frame: Struct) -> None:
    """Four bytes, little-endian, say how long the msgpack is; it is an array that begins with the tag."""
    data = encode(frame)
    assert struct.unpack("<I", data[:4]) == (len(data) - 4,)
    assert msgspec.msgpack.decode(data[4:])[0] == frame.__struct_config__.tag


@given(items=st.lists(st.integers() | st.text() | st.lists(st.floats(allow_nan=False)), max_size=40))
@example(items=[])
@example(items=["x" * 70_000])
def test_a_frame_left_open_ends_with_the_items_that_follow(items: list[Any]) -> None:
    """Items that are encoded already are put behind a frame, which reads as if it had been encoded with them."""
    items = [item for item in items if not isinstance(item, int) or abs(item) < 2**63]
    encoded = [msgspec.msgpack.encode(item) for item in items]
    work = frames.Work(7, None, [1, 2], {0: "id"})
    results = frames.Results(7, [1], [1.0], [2.0])
    read = control_decoder(frames.Work[Any], frames.Results[Any])
    for frame, field in ((work, "payloads"), (results, "values")):
        data = open_ended(frame, len(encoded), sum(map(len, encoded))) + b"".join(encoded)
        assert struct.unpack("<I", data[:4]) == (len(data) - 4,)
        assert read(data[4:]) == msgspec.structs.replace(frame, **{field: items})


# --------------------------------------------------------------------------------- a stream of them


class Narrow(Splitter):
    """A splitter whose chunk is so small that everything happens at its edges."""

    CHUNK = 32


def framed(bodies: Iterable[bytes]) -> bytes:
    """Return the stream that these bodies make."""
    return b"".join(struct.pack("<I", len(body)) + body for body in bodies)


def feed(splitter: Splitter, stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Read a stream through a splitter, at most so many bytes at a time; the bodies it found."""
    found: list[bytes] = []
    sizes = iter(cuts)
    at = 0
    while at < len(stream):
        room = splitter.buffer()
        assert len(room) > 0
        number = min(len(room), len(stream) - at, next(sizes, len(stream)))
        room[:number] = stream[at : at + number]
        found += splitter.filled(number)
        at += number
    return found


@given(
    bodies=st.lists(st.binary(max_size=100), max_size=12),
    cuts=st.lists(st.integers(1, 70), max_size=60),
    kind=st.sampled_from([Narrow, Splitter]),
)
def test_a_stream_gives_its_frames_however_it_is_cut(
    bodies: list[bytes], cuts: list[int], kind: type[Splitter]
) -> None:
    """Empty, short and long frames, any number of bytes at a time: none is lost, split, joined or changed."""
    splitter = kind(limit=100)
    assert feed(splitter, framed(bodies), cuts) == bodies
    assert not splitter.partial


@pytest.mark.parametrize("size", [0, 1, 27, 28, 29, 31, 32, 33, 100])
def test_every_cut_of_two_frames_gives_two_frames(size: int) -> None:
    """Cut once at every byte, also inside a prefix and where the chunk ends."""
    bodies = [bytes(range(size)), b"next"]
    stream = framed(bodies)
    for cut in range(1, len(stream)):
        splitter = Narrow(limit=100)
        assert feed(splitter, stream, [cut]) == bodies
        one_by_one = Narrow(limit=100)
        assert feed(one_by_one, stream, [1] * cut) == bodies


@given(body=st.binary(max_size=60), missing=st.integers(1, 64))
def test_half_a_frame_is_known_as_such(body: bytes, missing: int) -> None:
    """A stream that ends inside a frame gives no frame, and `partial` says that something was begun."""
    stream = framed([body])
    begun = stream[: max(0, len(stream) - missing)]
    splitter = Narrow(limit=100)
    assert feed(splitter, begun, [7] * 20) == []
    assert splitter.partial == bool(begun)


def test_a_long_frame_is_read_into_a_buffer_of_its_own() -> None:
    """What does not fit the chunk is not copied out of it: the last byte is read where the frame stays."""
    splitter = Splitter(limit=10**6)
    stream = framed([b"x" * 300_000])
    room = splitter.buffer()
    room[: len(room)] = stream[: len(room)]
    assert splitter.filled(len(room)) == []
    rest = splitter.buffer()
    assert len(rest) == len(stream) - len(room)
    rest[:] = stream[len(room) :]
    (frame,) = splitter.filled(len(rest))
    assert rest.obj is frame
    assert frame == b"x" * 300_000


@pytest.mark.parametrize("size", [101, 2**31, 2**32 - 1])
def test_a_prefix_over_the_limit_is_no_frame(size: int) -> None:
    """It is refused before a byte of it is read or room is made for it, and the error says both numbers."""
    splitter = Splitter(limit=100)
    with pytest.raises(FrameError, match=f"{size} bytes where 100 are allowed"):
        feed(splitter, struct.pack("<I", size) + b"rest", [3])


def test_a_frame_at_the_limit_passes_and_the_limit_can_be_raised() -> None:
    """A peer that has proved itself may say more: from then on."""
    splitter = Splitter(limit=100)
    assert feed(splitter, framed([b"x" * 100]), []) == [b"x" * 100]
    splitter.limit = 200
    assert feed(splitter, framed([b"y" * 200]), []) == [b"y" * 200]
    with pytest.raises(FrameError):
        feed(splitter, framed([b"z" * 201]), [])


def test_a_frame_that_was_given_out_is_not_written_over() -> None:
    """Frames that were cut out of the chunk keep their bytes while the next ones are read."""
    splitter = Narrow(limit=100)
    first = feed(splitter, framed([b"first", b"long" * 20]), [])
    second = feed(splitter, framed([b"other", b"gone" * 20]), [])
    assert first == [b"first", b"long" * 20]
    assert second == [b"other", b"gone" * 20]
