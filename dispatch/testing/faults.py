"""A channel that drops, delays, truncates and corrupts: a relay between workers and centre.

    async with FaultyChannel(once("results", Truncate())) as faulty:
        engine = ProcessEngine(relay=faulty)

Workers connect to the relay, and the relay to the centre, on the centre's event loop. Every frame of every
connection, in both directions, passes before a judge: a plain function from a `Passing` to what becomes of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal, Self, TypeAlias

import anyio
from msgspec import Struct

from dispatch.wire import frames
from dispatch.wire.channel import accept, dial, listen
from dispatch.wire.codec import control_decoder
from dispatch.wire.frames import PREFIX, Splitter

__all__ = (
    "Corrupt",
    "Delay",
    "Drop",
    "FaultyChannel",
    "Hold",
    "Judge",
    "Passing",
    "Truncate",
    "Verdict",
    "once",
)

LIMIT = 1 << 31  # bytes of a frame: the relay is no judge of size
PIECE = 64 * 1024
_connect = control_decoder(frames.Connect)


class Passing(Struct, frozen=True):
    """A frame on its way. `number` counts the frames of its kind in its direction on its connection, from 0.

    `kind` is the frame's tag in `wire/frames.py` ("work", "results", "ended", ...), "" for bytes that are no frame.
    `role` is whose connection it is; "" while a peer has not said.
    """

    role: Literal["runner", "nanny", ""]
    worker: int
    direction: Literal["to_center", "to_worker"]
    kind: str
    number: int
    body: bytes


class Drop(Struct, frozen=True):
    """The frame is lost; what follows it is not."""


class Delay(Struct, frozen=True):
    """The frame, and all behind it, waits so many seconds."""

    seconds: float


class Hold(Struct, frozen=True):
    """The frame, and all behind it, waits until the event is set."""

    released: anyio.Event


class Truncate(Struct, frozen=True):
    """A part of the frame passes, and the connection ends in both directions. `share` 0: it ends before the frame."""

    share: float = 0.5


class Corrupt(Struct, frozen=True):
    """The frame keeps its length, and none of its bytes."""


Verdict: TypeAlias = Drop | Delay | Hold | Truncate | Corrupt | None
Judge: TypeAlias = Callable[[Passing], Verdict]


def once(kind: str, verdict: Verdict, *, number: int = 0, worker: int | None = None) -> Judge:
    """A judge who gives one verdict: over the first frame of this kind whose number it is (of one worker, if said)."""
    over = False

    def judge(passing: Passing) -> Verdict:
        nonlocal over
        if over or passing.kind != kind or passing.number != number or worker not in (None, passing.worker):
            return None
        over = True
        return verdict

    return judge


class FaultyChannel:
    """The relay; its call is what `ProcessEngine(relay=...)` wants.

    For one engine at a time. Leaving the block closes it.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._links: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self.passed: Counter[str] = Counter()  # frames that came by, by kind
        self._opening: asyncio.Task[asyncio.Server] | None = None
        self._remove: Callable[[], None] = _nothing

    def __call__(self, address: str) -> str:
        """Listen for workers; their centre is at `address`. The address to give to them."""
        sock, ours, self._remove = listen()

        async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._link(reader, writer, address)

        self._opening = asyncio.get_running_loop().create_task(accept(sock, link))
        return ours

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every connection. Raises what the judge raised, if it did."""
        if self._opening is None:
            return
        (await self._opening).close()
        self._remove()
        for task in self._links:
            task.cancel()
        if self._links:
            await asyncio.wait(self._links)
        if self._errors:
            raise self._errors[0]

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        """One connection, from a worker's to its end."""
        this = asyncio.current_task()
        assert this is not None
        self._links.add(this)
        writers = [writer]
        try:
            theirs, ours = await dial(address)
            writers.append(ours)
            link = _Link(self._judge, self.passed)
            pumps = [
                asyncio.ensure_future(link.pump("to_center", reader, ours)),
                asyncio.ensure_future(link.pump("to_worker", theirs, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                ends = await asyncio.gather(*pumps, return_exceptions=True)
                self._errors += [
                    end for end in ends if isinstance(end, Exception) and not isinstance(end, OSError)
                ]
        except (OSError, asyncio.CancelledError):
            pass  # one of the two is gone, or the relay is closed: the connection ends
        finally:
            for each in writers:
                each.close()
            self._links.discard(this)


class _Link:
    """One connection's two directions. The first frame towards the centre says whose it is."""

    def __init__(self, judge: Judge, passed: Counter[str]) -> None:
        self._judge, self._passed = judge, passed
        self._role: Literal["runner", "nanny", ""] = ""
        self._worker = -1
        self._numbers: Counter[tuple[str, str]] = Counter()

    async def pump(
        self,
        direction: Literal["to_center", "to_worker"],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Carry frames one way until the stream ends or a verdict ends it."""
        splitter = Splitter(LIMIT)
        while True:
            room = splitter.buffer()
            data = await reader.read(min(len(room), PIECE))
            if not data:
                return
            room[: len(data)] = data
            for body in splitter.filled(len(data)):
                verdict = self._judge(self._passing(direction, bytes(body)))
                if not await _carry(bytes(body), verdict, writer):
                    return

    def _passing(self, direction: Literal["to_center", "to_worker"], body: bytes) -> Passing:
        kind = _kind(body)
        if kind == "hi":
            hello: frames.Connect = _connect(body)
            self._worker = hello.worker
            self._role = "nanny" if hello.role == "nanny" else "runner"
        number = self._numbers[direction, kind]
        self._numbers[direction, kind] += 1
        self._passed[kind] += 1
        return Passing(self._role, self._worker, direction, kind, number, body)


async def _carry(body: bytes, verdict: Verdict, writer: asyncio.StreamWriter) -> bool:
    """Do to a frame what was judged; whether the connection goes on."""
    whole = PREFIX.pack(len(body)) + body
    match verdict:
        case Drop():
            return True
        case Truncate(share):
            writer.write(whole[: int(len(whole) * share)])
            await writer.drain()
            return False
        case Delay(seconds):
            await asyncio.sleep(seconds)
        case Hold(released):
            await released.wait()
        case Corrupt():
            whole = PREFIX.pack(len(body)) + bytes(byte ^ 0xFF for byte in body)
        case None:
            pass
    writer.write(whole)
    await writer.drain()
    return True


def _kind(body: bytes) -> str:
    """A frame's tag: the first string of its array."""
    try:
        length = body[1] & 0x1F if body[1] & 0xE0 == 0xA0 else 0
        return body[2 : 2 + length].decode("ascii")
    except (IndexError, UnicodeDecodeError):
        return ""


def _nothing() -> None:
    pass
