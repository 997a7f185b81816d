"""Frames over one byte stream on an event loop; one reader, one writer.

An asyncio protocol and not a stream: a frame is handled in the same loop iteration that read it, because the
latency of a call is the number of its wake-ups. The other end is usually a `Line`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from msgspec import Struct

from dispatch.wire.frames import FrameError, Results, Splitter, Work, encode, open_ended
from dispatch.wire.line import UNJOINED

__all__ = ("Channel", "Server", "accept", "adopt", "dial", "listen", "pair", "serve")

Server = asyncio.Server

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Channel(asyncio.BufferedProtocol):
    """The parent's end of a connection. `on_frame(body)` and `on_lost()` are called by the event loop."""

    def __init__(self, *, limit: int, on_made: Callable[[Channel], None] | None = None) -> None:
        self._splitter = Splitter(limit)
        self._on_made = on_made
        self._transport: asyncio.Transport | None = None
        self.on_frame: Callable[[bytes | bytearray], None] = _ignore
        self.on_lost: Callable[[], None] = _nothing
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by duck, not by class
        if self._on_made is not None:
            self._on_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._splitter.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for body in self._splitter.filled(nbytes):
                self.on_frame(body)
        except FrameError:
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self._transport = None
            on_lost, self.on_lost, self.on_frame = self.on_lost, _nothing, _ignore
            on_lost()

    @property
    def from_this_user(self) -> bool:
        """Whether the peer runs as this user: an abstract address has no file permissions to see to that."""
        sock: Any = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None or not hasattr(socket, "SO_PEERCRED"):
            return sock is not None  # macOS: the directory is private
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return bool(_CREDENTIALS.unpack(credentials)[1] == os.getuid())

    def raise_limit(self, limit: int) -> None:
        """Let frames be up to `limit` bytes, now that the peer has proved itself."""
        self._splitter.limit = limit

    def send(self, frame: Struct) -> None:
        """Send a frame. Never blocks; after the connection is lost, does nothing."""
        if self._transport is not None:
            self._transport.write(encode(frame))

    def send_with(
        self, frame: Work[Any] | Results[Any], items: Sequence[bytes | bytearray], number: int
    ) -> None:
        """Send a frame whose last field is `number` items that are encoded already."""
        if self._transport is None:
            return
        size = sum(map(len, items))
        head = open_ended(frame, number, size)
        if size < UNJOINED:
            self._transport.write(b"".join((head, *items)))
        else:
            self._transport.writelines((head, *items))

    def close(self) -> None:
        """Close when all is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


def _ignore(body: bytes | bytearray) -> None:
    pass


def _nothing() -> None:
    pass


def listen() -> tuple[socket.socket, str, Callable[[], None]]:
    """A listening Unix socket, its address, and what removes it.

    On Linux the address is abstract: no file, so `kill -9` at any instant leaves nothing behind; the token and
    the peer's user id stand for the private directory. Elsewhere: a socket in a directory of mode 0700.
    """
    if sys.platform == "linux":
        directory, address = "", f"\0dispatch-{os.getpid()}-{os.urandom(8).hex()}"
    else:
        import tempfile  # 5 ms, and not on Linux

        directory = tempfile.mkdtemp(prefix="dispatch-", dir="/tmp")  # short: AF_UNIX allows 104 bytes
        address = os.path.join(directory, "s")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(address)
    sock.listen(128)

    def remove() -> None:
        if directory:
            with suppress(OSError):
                os.unlink(address)
            with suppress(OSError):
                os.rmdir(directory)

    return sock, address, remove


async def serve(sock: socket.socket, on_peer: Callable[[], Channel]) -> Server:
    """Give each peer that connects to a listening socket the Channel that `on_peer()` returns."""
    server = await asyncio.get_running_loop().create_unix_server(on_peer, sock=sock, start_serving=False)
    try:
        await server.start_serving()
    except BaseException:  # cancelled: without this the loop would go on watching a socket that is closed
        server.close()
        raise
    return server


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets: one for a Channel, one for a Line of another thread."""
    return socket.socketpair()


async def adopt(sock: socket.socket, channel: Channel) -> None:
    """Make a connected socket the channel's. Cancelling leaves the socket to be closed by the caller."""
    sock.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: channel, sock=sock)


async def accept(
    sock: socket.socket, on_peer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> asyncio.Server:
    """Serve plain byte streams on a listening socket: for a relay between workers and centre (`dispatch.testing`)."""
    return await asyncio.start_unix_server(on_peer, sock=sock)


async def dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A plain byte stream to where a centre listens. Raises OSError if nobody does any more."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        return await asyncio.open_unix_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
