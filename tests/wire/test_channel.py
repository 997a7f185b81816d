"""Frames over one byte stream on an event loop: real sockets, on asyncio's loop and on uvloop."""

import asyncio
import os
import random
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import pytest_asyncio

from dispatch.wire import frames
from dispatch.wire.channel import UNJOINED, Channel, accept, adopt, dial, listen, pair, serve
from dispatch.wire.codec import control_decoder
from dispatch.wire.frames import FrameError, Splitter, encode
from dispatch.wire.line import Line

pytestmark = [pytest.mark.asyncio, pytest.mark.both_loops]

LIMIT = 10**7
read = control_decoder(frames.Output, frames.Bye, frames.Work[Any], frames.Results[Any])


def output(text: str) -> frames.Output:
    """Return a frame that carries a text."""
    return frames.Output(0, text, 0)


class Ear:
    """A channel, what it heard, and the bare socket at its other end."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self.channel = Channel(limit=limit)
        self.heard: list[bytes] = []
        self.lost = 0
        self._news = asyncio.Event()
        self.channel.on_frame, self.channel.on_lost = self._on_frame, self._on_lost

    def _on_frame(self, body: bytes | bytearray) -> None:
        self.heard.append(bytes(body))
        self._news.set()

    def _on_lost(self) -> None:
        self.lost += 1
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        with anyio.fail_after(30):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def hears(self, number: int) -> list[Any]:
        """Wait for so many frames."""
        await self.until(lambda: len(self.heard) >= number)
        assert len(self.heard) == number
        return [read(body) for body in self.heard]

    async def say(self, data: bytes) -> None:
        """Send bytes from the other end."""
        with anyio.fail_after(30):
            await asyncio.get_running_loop().sock_sendall(self.peer, data)

    async def told(self, number: int) -> bytes:
        """Read so many bytes at the other end, fewer if the stream ends."""
        data = bytearray()
        with anyio.fail_after(30):
            while len(data) < number:
                got = await asyncio.get_running_loop().sock_recv(self.peer, number - len(data))
                if not got:
                    break
                data += got
        return bytes(data)

    async def open(self) -> None:
        """Connect."""
        ours, self.peer = pair()
        self.peer.setblocking(False)
        await adopt(ours, self.channel)

    async def close(self) -> None:
        """Leave no connection behind."""
        self.channel.abort()
        await self.until(lambda: self.channel.lost)
        self.peer.close()


@pytest_asyncio.fixture
async def ear() -> AsyncIterator[Ear]:
    """Give a connected channel."""
    one = Ear()
    await one.open()
    yield one
    await one.close()


# ----------------------------------------------------------------------------------------- hearing


async def test_frames_are_heard_in_their_order(ear: Ear) -> None:
    """Many in one packet, empty ones too, each is told once."""
    await ear.say(b"".join(encode(output(str(n))) for n in range(500)))
    assert [frame.text for frame in await ear.hears(500)] == [str(n) for n in range(500)]


async def test_half_a_frame_is_waited_for(ear: Ear) -> None:
    """A frame that comes byte by byte is told when its last byte has come, and not before."""
    whole = encode(output("half"))
    for byte in whole[:-1]:
        await ear.say(bytes([byte]))
    await ear.say(whole[-1:] + encode(frames.Bye()))
    assert await ear.hears(2) == [output("half"), frames.Bye()]


@pytest.mark.parametrize("size", [Splitter.CHUNK - 100, Splitter.CHUNK, 5 * Splitter.CHUNK, 3_000_000])
async def test_a_frame_longer_than_the_chunk_is_heard_whole(ear: Ear, size: int) -> None:
    """Between short ones, whatever the socket buffers."""
    long = output("x" * size)
    await ear.say(encode(output("before")) + encode(long) + encode(output("after")))
    assert await ear.hears(3) == [output("before"), long, output("after")]


async def test_a_stream_that_is_cut_anywhere_is_heard_alike(ear: Ear) -> None:
    """Two hundred frames of all sizes in packets of all sizes."""
    dice = random.Random(7)
    sent = [output("y" * dice.choice((0, 1, 30, 5_000, 200_000))) for _ in range(200)]
    stream, at = b"".join(map(encode, sent)), 0
    while at < len(stream):
        number = dice.choice((1, 7, 1_000, 100_000, 1_000_000))
        await ear.say(stream[at : at + number])
        at += number
    assert await ear.hears(200) == sent


# ---------------------------------------------------------------------------------------- speaking


async def test_what_is_sent_arrives_as_frames(ear: Ear) -> None:
    """Many small ones and one that no socket buffers at once: sending never waits, and nothing is lost."""
    sent = [output(str(n)) for n in range(100)] + [output("z" * 3_000_000), frames.Bye()]
    for frame in sent:
        ear.channel.send(frame)
    stream = b"".join(map(encode, sent))
    assert await ear.told(len(stream)) == stream


@pytest.mark.parametrize(
    "items", [[], ["a", 1, None], ["x" * UNJOINED, "y"], ["z" * 1_000_000] * 3], ids=range(4)
)
async def test_items_that_are_encoded_already_are_sent_with_their_frame(ear: Ear, items: list[Any]) -> None:
    """Joined where they are small, unjoined where they are large: the same bytes."""
    encoded: list[bytes | bytearray] = [msgspec.msgpack.encode(item) for item in items]
    ear.channel.send_with(frames.Work(7, None, [0]), encoded, len(items))
    ear.channel.send_with(frames.Results(7, [], [1.0], [2.0]), [bytearray(b"".join(encoded))], len(items))
    for frame, field in (
        (frames.Work(7, None, [0]), "payloads"),
        (frames.Results(7, [], [1.0], [2.0]), "values"),
    ):
        size = int.from_bytes(await ear.told(4), "little")
        assert read(await ear.told(size)) == msgspec.structs.replace(frame, **{field: items})


async def test_closing_sends_what_was_written_first(ear: Ear) -> None:
    """The last words arrive, then the end of the stream."""
    stream = encode(output("w" * 2_000_000))
    ear.channel.send(output("w" * 2_000_000))
    ear.channel.close()
    assert await ear.told(len(stream) + 1) == stream
    await ear.until(lambda: ear.lost == 1)


async def test_a_line_at_the_other_end_understands(ear: Ear) -> None:
    """A blocking line on a thread and a channel on a loop speak the same."""
    ear.peer.setblocking(True)
    line = Line(socket.socket(fileno=os.dup(ear.peer.fileno())), limit=LIMIT)

    def echo() -> None:
        while (body := line.receive()) is not None:
            line.send(read(body))
        line.close()

    thread = threading.Thread(target=echo)
    thread.start()
    sent = [output("e" * size) for size in (0, 10, 400_000, 3)]
    for frame in sent:
        ear.channel.send(frame)
    assert await ear.hears(4) == sent
    ear.channel.close()
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


# ----------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("begun", [b"", b"\x05", b"\x05\x00\x00\x00ab"])
async def test_a_peer_that_goes_is_told_once(ear: Ear, begun: bytes) -> None:
    """Also in the middle of a frame: what was whole is heard, then `on_lost`, and nothing after it."""
    await ear.say(encode(output("last")) + begun)
    ear.peer.close()
    await ear.until(lambda: ear.lost == 1)
    assert await ear.hears(1) == [output("last")]
    assert ear.channel.lost
    ear.channel.abort()
    ear.channel.close()
    await asyncio.sleep(0)
    assert ear.lost == 1


async def test_speaking_to_nobody_does_nothing(ear: Ear) -> None:
    """After the connection is lost every way of sending is silent, and there is no peer to ask about."""
    ear.peer.close()
    await ear.until(lambda: ear.lost == 1)
    ear.channel.send(output("x"))
    ear.channel.send_with(frames.Work(1, None, []), [b"\x01"], 1)
    assert not ear.channel.from_this_user


async def test_a_lost_channel_lets_go_of_its_listeners(ear: Ear) -> None:
    """Who listened to a dead peer is not kept alive by it."""
    ear.peer.close()
    await ear.until(lambda: ear.lost == 1)
    assert ear.channel.on_frame != ear._on_frame
    assert ear.channel.on_lost != ear._on_lost


async def test_a_peer_that_announces_too_much_is_dropped(ear: Ear) -> None:
    """Four bytes of garbage are enough; the peer sees the end, and what it says after that is not heard."""
    await ear.say((LIMIT + 1).to_bytes(4, "little") + encode(output("never")))
    await ear.until(lambda: ear.lost == 1)
    assert ear.heard == []
    assert await ear.told(1) == b""


async def test_a_peer_that_talks_nonsense_is_dropped(ear: Ear) -> None:
    """What the listener refuses with FrameError ends the connection, with the frames behind it."""
    taken: list[bytes] = []

    def take(body: bytes | bytearray) -> None:
        taken.append(bytes(body))
        if len(taken) == 2:
            raise FrameError("nonsense")

    ear.channel.on_frame = take
    await ear.say(b"".join(encode(output(text)) for text in "abc"))
    await ear.until(lambda: ear.lost == 1)
    assert [read(body) for body in taken] == [output("a"), output("b")]
    assert await ear.told(1) == b""


async def test_the_limit_can_be_raised() -> None:
    """A peer that has proved itself may say more, and one that has not is dropped for it."""
    for proved in (True, False):
        ear = Ear(limit=100)
        await ear.open()
        await ear.say(encode(output("hi")))
        await ear.hears(1)
        if proved:
            ear.channel.raise_limit(LIMIT)
        await ear.say(encode(output("m" * 1000)))
        await ear.until(lambda ear=ear: ear.lost == 1 or len(ear.heard) == 2)  # type: ignore[misc]  # bound now
        assert (ear.lost, len(ear.heard)) == ((0, 2) if proved else (1, 1))
        await ear.close()


# -------------------------------------------------------------------------------------- listening


async def test_peers_that_connect_get_a_channel_each() -> None:
    """What each says is heard on its own channel, and it runs as this user."""
    made: list[Channel] = []
    heard: dict[int, list[bytes]] = {}
    done = asyncio.Event()

    def on_peer() -> Channel:
        number = len(heard)
        heard[number] = []
        channel = Channel(limit=LIMIT, on_made=made.append)

        def take(body: bytes | bytearray) -> None:
            heard[number].append(bytes(body))
            if all(len(bodies) == 2 for bodies in heard.values()) and len(heard) == 3:
                done.set()

        channel.on_frame = take
        return channel

    sock, address, remove = listen()
    server = await serve(sock, on_peer)
    lines = [await asyncio.to_thread(Line.connect, address, limit=LIMIT) for _ in range(3)]
    for number, line in enumerate(lines):
        line.send(output(str(number)))
        line.send(output(str(number)))
    with anyio.fail_after(30):
        await done.wait()
    assert sorted(read(bodies[0]).text * 2 for bodies in heard.values()) == ["00", "11", "22"]
    assert all(bodies[0] == bodies[1] for bodies in heard.values())
    assert all(channel.from_this_user for channel in made)
    server.close()
    for line in lines:
        line.close()
    with anyio.fail_after(30):
        while not all(channel.lost for channel in made):
            await asyncio.sleep(0)
    remove()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
async def test_a_listening_socket_leaves_no_file() -> None:
    """The address is abstract: no name in any directory, a new one each time, and gone with the socket."""
    first, address, remove = listen()
    second, other, remove_other = listen()
    assert address[0] == other[0] == "\0"
    assert address != other
    assert address[1:] in Path("/proc/net/unix").read_text()
    first.close()
    second.close()
    remove()
    remove_other()
    assert address[1:] not in Path("/proc/net/unix").read_text()


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root can become somebody else")
async def test_a_stranger_is_known_as_such() -> None:
    """A peer of another user can reach an abstract address, and is told apart."""
    made: list[Channel] = []
    connected = asyncio.Event()

    def on_made(channel: Channel) -> None:
        made.append(channel)
        connected.set()

    sock, address, _remove = listen()
    server = await serve(sock, lambda: Channel(limit=LIMIT, on_made=on_made))
    stranger = socket.socket(socket.AF_UNIX)
    os.seteuid(65534)  # a peer is who it was when it connected
    try:
        stranger.connect(address)
    finally:
        os.seteuid(0)
    with anyio.fail_after(30):
        await connected.wait()
    assert not made[0].from_this_user
    made[0].abort()
    stranger.close()
    server.close()


async def test_plain_streams_can_stand_between() -> None:
    """A relay accepts and dials byte streams; where nobody listens any more, dialling is an OSError."""
    sock, address, remove = listen()

    async def on_peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(3))
        writer.close()

    server = await accept(sock, on_peer)
    reader, writer = await dial(address)
    writer.write(b"abc")
    with anyio.fail_after(30):
        assert await reader.read() == b"abc"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    remove()
    with pytest.raises(OSError, match=r"refused|No such file"):
        await dial(address)
