"""First function in the anyio process: forks the runner process, watches it, kills its whole tree, tells how it ended.

It never runs user code, starts no thread, and leaves by `_exit`, never back into anyio's pool. It waits on three
things: its control socket (end of file: the centre is gone), the runner's pidfd, and a tick at which it looks at
the slot. A deadline is judged here, beside the work and on one clock, so that a stalled parent fails nothing.
"""

from __future__ import annotations

import gc
import math
import os
import select
import signal
from contextlib import suppress
from time import monotonic, sleep
from typing import NoReturn

from dispatch.wire import frames
from dispatch.wire.codec import control_decoder, decoder_for
from dispatch.wire.line import FRAME_SLACK, Line
from dispatch.worker.birth import Birth, close_if, fork_runner, spawn_runner
from dispatch.worker.kernel import (
    become_subreaper,
    catches,
    kill_tree,
    memory_of,
    started_at,
    thread_count,
    wake_with_parent,
)
from dispatch.worker.output import await_dump, nameless_file, read_tail, trim
from dispatch.worker.slot import Slot
from dispatch.worker.spec import Lease, Place

__all__ = ("main",)

TICK = 0.05  # seconds between looks at the slot
PULSE = 0.25  # seconds between reports of what runs
STOPPED_WITHIN = 0.1  # seconds; who waits in the kernel for a vforked child can be killed, and not stopped
STOP_LOOK = 0.0005  # seconds between looks whether the runner has stopped
FENCE_PAUSE = 0.002  # seconds: longer than any store takes to be seen by another core
BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_lease = decoder_for(Lease).decode
_decode = control_decoder(frames.Launch, frames.Fence, frames.Kill, frames.Stop)


def main(encoded: bytes) -> None:
    """Be a worker's nanny until the centre says stop, or is gone. Returns only where the process is not ours to end."""
    place: Place = decoder_for(Place).decode(encoded)
    try:
        line = Line.connect(place.address, limit=FRAME_SLACK)
    except OSError:
        os._exit(0)  # the centre is gone already
    line.send(frames.Connect(place.token, "nanny", place.number, os.getpid()))
    if started_at() < place.asked_at - 0.1:
        # This process of anyio's has served other calls: it may hold threads and memory, and it is not ours to end.
        line.send(frames.Refused())
        line.receive()
        line.close()
        return
    nanny = Nanny(place, line)
    try:
        nanny.watch()
    finally:  # nonsense from the centre, or no centre any more: nothing of ours goes back to anyio's pool
        nanny.leave()


class Nanny:
    """One worker's nanny."""

    def __init__(self, place: Place, line: Line) -> None:
        self._place, self._line, self._parent = place, line, os.getppid()
        self._forks = thread_count() == 1
        self._memory_limit: int | None = None
        self._cancel_grace = 0.0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        # Ignored by the host, and so by us, it would collect the runner before we can.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        become_subreaper()
        wake_with_parent()
        os.environ.update({name: "1" for name in BLAS if name not in os.environ})
        os.environ.update(place.env)
        self._slot_fd = nameless_file("dispatch-slot")
        os.ftruncate(self._slot_fd, 4096)
        self._slot = Slot.mapped(self._slot_fd)
        self._output = nameless_file("dispatch-output")
        self._stack = nameless_file("dispatch-stack")
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._runner = self._life = 0
        self._pidfd = -1
        self._pulse_at = 0.0
        self._poked = 0

    def watch(self) -> NoReturn:
        """Obey and observe until told to stop."""
        self._line.send(frames.Welcome(self._forks))
        # So that runner processes are born with it:
        import dispatch.worker.sync_lane  # noqa: F401  # pyright: ignore[reportUnusedImport]

        gc.freeze()  # a collection in a runner process would copy every page that it was born with
        while True:
            ready = [fd for fd, _ in self._poll.poll(self._wait() * 1000)]
            if self._line.fileno() in ready:
                self._obey()
            if self._runner:
                self._look_at_runner()
            if self._runner:
                self._look_at_slot(monotonic())

    def _wait(self) -> float:
        if not self._runner:
            return 60.0
        deadline = self._slot.read()[2]
        return TICK if math.isinf(deadline) else min(TICK, max(0.001, deadline - monotonic() + 0.001))

    def _obey(self) -> None:
        bodies = self._line.received()
        if bodies is None:
            self.leave()
        for body in bodies:
            command = _decode(body)
            if isinstance(command, frames.Launch):
                self._launch(command.life, _lease(command.lease))
            elif isinstance(command, frames.Fence):
                self._raise_fence(command)
            elif isinstance(command, frames.Kill):
                self._end("killed")
            else:
                self.leave()

    def _launch(self, life: int, lease: Lease) -> None:
        now = monotonic()
        self._life = life
        self._cancel_grace = lease.cancel_grace
        self._memory_limit = None if lease.isolation == "fork" else lease.memory_limit
        for fd in (self._output, self._stack):
            os.ftruncate(fd, 0)
        self._slot.reset(since=0.0, deadline=now + self._place.startup_timeout)
        birth = Birth(
            place=self._place,
            lease=lease,
            life=life,
            nanny=os.getpid(),
            slot_fd=self._slot_fd,
            output_fd=self._output,
            stack_fd=self._stack,
        )
        self._runner = (
            fork_runner(birth, self._slot, line=self._line.fileno()) if self._forks else spawn_runner(birth)
        )
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._pidfd = os.pidfd_open(self._runner)
                self._poll.register(self._pidfd, select.POLLIN)

    def _raise_fence(self, command: frames.Fence) -> None:
        slot = self._slot
        slot.fence = max(slot.fence, command.upto)
        sleep(FENCE_PAUSE)
        if command.kill and slot.running in command.kill:
            self._end("killed", only=slot.running)
        self._line.send(frames.Fenced(command.upto, slot.read()[0]))

    def _look_at_runner(self) -> None:
        """Has the runner ended or stopped? Reap what it left behind meanwhile."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                pid, status = self._runner, 0
            if pid == 0:
                return
            if pid == self._runner:
                if os.WIFSTOPPED(status):
                    self._end("stopped")
                else:
                    self._ended("", status)
                return

    def _look_at_slot(self, now: float) -> None:
        slot = self._slot
        seq, since, deadline = slot.read()
        if now > deadline:
            self._too_late(seq, since, deadline)
        elif since and slot.held and now - since > TICK and self._poked != seq:
            self._poked = seq
            self._ask(signal.SIGUSR2)
        trim(self._output, slot)
        if self._runner and now > self._pulse_at:
            self._pulse_at = now + PULSE
            self._line.send(frames.Pulse(*slot.shown, memory_of(self._runner)[0]))
        limit = self._memory_limit
        if self._runner and limit is not None and memory_of(self._runner)[1] > limit:
            self._end("memory")

    def _too_late(self, seq: int, since: float, deadline: float) -> None:
        """A deadline has passed: write down where the runner hangs, stop it, look again, and only then kill it."""
        before = os.fstat(self._stack).st_size
        if self._ask(signal.SIGUSR1):
            await_dump(self._stack, before, lambda: self._slot.read()[2] == deadline)
        if self._stop() and self._slot.read()[2] == deadline:
            self._end("timed_out" if self._slot.serving else "startup")
        elif (
            self._runner
        ):  # it finished at the last moment: the late attempt is over, and the next one is innocent
            os.ftruncate(self._stack, before)
            self._signal(signal.SIGCONT)

    def _end(self, why: str, *, only: int = 0) -> None:
        """Kill the runner's tree; with `only`, not if it has gone on to another attempt meanwhile."""
        if not self._runner:
            return
        if only:
            if not self._stop():
                return
            if self._slot.running != only:
                self._signal(signal.SIGCONT)
                return
        self._signal(signal.SIGKILL)
        _pid, status = os.waitpid(self._runner, 0)
        self._ended(why, status)

    def _stop(self) -> bool:
        """Let the runner stand still, so that its slot can be judged. False if it has ended instead, which is told."""
        self._signal(signal.SIGSTOP)
        until = monotonic() + STOPPED_WITHIN
        while True:
            pid, status = os.waitpid(self._runner, os.WUNTRACED | os.WNOHANG)
            if pid and not os.WIFSTOPPED(status):
                self._ended("", status)
                return False
            if pid or monotonic() > until:
                return True
            sleep(STOP_LOOK)

    def _ended(self, why: str, status: int) -> None:
        """The runner is dead and reaped: clear up after it, and tell."""
        at, runner, slot = monotonic(), self._runner, self._slot
        if self._pidfd >= 0:
            self._poll.unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._runner = 0
        kill_tree(runner)
        seq, since, _ = slot.read()
        # A task kept a late one from ending only if it has held the loop for nearly all of the grace.
        stalled = since and at - since > max(TICK, 0.8 * self._cancel_grace)
        if slot.blamed and not stalled:
            seq, since = slot.blamed, slot.blamed_since
        code = os.waitstatus_to_exitcode(status)
        told = frames.Ended(
            life=self._life,
            pid=runner,
            why=why,
            signal=signal.SIGSTOP if why == "stopped" else -code if code < 0 else None,
            exit_code=code if code >= 0 else None,
            seq=seq if since else 0,
            started=since,
            at=at,
            stack=read_tail(self._stack, 16 * 1024),
            output=read_tail(self._output),
        )
        self._line.send(told)

    def _ask(self, number: int) -> bool:
        """Signal the runner, if it listens: who has undone our handler, or called `exec`, must not die of us."""
        if not catches(self._runner, number):
            return False
        self._signal(number)
        return True

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._runner, number)

    def leave(self) -> NoReturn:
        """Take everything along, and never come back."""
        if self._runner:
            with suppress(ProcessLookupError):
                os.kill(self._runner, signal.SIGKILL)
        kill_tree(self._runner)
        # anyio kills us when it sees the end of this pipe. Exiting first would race with it: who collects our exit?
        close_if(lambda _: True)  # not fd 1 alone: uvloop leaves the original of the pipe open beside it
        until = monotonic() + 1.0
        while os.getppid() == self._parent and monotonic() < until:
            sleep(0.005)
        os._exit(0)
