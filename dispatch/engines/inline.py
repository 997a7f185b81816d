"""Workers in this process: each a daemon thread that runs the same lane over a socket pair.

Nothing here can be stopped, isolated or captured: killing a worker abandons its thread, which ends when its
shard does. Local centres and most tests use it; breakpoints work.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from anyio.abc import TaskGroup
from msgspec import Struct

from dispatch.engines.base import Engine, Host, Start
from dispatch.engines.chores import Chores
from dispatch.wire.channel import Channel, adopt, pair
from dispatch.wire.frames import Ended, Fenced, Pulse, Work
from dispatch.wire.line import FRAME_SLACK, FROM_CENTER, Line
from dispatch.worker.main import serve
from dispatch.worker.slot import Slot

__all__ = ("InlineEngine",)


class _Inmate:
    """A worker's thread, seen from the loop."""

    def __init__(self, channel: Channel, slot: Slot, life: int) -> None:
        self.channel, self.slot, self.life = channel, slot, life
        self.ended = False


class InlineEngine(Engine):
    """Runs workers on threads of this process."""

    name = "inline"
    contains_faults = False

    def __init__(self) -> None:
        self._workers: dict[int, _Inmate] = {}
        self._lives = 0
        self._closed = False
        self._chores = Chores()

    async def open(self, tasks: TaskGroup, host: Host) -> None:  # callbacks cannot begin tasks in `tasks`
        self._host = host

    def launch(self, start: Start) -> None:
        self._lives += 1
        self._chores.start_soon(self._launch, start, self._lives)

    async def _launch(self, start: Start, life: int) -> None:
        if self._closed:  # launched and closed before the loop came to it
            return
        ours, theirs = pair()
        channel = Channel(limit=start.lease.limit + FRAME_SLACK)
        slot = Slot()
        slot.reset()
        inmate = self._workers[start.number] = _Inmate(channel, slot, life)
        channel.on_frame = partial(self._host.on_frame, start.number)
        channel.on_lost = partial(self._over, start.number, inmate, "")
        line = Line(theirs, limit=FROM_CENTER)
        thread = threading.Thread(
            target=_serve, args=(start, line, slot), name=f"dispatch-{start.number}", daemon=True
        )
        try:
            await adopt(ours, channel)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        if inmate.ended:  # closed or killed meanwhile
            channel.abort()
            theirs.close()
        else:
            thread.start()

    def _over(self, worker: int, inmate: _Inmate, why: str) -> None:
        if inmate.ended:
            return
        inmate.ended = True
        seq, since, _ = inmate.slot.read()
        ended = Ended(
            life=inmate.life,
            pid=os.getpid(),
            why=why,
            signal=None,
            exit_code=0,
            seq=seq if since else 0,
            started=since,
            at=monotonic(),
            stack="",
            output="",
        )
        if self._workers.get(worker) is inmate:
            del self._workers[worker]
        self._host.on_ended(worker, ended, None)

    def send(self, worker: int, frame: Struct) -> None:
        inmate = self._workers.get(worker)
        if inmate is not None:
            inmate.channel.send(frame)

    def send_work(self, worker: int, work: Work[Any], payloads: Sequence[bytes]) -> None:
        inmate = self._workers.get(worker)
        if inmate is not None:
            inmate.channel.send_with(work, payloads, len(payloads))

    def fence(self, worker: int, upto: int, *, kill: Sequence[int] = ()) -> None:
        inmate = self._workers.get(worker)
        if inmate is None:
            return
        inmate.slot.fence = max(inmate.slot.fence, upto)
        if inmate.slot.running in kill:
            self.kill(worker)
        else:
            fenced = Fenced(upto, inmate.slot.read()[0])
            asyncio.get_running_loop().call_soon(self._host.on_fenced, worker, fenced)

    def kill(self, worker: int) -> None:
        inmate = self._workers.get(worker)
        if inmate is not None:
            inmate.slot.fence = 1 << 62
            inmate.channel.on_lost = partial(self._over, worker, inmate, "killed")
            inmate.channel.abort()
            asyncio.get_running_loop().call_soon(self._over, worker, inmate, "killed")

    def release(self, worker: int) -> None:
        """Nothing is kept for a thread that has ended."""

    def look(self) -> None:
        for number, inmate in self._workers.items():
            self._host.on_pulse(number, Pulse(*inmate.slot.shown, 0))

    async def aclose(self) -> None:
        self._closed = True
        for inmate in list(self._workers.values()):
            inmate.ended = True
            inmate.slot.fence = 1 << 62
            inmate.channel.abort()
        self._workers.clear()
        await self._chores.aclose(within=1.0)
        await asyncio.sleep(0)


def _serve(start: Start, line: Line, slot: Slot) -> None:
    try:
        # A shard that was abandoned finds its socket gone when it ends, and a SystemExit ends this thread only.
        with suppress(OSError, SystemExit):
            serve(start.lease, line, slot, targets=start.targets)
    finally:
        line.close()
