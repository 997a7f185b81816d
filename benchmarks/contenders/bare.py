"""The bare limit: processes on a socketpair, msgpack frames, driven from an asyncio protocol. And nothing else.

No outcome, no deadline, no retry, no check of what a worker is; a worker that dies leaves its frames behind.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.contenders.bare_worker import serve
from benchmarks.contenders.base import Contender, Weigh, batches

DEPTH = 2  # frames in flight for each worker


class Wire(asyncio.BufferedProtocol):
    """Frames from one worker, in the loop iteration that read them."""

    def __init__(self) -> None:
        self.on_values: Callable[[Wire, list[Any]], None] = print
        self._buffer = bytearray(256 * 1024)
        self._filled = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        buffer, start = self._buffer, 0
        while self._filled - start >= 4:
            size = 4 + int.from_bytes(buffer[start : start + 4], "big")
            if self._filled - start < size:
                if size > len(buffer):
                    self._buffer = bytearray(size)
                break
            values = msgspec.msgpack.decode(memoryview(buffer)[start + 4 : start + size])
            start += size
            self.on_values(self, values)
        left = buffer[start : self._filled]
        self._buffer[: len(left)] = left
        self._filled = len(left)

    def send(self, batch: Any) -> None:
        body = msgspec.msgpack.encode(batch)
        self.transport.write(len(body).to_bytes(4, "big") + body)


class Bare(Contender):
    """Workers by fork; by spawn where there is something to share."""

    title = "bare socket"
    chunks = (256,)
    starts = ("spawn",)

    async def __aenter__(self) -> Bare:
        loop = asyncio.get_running_loop()
        self._wires: list[Wire] = []
        self._pids: list[int] = []
        self._children: list[subprocess.Popen[bytes]] = []
        path = self._written() if self.shared is not None else ""
        for _ in range(self.workers):
            ours, theirs = socket.socketpair()
            if path:
                self._spawn(theirs, path)
            else:
                self._fork(ours, theirs)
            theirs.close()
            _, wire = await loop.create_connection(Wire, sock=ours)
            self._wires.append(wire)
        return self

    def _fork(self, ours: socket.socket, theirs: socket.socket) -> None:
        pid = os.fork()
        if not pid:
            for wire in self._wires:
                os.close(wire.transport.get_extra_info("socket").fileno())
            ours.close()
            try:
                serve(theirs, self.fn)
            finally:
                os._exit(0)
        self._pids.append(pid)

    def _spawn(self, theirs: socket.socket, path: str) -> None:
        command = [sys.executable, "-m", "benchmarks.contenders.bare_worker"]
        arguments = [str(theirs.fileno()), self.fn.__name__, path]
        self._children.append(subprocess.Popen([*command, *arguments], pass_fds=[theirs.fileno()]))

    def _written(self) -> str:
        self._directory = tempfile.TemporaryDirectory(dir="/dev/shm")
        path = Path(self._directory.name) / "shared"
        path.write_bytes(
            self.shared if isinstance(self.shared, bytes) else msgspec.msgpack.encode(self.shared)
        )
        return str(path)

    async def __aexit__(self, *error: object) -> None:
        for wire in self._wires:
            wire.transport.abort()
        await asyncio.sleep(0)
        for pid in self._pids:
            os.waitpid(pid, 0)
        for child in self._children:
            child.wait()
        if self.shared is not None:
            self._directory.cleanup()

    async def fold(
        self, payloads: Iterable[Any], *, chunk: int = 256, weigh: Weigh = int
    ) -> tuple[int, float]:
        count, total = 0, 0.0
        left = batches(payloads, chunk)
        flying = 0
        done = asyncio.get_running_loop().create_future()

        def feed(wire: Wire) -> None:
            nonlocal flying
            batch = next(left, None)
            if batch is not None:
                flying += 1
                wire.send(batch)

        def take(wire: Wire, values: list[Any]) -> None:
            nonlocal count, total, flying
            flying -= 1
            feed(wire)
            for value in values:
                count += 1
                total += weigh(value)
            if not flying and not done.done():
                done.set_result(None)

        for wire in self._wires * DEPTH:
            wire.on_values = take
            feed(wire)
        await done
        return count, total

    def call(self, payload: Any) -> Awaitable[Any]:
        waiter = asyncio.get_running_loop().create_future()
        wire = self._wires[0]
        wire.on_values = lambda _, values: waiter.set_result(values[0])
        wire.send([payload])
        return waiter
