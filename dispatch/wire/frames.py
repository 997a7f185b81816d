"""Tagged Structs, and their length-prefixed form: four bytes, little-endian, then msgpack. No sockets.

Structs travel as arrays, so the order of fields is the wire's. `Work` and `Results` carry many shards each;
the happy path is one encode and one decode for a frame. Everything else is rare.
"""

from __future__ import annotations

import struct
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct

from dispatch.terms.outcome import Fault

__all__ = (
    "Answer",
    "Back",
    "Bye",
    "Call",
    "Connect",
    "Ended",
    "Fail",
    "Fence",
    "Fenced",
    "FrameError",
    "FromRunner",
    "Kill",
    "Launch",
    "NotReady",
    "Output",
    "Progress",
    "Pulse",
    "Ready",
    "Refused",
    "Results",
    "Splitter",
    "Stop",
    "ToRunner",
    "Welcome",
    "Withdraw",
    "Work",
    "encode",
    "open_ended",
)

R = TypeVar("R")
P = TypeVar("P")
PREFIX = struct.Struct("<I")
_LIST32 = struct.Struct(">BI")


class FrameError(Exception):
    """Bytes that are no frame: too long, or not decodable. The peer is dropped."""


_NIL = Raw(b"\xc0")


class _Frame(Struct, frozen=True, array_like=True, gc=False):
    pass


# Any process -> centre, first of all.
class Connect(_Frame, frozen=True, tag="hi"):
    """Proves a peer: the token travelled through anyio's private pipe."""

    token: bytes
    role: str
    worker: int
    pid: int
    life: int = 0


# Centre -> runner.
class Work(Struct, Generic[P], frozen=True, array_like=True, tag="work"):
    """Shards to run in this order. The dicts, by n, hold what is rare.

    Attempt `first + n` is shard `indexes[n]`, or without indexes shard `start + n`.
    """

    first: int
    timeout: float | None
    indexes: list[int]
    ids: dict[int, str] = {}
    attempts: dict[int, int] = {}
    timeouts: dict[int, float] = {}
    start: int = 0
    payloads: list[P] = []


class Answer(_Frame, frozen=True, tag="answer"):
    """The answer to a Call: a value, or a fault."""

    call: int
    value: Raw = _NIL
    fault: Fault | None = None


class Withdraw(_Frame, frozen=True, tag="withdraw"):
    """To an async lane: give these attempts back; those that run are cancelled first, or go on if `waiting` only."""

    seqs: list[int]
    waiting: bool = False


class Bye(_Frame, frozen=True, tag="bye"):
    """Finish what you were given, tear down, leave."""


# Runner -> centre.
class Ready(_Frame, frozen=True, tag="ready"):
    """`setup` is over. `concurrency` shards run at once; `several` says whether there is an event loop."""

    pid: int
    concurrency: int
    several: bool


class NotReady(_Frame, frozen=True, tag="notready"):
    """The runner could not be made ready."""

    fault: Fault


class Results(Struct, Generic[R], frozen=True, array_like=True, tag="results"):
    """Shards that are done: attempts `first`, `first + 1` ..., or those in `seqs`.

    One after the other: each started when the one before it ended, the first at `started[0]`. With `seqs`, `started`
    holds a time for each. Times are monotonic.
    """

    first: int
    seqs: list[int]
    started: list[float]
    ended: list[float]
    values: list[R] = []


class Fail(_Frame, frozen=True, tag="fail"):
    """An attempt that failed, and the worker lives."""

    seq: int
    started: float
    seconds: float
    fault: Fault


class Back(_Frame, frozen=True, tag="back"):
    """Attempts that were not started, and will not be."""

    seqs: list[int]


class Call(_Frame, frozen=True, tag="call"):
    """A runner asks its centre: positional arguments as an array, named ones as a map."""

    call: int
    method: str
    args: Raw
    kwargs: Raw


class Progress(_Frame, frozen=True, tag="progress"):
    """How far a shard is."""

    seq: int
    done: float
    total: float | None


class Output(_Frame, frozen=True, tag="output"):
    """What a shard (seq 0: the worker) printed; `cut` bytes were left out."""

    seq: int
    text: str
    cut: int


# Centre -> nanny.
class Launch(_Frame, frozen=True, tag="launch"):
    """Fork the runner process of this life, which runs what the Lease says."""

    life: int
    lease: Raw


class Fence(_Frame, frozen=True, tag="fence"):
    """The runner starts no attempt with a seq below `upto`, and dies if it runs one of `kill`. Answered by Fenced."""

    upto: int
    kill: list[int] = []


class Kill(_Frame, frozen=True, tag="kill"):
    """Kill the runner's whole tree now."""


class Stop(_Frame, frozen=True, tag="stop"):
    """Kill the runner's whole tree and leave."""


# Nanny -> centre.
class Welcome(_Frame, frozen=True, tag="welcome"):
    """The nanny is there and waits."""

    forks: bool


class Refused(_Frame, frozen=True, tag="refused"):
    """This process has served other calls; it idles until it is let go."""


class Fenced(_Frame, frozen=True, tag="fenced"):
    """`last` is the newest attempt that was started; nothing later below the fence will be."""

    upto: int
    last: int


class Pulse(_Frame, frozen=True, tag="pulse"):
    """Now and then: the attempt that runs (0: none), since when (monotonic), resident and private bytes."""

    seq: int
    since: float
    rss: int


class Ended(_Frame, frozen=True, tag="ended"):
    """How a life ended. `seq` ran then (0: none), since `started`; `why` is what we did, "" if it died by itself."""

    life: int
    pid: int
    why: str
    signal: int | None
    exit_code: int | None
    seq: int
    started: float
    at: float
    stack: str
    output: str


ToRunner: TypeAlias = Work[Any] | Answer | Withdraw | Bye
FromRunner: TypeAlias = Results[Any] | Ready | NotReady | Fail | Back | Call | Progress | Output

_encoder = msgspec.msgpack.Encoder()


def encode(frame: Struct) -> bytes:
    """A frame as bytes, its length in front."""
    body = _encoder.encode(frame)
    return PREFIX.pack(len(body)) + body


def open_ended(frame: Work[Any] | Results[Any], number: int, size: int) -> bytes:
    """A frame, its length in front, up to its last field: `number` encoded items of `size` bytes are to follow."""
    body = _encoder.encode(frame)[:-1]  # the last byte says that the list is empty
    return PREFIX.pack(len(body) + _LIST32.size + size) + body + _LIST32.pack(0xDD, number)


class Splitter:
    """Cuts a stream of bytes into frames. Feed it with `buffer()` then `filled(n)`: no byte is copied twice.

    A frame that fits the chunk buffer is cut out of it; a longer one is read straight into a buffer of its own.
    """

    CHUNK = 128 * 1024

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunk = bytearray(self.CHUNK)
        self._view = memoryview(self._chunk)
        self._have = 0
        self._long: bytearray | None = None
        self._long_have = 0

    def buffer(self) -> memoryview:
        """Where the next bytes go."""
        if self._long is not None:
            return memoryview(self._long)[self._long_have :]
        return self._view[self._have :]

    def filled(self, number: int) -> list[bytes | bytearray]:
        """The frames (without prefix) that `number` more bytes complete.

        Raises FrameError if a prefix announces more than the limit.
        """
        if self._long is not None:
            self._long_have += number
            if self._long_have < len(self._long):
                return []
            frame, self._long = self._long, None
            return [frame]
        if not self._have and number > PREFIX.size:
            size = PREFIX.unpack_from(self._chunk)[0]
            if size + PREFIX.size == number and size <= self.limit:  # most often: one frame, and whole
                return [bytes(self._view[PREFIX.size : number])]
        return self._cut(number)

    def _cut(self, number: int) -> list[bytes | bytearray]:
        end = self._have + number
        at = 0
        frames: list[bytes | bytearray] = []
        view = self._view
        while end - at >= 4:
            size = PREFIX.unpack_from(view, at)[0]
            if size > self.limit:
                raise FrameError(f"a frame of {size} bytes where {self.limit} are allowed")
            if end - at - 4 >= size:
                frames.append(bytes(view[at + 4 : at + 4 + size]))
                at += 4 + size
                continue
            if size + 4 > self.CHUNK:
                self._long = bytearray(size)
                self._long_have = end - at - 4
                self._long[: self._long_have] = view[at + 4 : end]
                self._have = 0
                return frames
            break
        rest = end - at
        if at:
            view[:rest] = bytes(view[at:end])
        self._have = rest
        return frames

    @property
    def partial(self) -> bool:
        """Whether the last bytes are half a frame."""
        return self._long is not None or self._have > 0
