"""Frames between a warm worker and the fork that runs a shard, each led by a nonce.

The fork's code may write to any descriptor: what is not led by the nonce is noise, and skipped.
"""

from __future__ import annotations

import os
import socket
from threading import RLock

from msgspec import Struct

from dispatch.wire.frames import PREFIX, encode

__all__ = ("Mailbox",)

_NONCE = 16
_READ = 256 * 1024
_READS = 64  # far more than a socket buffers: who writes faster than we read must not keep us


class Mailbox:
    """One end. Messages are bounded by `limit` bytes; a longer one is noise."""

    def __init__(self, sock: socket.socket, nonce: bytes, *, limit: int) -> None:
        self._sock, self._nonce, self._limit = sock, nonce, limit
        self._have = bytearray()
        self._sending = RLock()

    @classmethod
    def pair(cls, *, limit: int) -> tuple[Mailbox, Mailbox]:
        """Two ends that share a new nonce; both inherit through a fork only."""
        ours, theirs = socket.socketpair()
        nonce = os.urandom(_NONCE)
        return cls(ours, nonce, limit=limit), cls(theirs, nonce, limit=limit)

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._sock.fileno()

    def send(self, frame: Struct) -> None:
        """Send a message; waits while the other end does not read. Raises OSError if it is gone."""
        with self._sending:
            self._sock.sendall(self._nonce + encode(frame))

    def receive(self) -> bytes | None:
        """The next message's body; waits for it. None when the other end is gone."""
        while (body := self._cut()) is None:
            if not self._fill(0):
                return None
        return body

    def arrived(self) -> list[bytes]:
        """The messages that have arrived by now; never waits, nor is held up by a flood."""
        for _ in range(_READS):
            if not self._fill(socket.MSG_DONTWAIT):
                break
        bodies: list[bytes] = []
        while (body := self._cut()) is not None:
            bodies.append(body)
        return bodies

    def _fill(self, flags: int) -> bool:
        try:
            data = self._sock.recv(_READ, flags)
        except OSError:  # nothing there (yet), or the other end was reset
            return False
        self._have += data
        if len(self._have) > self._limit + 2 * _READ:
            self._skip_noise()
        return bool(data)

    def _skip_noise(self) -> None:
        at = self._have.find(self._nonce)
        del self._have[: at if at >= 0 else max(0, len(self._have) - _NONCE + 1)]

    def _cut(self) -> bytes | None:
        while True:
            self._skip_noise()
            have = self._have
            if len(have) < _NONCE + PREFIX.size:
                return None
            size = PREFIX.unpack_from(have, _NONCE)[0]
            end = _NONCE + PREFIX.size + size
            if size > self._limit:
                del have[:1]  # the nonce was there, what follows was not ours: look further on
            elif len(have) < end:
                return None
            else:
                body = bytes(memoryview(have)[_NONCE + PREFIX.size : end])
                del have[:end]
                return body

    def close(self) -> None:
        """Close this end."""
        self._sock.close()
