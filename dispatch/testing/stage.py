"""An engine on a stage: a host that remembers what it was told, and workers that play scripts."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup
from msgspec import Struct

from dispatch.engines.base import Engine, Start
from dispatch.terms.outcome import Fault
from dispatch.testing.proof import until
from dispatch.testing.script import Script, ScriptedRunner
from dispatch.wire import frames
from dispatch.wire.codec import Codec, encode
from dispatch.worker.runner import reference
from dispatch.worker.spec import Lease

__all__ = ("MakeEngine", "RecordingHost", "Stage", "Told", "on_stage")

MakeEngine = Callable[[], Engine]
CLOSING = 10.0  # seconds that an engine may take to close
LIMIT = 16 * 1024 * 1024
F = TypeVar("F")


class Told(Struct, frozen=True):
    """One thing that the host was told: a frame of `wire/frames.py`, and the fault that came with an Ended."""

    worker: int
    said: Any
    fault: Fault | None = None


class RecordingHost:
    """A `Host` that remembers everything, in order. Pulses, which come when they like, are kept apart."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.pulses: list[Told] = []
        self.off_loop: list[str] = []  # what was told from elsewhere than the event loop
        self._codec = Codec("ScriptedRunner", Any, Any, limit=LIMIT)

    def on_frame(self, worker: int, body: bytes | bytearray) -> None:
        """Decode and remember; bytes that are no frame raise FrameError, which is the engine's bug."""
        for said in self._codec.from_runner(body):
            self._tell("on_frame", Told(worker, said))

    def on_fenced(self, worker: int, fenced: frames.Fenced) -> None:
        """Remember."""
        self._tell("on_fenced", Told(worker, fenced))

    def on_pulse(self, worker: int, pulse: frames.Pulse) -> None:
        """Remember, apart."""
        self.pulses.append(Told(worker, pulse))

    def on_ended(self, worker: int, ended: frames.Ended, fault: Fault | None) -> None:
        """Remember."""
        self._tell("on_ended", Told(worker, ended, fault))

    def _tell(self, how: str, told: Told) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.off_loop.append(how)
        self.told.append(told)

    def all(self, kind: type[F], worker: int = 0) -> list[F]:
        """Every frame of a kind that a worker said, in order."""
        return [told.said for told in self.told if told.worker == worker and isinstance(told.said, kind)]

    def done(self, worker: int = 0) -> list[tuple[int, Any]]:
        """Every (seq, value) that a worker delivered, in order."""
        found: list[tuple[int, Any]] = []
        delivered: list[frames.Results[Any]] = self.all(frames.Results, worker)
        for frame in delivered:
            seqs = frame.seqs or range(frame.first, frame.first + len(frame.values))
            found += zip(seqs, frame.values, strict=True)
        return found

    def failed(self, worker: int = 0) -> list[int]:
        """The seqs of the attempts that failed in a worker that lived on."""
        return [frame.seq for frame in self.all(frames.Fail, worker)]

    def faults(self, worker: int = 0) -> list[Fault | None]:
        """What came with each end of a worker's lives."""
        return [
            told.fault for told in self.told if told.worker == worker and isinstance(told.said, frames.Ended)
        ]


class Stage:
    """An open engine, its host, and a directory for the files by which scripts and tests signal to each other."""

    def __init__(self, engine: Engine, directory: str) -> None:
        self.engine, self.directory = engine, directory
        self.host = RecordingHost()
        self.seq = 1  # of the next attempt

    def path(self, name: str) -> str:
        """Where a file of this name is, or will be."""
        return os.path.join(self.directory, name)

    @property
    def gate(self) -> str:
        """A file that appears when the stage is left at the latest: scripts wait for it and not for ever."""
        return self.path("gate")

    def open_gate(self) -> None:
        """Let scripts that wait for the gate go on."""
        with open(self.gate, "w"):
            pass

    def start(
        self, worker: int = 0, runner: type[Any] = ScriptedRunner, *, startup_timeout: float = 30.0
    ) -> None:
        """Launch a life of a worker."""
        lease = Lease(runner=reference(runner), limit=LIMIT)
        self.engine.launch(
            Start(number=worker, lease=lease, targets=(runner, None), env={}, startup_timeout=startup_timeout)
        )

    async def ready(self, worker: int = 0, *, lives: int = 1) -> None:
        """Wait until a worker has said so many times that it is ready."""
        await self.see(
            lambda: len(self.host.all(frames.Ready, worker)) >= lives, f"no Ready from worker {worker}"
        )

    def give(self, *scripts: Script, worker: int = 0, timeout: float | None = None) -> int:
        """Send scripts in one frame; the seq of the first."""
        first, self.seq = self.seq, self.seq + len(scripts)
        work: frames.Work[Any] = frames.Work(first, timeout, indexes=list(range(len(scripts))))
        self.engine.send_work(worker, work, [encode(script) for script in scripts])
        return first

    async def see(self, holds: Callable[[], object], otherwise: str) -> None:
        """Wait until something holds. Raises AssertionError with `otherwise` if it does not."""
        if not await until(holds):
            raise AssertionError(f"{otherwise} (told so far: {[told.said for told in self.host.told]})")

    async def see_end(self, worker: int = 0, *, lives: int = 1) -> frames.Ended:
        """Wait for the n-th end of a worker's lives."""
        ends = self.host.all
        await self.see(
            lambda: len(ends(frames.Ended, worker)) >= lives, f"no end of worker {worker} was told"
        )
        return ends(frames.Ended, worker)[lives - 1]

    def exists(self, name: str) -> bool:
        """Whether a script has written this file."""
        return os.path.exists(self.path(name))

    async def see_file(self, name: str) -> int:
        """Wait for a file that a script writes; the pid in it."""
        await self.see(lambda: self.exists(name), f"the script never came to write {name}")
        with open(self.path(name)) as file:  # noqa: ASYNC230  (a few bytes)
            return int(file.read())


@asynccontextmanager
async def on_stage(make_engine: MakeEngine) -> AsyncGenerator[Stage]:
    """Open an engine; close it on leaving. Raises AssertionError if closing takes longer than CLOSING seconds."""
    with tempfile.TemporaryDirectory(prefix="contract-", ignore_cleanup_errors=True) as directory:
        stage = Stage(make_engine(), directory)
        async with anyio.create_task_group() as tasks:
            await stage.engine.open(tasks, stage.host)
            try:
                yield stage
            finally:
                stage.open_gate()
                await _close(stage.engine, tasks)


async def _close(engine: Engine, tasks: TaskGroup) -> None:
    with CancelScope(shield=True), anyio.move_on_after(CLOSING) as scope:
        await engine.aclose()
    tasks.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise AssertionError(f"aclose took longer than {CLOSING:g} s")
