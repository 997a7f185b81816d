"""Half frames, garbage and strangers at the centre's socket: who is no worker is dropped, and the run goes on."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from dispatch import DataParallelDispatchCenter, Failed
from dispatch.engines import process
from dispatch.wire import frames
from tests.faults.culprits import Culprit, Task
from tests.faults.scene import config, failed, run, uncharged, until

pytestmark = [pytest.mark.asyncio, pytest.mark.both_loops]


def _address() -> str:
    """Where the centre of this process listens, as any process of the machine can read it."""
    for line in Path("/proc/net/unix").read_text().splitlines():
        name = line.rpartition(" ")[2]
        if name.startswith(f"@dispatch-{os.getpid()}-"):
            return "\0" + name[1:]
    raise AssertionError("no centre listens")


async def _dropped(stranger: socket.socket) -> bool:
    """Whether the other end closes the connection, within some seconds."""
    async with asyncio.timeout(5):
        try:
            return await asyncio.get_running_loop().sock_recv(stranger, 1) == b""
        except ConnectionResetError:
            return True


def _knock(words: bytes) -> socket.socket:
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stranger.connect(_address())
    stranger.setblocking(False)
    with suppress(BlockingIOError):
        stranger.sendall(words)
    return stranger


def _hello(role: str, *, worker: int = 0, life: int = 1) -> bytes:
    return frames.encode(frames.Connect(b"a token of my own", role, worker, os.getpid(), life))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="another protocol"),
        pytest.param(os.urandom(4096), id="noise"),
        pytest.param(struct.pack("<I", 0xFFFFFFFF), id="4 GB announced"),
        pytest.param(struct.pack("<I", 0), id="an empty frame"),
        pytest.param(struct.pack("<I", 5) + b"\xc1\xc1\xc1\xc1\xc1", id="no msgpack"),
        pytest.param(frames.encode(frames.Stop()), id="a frame that is no hello"),
        pytest.param(_hello("runner"), id="a runner without the token"),
        pytest.param(_hello("nanny"), id="a nanny without the token"),
        pytest.param(_hello("king"), id="a role that there is not"),
        pytest.param(_hello("runner", worker=99), id="a worker that there is not"),
        pytest.param(_hello("runner", worker=-1, life=-1), id="a worker below zero"),
    ],
)
async def test_a_stranger(words: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever does not say the right hello is dropped, without a word in the log, and the run goes on."""
    async with DataParallelDispatchCenter(Culprit, config=config()) as center:
        running = asyncio.create_task(center.run([Task(n, "works", 0.005) for n in range(40)]))
        with _knock(words) as stranger:
            assert await _dropped(stranger)
        uncharged(await running)
        assert (await center.submit(Task(4))).double == 8
    assert caplog.records == []


async def test_a_stranger_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says nothing, or half a hello, is dropped after a while."""
    monkeypatch.setattr(process, "HANDSHAKE", 0.2)
    async with DataParallelDispatchCenter(Culprit, config=config(1)) as center:
        with _knock(b"") as silent, _knock(_hello("runner")[:7]) as half:
            assert await _dropped(silent)
            assert await _dropped(half)
        assert (await center.submit(Task(4))).double == 8


async def test_a_crowd_of_strangers() -> None:
    """Two hundred strangers that come and go, or stay silent, keep no worker from its work."""
    async with DataParallelDispatchCenter(Culprit, config=config()) as center:
        running = asyncio.create_task(center.run([Task(n, "works", 0.002) for n in range(60)]))
        # On a thread: who connects waits while the centre has many to accept.
        crowd = await asyncio.to_thread(lambda: [_knock(_hello("nanny")[: n % 20]) for n in range(200)])
        try:
            uncharged(await running)
        finally:
            for stranger in crowd:
                stranger.close()


@pytest.mark.parametrize("act", ["writes_garbage_to_every_socket", "writes_half_a_frame_and_dies"])
async def test_a_worker_that_sends_garbage(act: str) -> None:
    """A shard that writes garbage, or half a frame, into its worker's socket costs itself only."""
    shards = [Task(n, act if n == 77 else "") for n in range(200)]
    report = await run(Culprit, shards, crash_budget=1)
    assert failed(report, 77).fault.cause == "crashed"
    uncharged(report, but=[77])


async def test_a_worker_that_announces_too_much() -> None:
    """A frame longer than any value may be is never waited for: its worker is ended, and its shard charged."""
    shards = [Task(n, "announces_4_gigabytes" if n == 77 else "") for n in range(200)]
    report = await run(Culprit, shards, crash_budget=1, timeout=20)
    assert failed(report, 77).fault.cause == "crashed"
    uncharged(report, but=[77])


async def test_a_worker_whose_socket_is_gone() -> None:
    """A shard that closes its worker's socket is charged when the worker ends, and nobody else is."""
    async with DataParallelDispatchCenter(Culprit, config=config(1, crash_budget=1)) as center:
        outcome = await center.submit_outcome(Task(1, "closes_every_socket"))
        assert isinstance(outcome, Failed)
        await until(lambda: center.snapshot().workers[0].state == "ready")
        assert (await center.submit(Task(4))).double == 8
