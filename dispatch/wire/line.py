"""A worker's end of a connection: frames over a plain blocking socket, so that a lean worker needs no event loop."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock

from msgspec import Struct

from dispatch.wire.frames import Splitter, encode

__all__ = ("FRAME_SLACK", "FROM_CENTER", "UNJOINED", "Line")

UNJOINED = 64 * 1024  # bytes from which joining costs more than a further buffer
FRAME_SLACK = 1024 * 1024  # bytes that a frame from a worker may hold beside one value of the largest size
FROM_CENTER = 0xFFFF_FFFF  # the centre is trusted, and fills a frame by what shards weigh on the average


class Line:
    """A worker's end of a connection: blocking, and safe to send on from several threads."""

    def __init__(self, sock: socket.socket, *, limit: int) -> None:
        self._sock = sock
        self._splitter = Splitter(limit)
        self._frames: list[bytes | bytearray] = []
        self._lock = Lock()

    @classmethod
    def connect(cls, address: str, *, limit: int) -> Line:
        """Connect to where a centre listens. Raises OSError if nobody does any more."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return cls(sock, limit=limit)

    def fileno(self) -> int:
        """The socket's descriptor, for poll."""
        return self._sock.fileno()

    def receive(self) -> bytes | bytearray | None:
        """The next frame's body; None when the other end is gone."""
        while not self._frames:
            if not self._fill():
                return None
        return self._frames.pop(0)

    def received(self) -> list[bytes | bytearray] | None:
        """What has arrived, after poll said that something has; None when the other end is gone."""
        if not self._fill():
            return None
        arrived, self._frames = self._frames, []
        return arrived

    def _fill(self) -> bool:
        try:
            number = self._sock.recv_into(self._splitter.buffer())
        except OSError:
            return False
        if not number:
            return False
        self._frames += self._splitter.filled(number)
        return True

    @property
    def busy(self) -> bool:
        """Whether somebody is sending just now; a signal handler must not wait for it."""
        return self._lock.locked()

    def send(self, frame: Struct) -> None:
        """Send a frame; waits while the other end does not read."""
        self.write([encode(frame)])

    def write(self, buffers: Sequence[bytes | bytearray]) -> None:
        """Send bytes that make whole frames, large ones unjoined; waits while the other end does not read."""
        if sum(map(len, buffers)) < UNJOINED:
            with self._lock:
                self._sock.sendall(b"".join(buffers))
            return
        with self._lock:
            sent = self._sock.sendmsg(buffers)
            for buffer in buffers:
                view = memoryview(buffer)
                if sent < len(view):
                    self._sock.sendall(view[sent:])
                sent = max(0, sent - len(view))

    def close(self) -> None:
        """Close; the other end sees the end of the stream."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def hand_over(self) -> tuple[socket.socket, list[bytes | bytearray]]:
        """A copy of the socket, which an event loop may close, and the frames that were read ahead."""
        frames, self._frames = self._frames, []
        return self._sock.dup(), frames
