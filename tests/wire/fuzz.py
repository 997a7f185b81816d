"""Random bytes at every decoder that a stranger can reach: `python -m tests.wire.fuzz 1000000 [seed]`.

A body is noise, a frame of ours with some of its bytes changed, cut or repeated, or a well-formed array with a tag of
ours and fields of anything. It arrives in a stream that is cut anywhere. A decoder may read it, or raise FrameError;
anything else ends this program with the body that did it. `test_codec.py` does the same for a few hundred bodies.
"""

import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from dispatch.wire import frames
from dispatch.wire.codec import Codec, control_decoder
from dispatch.wire.frames import FrameError, Splitter
from tests.wire.test_frames import KINDS, ONE_OF_EACH

LIMIT = 1024 * 1024
SLOW = 1.0  # seconds that no single body may take, on a loaded machine too


class Point(msgspec.Struct):
    """A value whose decoding runs code, and may fail in its own way."""

    x: int
    tags: dict[str, list[float]] = {}

    def __post_init__(self) -> None:
        """Refuse as user code does: with whatever it likes."""
        if self.x < 0:
            raise LookupError(self.x)


CODECS = [
    Codec("Fuzzed", kind, kind, limit=LIMIT)
    for kind in (Any, Point, dict[str, Point], list[int], msgspec.Raw)
]
CONTROL = control_decoder(*(kind for kind in KINDS if kind not in (frames.Work, frames.Results)))
FRAMES = [frames.encode(frame)[4:] for frame in ONE_OF_EACH] + [
    frames.encode(frames.Work(1, None, [0], payloads=[{"x": 1, "tags": {"a": [1.0]}}]))[4:],
    frames.encode(frames.Results(1, [], [1.0], [2.0], [{"x": -1}]))[4:],
]
TAGS = [kind.__struct_config__.tag for kind in KINDS]
EDGES = [
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
    1e308,
    float("nan"),
    float("inf"),
]
OPENERS = [
    b"\x91",
    b"\x92",
    b"\x81\xa1a",
    b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
]


def body(dice: random.Random) -> bytes:
    """Return one body."""
    kind = dice.randrange(5)
    if kind == 0:
        return dice.randbytes(dice.choice((0, 1, 2, 5, 20, 200)))
    if kind in (1, 2):
        return _changed(dice, dice.choice(FRAMES))
    if kind == 3:
        fields = [anything(dice, 3) for _ in range(dice.randrange(9))]
        return msgspec.msgpack.encode([dice.choice(TAGS), *fields])
    whole = dice.choice(FRAMES)
    return whole[: dice.randrange(len(whole) + 1)] + dice.choice(OPENERS) * dice.choice((1, 3, 50, 3000))


def _changed(dice: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(dice.choice((1, 1, 1, 2, 8))):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at : at + 1] = dice.randbytes(1)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 3:
                data[at:at] = data[at : at + dice.randrange(1, 20)]
            case _:
                del data[at : at + dice.randrange(1, 9)]
    return bytes(data)


def anything(dice: random.Random, depth: int) -> Any:
    """Return a value that msgpack knows."""
    if depth and dice.random() < 0.3:
        inner = [anything(dice, depth - 1) for _ in range(dice.randrange(4))]
        keys = ("x", "tags", "cause", "", "a")
        return inner if dice.random() < 0.5 else {dice.choice(keys): value for value in inner}
    leaf: tuple[Callable[[], Any], ...] = (
        lambda: dice.choice(EDGES),
        lambda: dice.choice((None, True, False)),
        lambda: dice.choice(("", "raised", "crashed", "é", "x" * 40)),
        lambda: dice.randbytes(dice.randrange(6)),
        lambda: dice.randrange(-9, 9),
        lambda: msgspec.Raw(dice.choice(FRAMES)),
    )
    return dice.choice(leaf)()


def cut(dice: random.Random, stream: bytes) -> list[bytes | bytearray]:
    """Send a stream through a splitter, cut anywhere; the bodies that come out."""
    splitter, found, at = Splitter(LIMIT), list[bytes | bytearray](), 0
    while at < len(stream):
        room = splitter.buffer()
        number = min(len(room), len(stream) - at, dice.choice((1, 3, 100, 10_000)))
        room[:number] = stream[at : at + number]
        found += splitter.filled(number)
        at += number
    return found


def bodies(dice: random.Random, number: int) -> Iterator[bytes | bytearray]:
    """Make bodies, and give what is left of them behind a stream; now and then the stream itself is noise."""
    while number > 0:
        sent = [body(dice) for _ in range(min(number, 16))]
        number -= len(sent)
        found = cut(dice, b"".join(struct.pack("<I", len(one)) + one for one in sent))
        assert found == sent
        yield from found
        with suppress(FrameError):
            yield from cut(dice, dice.randbytes(3) + b"\0" + dice.randbytes(dice.randrange(200)))


def decoders() -> list[Callable[[bytes | bytearray], Any]]:
    """Return everything that reads what another process sent."""
    return [CONTROL, *(codec.from_runner for codec in CODECS), *(codec.work for codec in CODECS)]


def read(data: bytes | bytearray) -> list[str]:
    """Read a body with every decoder: the names of the frames it was taken for. Raises only what is a bug."""
    names: list[str] = []
    for decode in decoders():
        began = time.perf_counter()
        try:
            told = decode(data)
        except FrameError:
            told = []
        took = time.perf_counter() - began
        assert took < SLOW, f"{took:.2f} s to read a body"
        for frame in told if isinstance(told, list) else [told]:
            assert type(frame) in KINDS
            names.append(type(frame).__name__)
            if isinstance(frame, frames.Results):
                assert len(frame.ended) == len(frame.values)
    return names


def main(number: int, seed: int) -> None:
    """Read so many bodies, and say what they were taken for."""
    began, taken, refused = time.monotonic(), Counter[str](), 0
    for data in bodies(random.Random(seed), number):
        try:
            names = read(data)
        except BaseException:
            print(f"seed {seed}: {data!r}")
            raise
        taken.update(names)
        refused += not names
    seconds = time.monotonic() - began
    print(
        f"{number:,} bodies in {seconds:.0f} s, seed {seed}: {refused:,} refused by all {len(decoders())} decoders"
    )
    for name, times in taken.most_common():
        print(f"  {name:<10}{times:>12,} times read")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32))
