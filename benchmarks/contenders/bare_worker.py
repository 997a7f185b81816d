"""The bare limit, worker's side: read a frame of payloads, write a frame of values, until the other end closes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


def serve(sock: socket.socket, fn: Callable[[Any], Any]) -> None:
    """Blocking reads into one buffer, several frames a read; one write a frame."""
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    buffer = bytearray(1024 * 1024)
    view = memoryview(buffer)
    start = end = 0
    while True:
        size = int.from_bytes(buffer[start : start + 4], "big") if end - start >= 4 else 0
        if size and end - start >= 4 + size:
            values = [fn(payload) for payload in decode(view[start + 4 : start + 4 + size])]
            start += 4 + size
            body = encode(values)
            head = len(body).to_bytes(4, "big")
            if len(body) > 65536:
                sock.sendall(head)
                sock.sendall(body)
            else:
                sock.sendall(head + body)
            continue
        buffer[: end - start] = buffer[start:end]
        start, end = 0, end - start
        got = sock.recv_into(view[end:])
        if not got:
            return
        end += got


def spawned(fd: int, fn: str, path: str) -> None:
    """A worker that was started from nothing: what is shared is mapped, and decoded if it is no blob."""
    import mmap

    from benchmarks.harness import work

    with Path(path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    work.keep(memoryview(mapped) if fn == "kept_piece" else msgspec.msgpack.decode(mapped))
    serve(socket.socket(fileno=fd), getattr(work, fn))


if __name__ == "__main__":
    import sys

    spawned(int(sys.argv[1]), sys.argv[2], sys.argv[3])
