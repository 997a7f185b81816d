"""Workers in processes on this machine: one long `anyio.to_process` call each, which runs the nanny.

A start is shielded until the nanny's hello, because a cancelled start leaks its process; then it is stopped if it
is no longer wanted. The nanny leaves by `_exit`, so the call always ends as a broken worker: that is its normal
end. A process of anyio's that has served other calls is refused, and kept busy until a fresh one has come.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import msgspec
from anyio import BrokenWorkerProcess, CancelScope, to_process
from anyio.abc import TaskGroup
from msgspec import Raw, Struct

from dispatch.engines.base import Engine, Host, Start
from dispatch.engines.chores import Chores
from dispatch.engines.pool import Apart, bury, late_fault, startup_fault
from dispatch.terms.outcome import Fault
from dispatch.wire import frames
from dispatch.wire.channel import Channel, Server, listen, serve
from dispatch.wire.codec import control_decoder, encode
from dispatch.wire.line import FRAME_SLACK
from dispatch.worker import nanny
from dispatch.worker.spec import Lease, Place

__all__ = ("ProcessEngine",)

HANDSHAKE = 5.0  # seconds that a peer gets to prove itself
LAST_WORDS = 1.0  # seconds that we wait for the end of a dead runner's stream
SILENCE = 2.5  # seconds: a nanny speaks four times a second while its runner lives
LISTEN = 0.2  # seconds in which a loop that was stalled reads what was said meanwhile, before a nanny is judged silent
TURNS = 5  # of the event loop, in which a call comes as far as starting its process
FAREWELL = 1.0  # seconds that a nanny gets to leave before it is killed

_connect = control_decoder(frames.Connect)
_from_nanny = control_decoder(frames.Welcome, frames.Refused, frames.Fenced, frames.Pulse, frames.Ended)


class _Worker:
    """A worker's two connections, and the anyio call that is its nanny."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.life = 0
        self.nanny: Channel | None = None
        self.scope: CancelScope | None = None
        self.runner: Channel | None = None
        self.runner_pid = 0
        self.ended: frames.Ended | None = None
        self.alive = False  # a life was begun and its end not told
        self.greeted = False
        self.leaving = False
        self.hung_up = False  # its runner closed the connection, and lived on
        self.heard_at = time.monotonic()
        self.gone = anyio.Event()
        self.call: asyncio.Task[None] | None = None

    def order(self) -> frames.Launch:
        """To its nanny: begin this life."""
        return frames.Launch(self.life, Raw(encode(self.start.lease)))


class ProcessEngine(Engine):
    """Runs workers in processes, each under a nanny."""

    name = "process"
    contains_faults = True

    def __init__(self, *, relay: Callable[[str], str] | None = None) -> None:
        """`relay(address)` may put something between workers and centre, and returns where that listens."""
        self._relay = relay
        self._workers: dict[int, _Worker] = {}
        self._refused: list[Channel] = []
        self._strangers: set[Channel] = set()
        self._token = os.urandom(16)
        self._server: Server | None = None
        self._chores = Chores()

    async def foresee(self, numbers: Sequence[int], *, env: dict[str, str], startup_timeout: float) -> bool:
        await self._listen()
        for number in numbers:
            lease, patience = Lease(runner=""), startup_timeout
            start = Start(number=number, lease=lease, targets=(None, None), env=env, startup_timeout=patience)
            worker = self._workers[number] = _Worker(start)
            worker.call = self._chores.start_soon(self._call, worker)
        try:
            for _ in range(TURNS):
                await asyncio.sleep(0)
        except BaseException:
            with CancelScope(shield=True):
                await self.aclose()
            raise
        return True

    async def open(self, tasks: TaskGroup, host: Host) -> None:  # callbacks cannot begin tasks in `tasks`
        self._host = host
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        sock, self._address, self._remove = listen()
        try:
            self._server = await serve(sock, self._accept)
        except BaseException:
            sock.close()
            self._remove()
            raise
        if self._relay is not None:
            self._address = self._relay(self._address)

    # Connections: a peer says who it is, or is dropped.

    def _accept(self) -> Channel:
        return Channel(limit=FRAME_SLACK, on_made=self._made)

    def _made(self, channel: Channel) -> None:
        if not channel.from_this_user:
            channel.abort()
            return
        self._strangers.add(channel)
        patience = asyncio.get_running_loop().call_later(HANDSHAKE, channel.abort)
        channel.on_frame = partial(self._introduced, channel, patience)
        channel.on_lost = partial(self._strangers.discard, channel)

    def _introduced(self, channel: Channel, patience: asyncio.TimerHandle, body: bytes | bytearray) -> None:
        patience.cancel()
        self._strangers.discard(channel)
        hello: frames.Connect = _connect(body)
        worker = self._workers.get(hello.worker)
        # Not in constant time: the kernel has told that it is this user, and `hmac` is 2 ms to import.
        if worker is None or hello.token != self._token:
            channel.abort()
        elif hello.role == "nanny":
            self._nanny_came(worker, channel)
        elif worker.alive and hello.life == worker.life and worker.runner is None:
            worker.runner, worker.runner_pid = channel, hello.pid
            channel.raise_limit(worker.start.lease.limit + FRAME_SLACK)
            channel.on_frame = partial(self._host.on_frame, worker.start.number)
            channel.on_lost = partial(self._runner_silent, worker)
        else:
            channel.abort()

    def _nanny_came(self, worker: _Worker, channel: Channel) -> None:
        worker.nanny = channel
        channel.on_frame = partial(self._nanny_said, worker, channel)
        channel.on_lost = partial(self._nanny_silent, worker, channel)

    def _nanny_said(self, worker: _Worker, channel: Channel, body: bytes | bytearray) -> None:
        said = _from_nanny(body)
        worker.heard_at = time.monotonic()
        number = worker.start.number
        if isinstance(said, frames.Pulse):
            self._host.on_pulse(number, said)
        elif isinstance(said, frames.Ended):
            worker.ended = said
            loop = asyncio.get_running_loop()
            if worker.runner is not None:
                loop.call_later(LAST_WORDS, worker.runner.abort)
            elif worker.runner_pid:
                self._tell_end(worker)
            else:  # it may have connected and spoken, and this was read before
                loop.call_later(LISTEN, self._unless_here, worker, worker.life)
        elif isinstance(said, frames.Fenced):
            self._host.on_fenced(number, said)
        elif isinstance(said, frames.Refused):
            worker.nanny = None
            channel.on_lost = _nothing
            self._refused.append(channel)
            worker.call = self._chores.start_soon(self._call, worker)
        else:
            worker.greeted = True
            while self._refused:
                self._refused.pop().close()
            if worker.leaving:
                channel.send(frames.Stop())
            elif worker.life:
                channel.send(worker.order())

    def _unless_here(self, worker: _Worker, life: int) -> None:
        if worker.life == life and worker.runner is None:
            self._tell_end(worker)

    def _runner_silent(self, worker: _Worker) -> None:
        worker.runner = None
        if worker.ended is not None:
            self._tell_end(worker)
        elif worker.alive and not worker.leaving:
            asyncio.get_running_loop().call_later(LAST_WORDS, self._unless_ended, worker, worker.life)

    def _unless_ended(self, worker: _Worker, life: int) -> None:
        """A runner that lives and has hung up, or was dropped, can say nothing any more: end it."""
        if worker.life == life and worker.alive and worker.ended is None and worker.nanny is not None:
            worker.hung_up = True
            worker.nanny.send(frames.Kill())

    def _nanny_silent(self, worker: _Worker, channel: Channel) -> None:
        """A nanny that is gone takes its runner along (PDEATHSIG); make sure of its group."""
        if worker.nanny is channel:
            worker.nanny = None
        if worker.ended is None and worker.alive and not worker.leaving:
            if worker.runner_pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(worker.runner_pid, signal.SIGKILL)
            worker.ended = _end_of(worker, "nanny")
            if worker.runner is None:
                self._tell_end(worker)
            else:
                asyncio.get_running_loop().call_later(LAST_WORDS, worker.runner.abort)

    def _tell_end(self, worker: _Worker, fault: Fault | None = None) -> None:
        ended, worker.ended = worker.ended, None
        worker.runner_pid = 0
        if worker.alive and ended is not None:
            worker.alive = False
            if worker.hung_up and ended.why == "killed":
                ended = msgspec.structs.replace(ended, why="hung up")
            self._host.on_ended(worker.start.number, ended, fault)

    # Lives.

    def launch(self, start: Start) -> None:
        worker = self._workers.get(start.number)
        foreseen = worker is not None and not worker.life and not worker.gone.is_set()
        if worker is None or worker.leaving or (worker.nanny is None and not foreseen):
            worker = self._workers[start.number] = _Worker(start)
            worker.call = self._chores.start_soon(self._call, worker)
        worker.start = start
        self._begin(worker)
        if worker.nanny is not None and worker.greeted:
            worker.nanny.send(worker.order())

    def _begin(self, worker: _Worker) -> None:
        worker.life += 1
        worker.alive, worker.hung_up = True, False
        worker.heard_at = time.monotonic()
        asyncio.get_running_loop().call_later(SILENCE, self._judge, worker, worker.life)

    def _judge(self, worker: _Worker, life: int, *, again: bool = False) -> None:
        """A nanny that is stopped watches nobody: end it. It is judged only after the loop had time to read."""
        if worker.life != life or not worker.alive or worker.leaving:
            return
        loop = asyncio.get_running_loop()
        silent = worker.greeted and worker.nanny is not None and time.monotonic() - worker.heard_at > SILENCE
        if silent and again:
            self._kill_nanny(worker)
        else:
            loop.call_later(
                LISTEN if silent else SILENCE / 5, partial(self._judge, worker, life, again=silent)
            )

    def _kill_nanny(self, worker: _Worker) -> None:
        """SIGKILL to a nanny that does not answer, and to its runner's group."""
        if worker.scope is not None:
            worker.scope.cancel()
        if worker.runner_pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.runner_pid, signal.SIGKILL)

    async def _call(self, worker: _Worker) -> None:
        """The long call. Shielded: it ends when the nanny does, and `aclose` sees to that."""
        fault = None
        try:
            with CancelScope(shield=True) as worker.scope:
                # A fresh worker is due in the same time as the runner after it.
                timer = asyncio.get_running_loop().call_later(
                    worker.start.startup_timeout, self._unless_greeted, worker
                )
                apart: Any = Apart()
                place = encode(self._place(worker))
                try:
                    apart.begin()
                    await to_process.run_sync(nanny.main, place, cancellable=True, limiter=apart)
                except asyncio.CancelledError as cancelled:
                    await bury(cancelled)  # a start that is cancelled leaks its process
                    raise
                finally:
                    apart.end()
                    timer.cancel()
                return  # a process that we refused, and have let go
        except asyncio.CancelledError:  # the loop is about to close: all tasks are cancelled, shield or not
            self._call_ended(worker, None)
            raise
        except BrokenWorkerProcess as broken:
            await bury(broken)
            fault = None if worker.greeted else startup_fault(broken)
        except (KeyboardInterrupt, SystemExit) as error:  # anyio raises here what ended the process there
            if worker.greeted:
                raise
            await bury(error)
            fault = startup_fault(error)
        except Exception as error:  # noqa: BLE001  (what the nanny raised before it took over, unpickled by anyio)
            await bury(error)
            fault = startup_fault(error)
        self._call_ended(worker, fault)

    def _call_ended(self, worker: _Worker, fault: Fault | None) -> None:
        if worker.scope is not None and worker.scope.cancelled_caught and not worker.greeted:
            fault = late_fault(worker.start.startup_timeout)
        worker.greeted = False
        worker.gone.set()
        if worker.alive and (fault is not None or (worker.nanny is None and worker.ended is None)):
            worker.ended = _end_of(worker, "startup" if fault else "nanny")
            self._tell_end(worker, fault)

    def _unless_greeted(self, worker: _Worker) -> None:
        if not worker.greeted and worker.scope is not None:
            worker.scope.cancel()

    def _place(self, worker: _Worker) -> Place:
        start = worker.start
        return Place(
            number=start.number,
            address=self._address,
            token=self._token,
            env=start.env,
            startup_timeout=start.startup_timeout,
            asked_at=time.time(),
            main=getattr(sys.modules["__main__"], "__file__", None) or "",
            paths=[str(path) for path in sys.path],
        )

    def send(self, worker: int, frame: Struct) -> None:
        held = self._workers.get(worker)
        if held is not None and held.runner is not None:
            held.runner.send(frame)

    def send_work(self, worker: int, work: frames.Work[Any], payloads: Sequence[bytes]) -> None:
        held = self._workers.get(worker)
        if held is not None and held.runner is not None:
            held.runner.send_with(work, payloads, len(payloads))

    def fence(self, worker: int, upto: int, *, kill: Sequence[int] = ()) -> None:
        held = self._workers.get(worker)
        if held is not None and held.nanny is not None:
            held.nanny.send(frames.Fence(upto, list(kill)))

    def kill(self, worker: int) -> None:
        held = self._workers.get(worker)
        if held is not None and held.nanny is not None:
            held.nanny.send(frames.Kill())

    def release(self, worker: int) -> None:
        held = self._workers.get(worker)
        if held is not None:
            held.leaving = True
            if held.nanny is not None and held.greeted:
                held.nanny.send(frames.Stop())

    async def aclose(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.leaving = True
            if worker.nanny is not None and worker.greeted:
                worker.nanny.send(frames.Stop())
        for channel in self._refused:
            channel.close()
        async with anyio.create_task_group() as tasks:
            for worker in workers:
                tasks.start_soon(self._see_off, worker)
        if self._server is not None:
            self._server.close()
            self._remove()
        for channel in [*self._strangers, *(w.runner for w in workers if w.runner is not None)]:
            channel.abort()
        await self._chores.aclose(within=FAREWELL)
        await asyncio.sleep(0)

    async def _see_off(self, worker: _Worker) -> None:
        """Wait for the nanny to leave; kill it, and the runner's group, if it does not."""
        while not worker.greeted and not worker.gone.is_set():
            # Starting: killing it now would leak a process. `_unless_greeted` bounds this.
            if worker.call is None or worker.call.done() or worker.call.cancelling():
                return  # the loop is about to close, and the chores end it
            await asyncio.sleep(0.002)
        with anyio.move_on_after(FAREWELL):
            await worker.gone.wait()
        if not worker.gone.is_set():
            self._kill_nanny(worker)
            with anyio.move_on_after(FAREWELL):
                await worker.gone.wait()


def _nothing() -> None:
    pass


def _end_of(worker: _Worker, why: str) -> frames.Ended:
    """An end that no nanny told: nobody knows what ran."""
    return frames.Ended(worker.life, worker.runner_pid, why, None, None, 0, 0.0, time.monotonic(), "", "")
