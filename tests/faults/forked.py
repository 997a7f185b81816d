"""Runners whose shards run in forks, and what such a shard may do to break out of its own."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from dispatch import Runner, Shard
from dispatch.wire import frames
from tests.faults.culprits import ACTS, Answer, Task

WARM: dict[str, Any] = {
    "pid": 0,
    "setups": 0,
    "touched": [],
}  # the warm process's state, which no shard may change


class Place(Struct):
    """What a shard in a fork sees of the process that it was forked from."""

    pid: int
    warm: int
    setups: int
    touched: int
    threads: int


class Forked(Runner):
    """Does what its payload says, after it has spoilt all the state that it can reach."""

    def setup(self) -> None:
        WARM["pid"] = os.getpid()
        WARM["setups"] += 1
        self.kept = [0]

    def do_run(self, shard: Shard[Task]) -> Place:
        place = Place(
            os.getpid(),
            os.getppid(),
            WARM["setups"],
            len(WARM["touched"]) + sum(self.kept),
            threading.active_count(),
        )
        WARM["touched"].append(shard.id)
        self.kept[0] += 1
        os.chdir("/")
        os.environ["TOUCHED"] = "yes"
        sys.modules.pop("json", None)
        if shard.payload.act:
            value = ACTS[shard.payload.act](shard.payload)
            return place if value is None else value
        return place


class ForkedCulprit(Runner):
    """Does what is wrong where the payload asks for it; its answer has the warm process's pid."""

    def do_run(self, shard: Shard[Task]) -> Answer:
        task = shard.payload
        value = ACTS[task.act](task) if task.act else None
        return Answer(2 * task.number, shard.attempt, os.getppid()) if value is None else value


class Questions(Protocol):
    """What the next runners ask."""

    def add(self, first: int, second: int) -> int: ...
    def refuse(self) -> int: ...
    def ponder(self) -> int: ...


class Asks(Runner[Questions]):
    """Asks its centre, and tells how far it is."""

    def do_run(self, shard: Shard[Task]) -> int:
        number = shard.payload.number
        self.progress(1, 2)
        if shard.payload.act == "refuse":
            return self.center.refuse()
        if shard.payload.act == "ponder":
            return self.center.ponder()
        total = sum(self.center.add(number, n) for n in range(10))
        self.progress(2, 2)
        return total


class AsksLater(Runner[Questions]):
    """The same with an event loop."""

    async def do_run(self, shard: Shard[Task]) -> list[int]:
        import asyncio

        await asyncio.sleep(0)
        loop = id(asyncio.get_running_loop())
        return [await self.center.add(shard.payload.number, 1), loop % 2]


class Threads(Runner):
    """Starts a thread before there is anything to fork."""

    def setup(self) -> None:
        threading.Thread(target=time.sleep, args=(600,), daemon=True, name="the-thread-of-setup").start()

    def do_run(self, shard: Shard[int]) -> int:
        return shard.payload


class NativeThreads(Runner):
    """Has a thread that Python knows nothing of, as BLAS has."""

    def setup(self) -> None:
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)

    def do_run(self, shard: Shard[int]) -> int:
        return 2 * shard.payload


class Several(Runner):
    """Wants more than one at once, which forks do not offer."""

    concurrency = 4

    async def do_run(self, shard: Shard[int]) -> int:
        return shard.payload


class Forger(Runner):
    """The odd shards fail, after writing a verdict of their own to whatever takes it."""

    def do_run(self, shard: Shard[int]) -> str:
        if shard.payload % 2 == 0:
            return "honest"
        forge()
        raise ValueError("the verdict of an honest judge")


def forge() -> None:
    """Write every frame that would help to every descriptor, of this process and of those around it."""
    verdicts = b"".join(_verdicts())
    for directory in ("/proc/self/fd", f"/proc/{os.getppid()}/fd"):
        for name in os.listdir(directory):
            fd = int(name)
            if directory == "/proc/self/fd":
                with suppress(OSError):
                    os.set_blocking(fd, False)
                    os.write(fd, verdicts)
            else:
                with suppress(OSError), open(f"{directory}/{name}", "wb", buffering=0) as file:
                    os.set_blocking(file.fileno(), False)
                    file.write(verdicts)


def _verdicts() -> list[bytes]:
    value = msgspec.msgpack.encode("forged")
    found = []
    for seq in range(40):
        body = msgspec.msgpack.encode(
            ["results", seq, [], [time.monotonic()], [time.monotonic()], ["forged"]]
        )
        found.append(struct.pack("<I", len(body)) + body)
        found.append(frames.encode(frames.Answer(seq, msgspec.Raw(value))))
        found.append(os.urandom(16) + frames.encode(frames.Answer(0, msgspec.Raw(value))))
    return found


class Weighs(Struct):
    """A payload that measures a bare fork and wait in the warm process, just before the fork for its shard."""

    bare: float = 0.0

    def __post_init__(self) -> None:
        if "MEASURE" in os.environ:
            began = time.monotonic()
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            self.bare = time.monotonic() - began


class Heavy(Runner):
    """A worker of ordinary weight: 50 MB of objects."""

    def setup(self) -> None:
        self.weight = [bytearray(1000) for _ in range(50_000)]

    def do_run(self, shard: Shard[Weighs]) -> float:
        return shard.payload.bare
