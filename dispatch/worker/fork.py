"""A fresh fork for each shard: what a shard does to its process, it does to a copy that is thrown away.

The warm process forks, watches the child (deadline, private memory, stopped state), and kills its whole tree.
The child has a mailbox of its own and none of the protocol's descriptors, and the slot is not in its memory
(MADV_DONTFORK). This keeps accidents apart; it is no sandbox: same user, same files, same network.
"""

from __future__ import annotations

import gc
import inspect
import math
import os
import select
import signal
import threading
import warnings
from contextlib import suppress
from time import monotonic
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, Struct

from dispatch.terms.errors import RunnerError
from dispatch.terms.outcome import Fault
from dispatch.terms.shard import Shard
from dispatch.wire import frames
from dispatch.wire.codec import NotDeliverable, control_decoder, decoder_for, undeliverable
from dispatch.wire.frames import FrameError
from dispatch.wire.line import FRAME_SLACK
from dispatch.wire.mailbox import Mailbox
from dispatch.worker.duty import Duty
from dispatch.worker.evidence import fault_of, own_stack
from dispatch.worker.kernel import (
    become_subreaper,
    children,
    die_with_parent,
    kill_tree,
    memory_of,
    thread_count,
)
from dispatch.worker.link import Link, answer_value
from dispatch.worker.output import await_dump, read_tail
from dispatch.worker.parcel import Parcel, unpack
from dispatch.worker.runner import report_to
from dispatch.worker.sync_lane import NO_QUESTION, SyncLane

__all__ = ("ForkLane",)

TICK = 0.05  # seconds between looks at the child
OVERTIME = 1.0  # seconds after a deadline at which the nanny ends the warm process too: it should have acted

_from_child = control_decoder(frames.Answer, frames.Call, frames.Progress)
_from_warm = control_decoder(frames.Answer)
_well_formed = decoder_for(Raw)


class _Child(Struct):
    """A fork that runs one shard. `box` is the warm process's end."""

    seq: int
    pid: int
    pidfd: int
    box: Mailbox
    started: float
    deadline: float
    memory: int  # private bytes of the warm process at the fork, which the child shares
    result: frames.Answer | None = None
    asked: dict[int, int] = {}  # questions that the centre has not answered: our number, and the child's


class ForkLane(SyncLane):
    """One runner, one shard at a time, each in a fork of this process."""

    def __init__(self, duty: Duty) -> None:
        super().__init__(duty)
        self._stack_fd, self._memory_limit = duty.stack_fd, duty.lease.memory_limit
        self._pid = os.getpid()
        self._others: set[int] = set()  # children that `setup` started: they outlive a shard

    def _prepare(self) -> None:
        """After `setup`. Raises RunnerError if it started a thread: a fork would copy locks that nobody releases."""
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if names:
            cure = 'start it in do_run, or use isolation="worker"'
            raise RunnerError(
                self._described.name,
                f'setup left threads running ({", ".join(names)}), and isolation="fork" forks',
                cure,
            )
        if thread_count() > 1:
            warnings.warn(
                "native threads run in this worker (BLAS, OpenMP?) and a fork does not copy them; "
                "set OMP_NUM_THREADS and its kin to 1 in config.env",
                RuntimeWarning,
                stacklevel=1,
            )
        warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
        become_subreaper()
        self._others = set(children())
        self._slot.keep_from_forks()
        gc.collect()
        gc.freeze()  # the collector would touch, and so copy, every inherited page in every child

    def _work(self, work: frames.Work[Any], parcel: Parcel) -> None:
        attempts = unpack(work, parcel)
        for seq, timeout, shard in attempts:
            now = monotonic()
            self._slot.enter(seq, now, now + timeout + OVERTIME if timeout else math.inf)
            if seq < self._slot.fence:
                self._give_back(range(seq, work.first + len(attempts)))
                break
            self._seq = seq
            self._run_fork(shard, now, timeout)
        self._slot.leave()

    def _run_fork(self, shard: Shard[Any], started: float, timeout: float | None) -> None:
        ours, theirs = Mailbox.pair(limit=self._codec.limit + FRAME_SLACK)
        memory = memory_of(os.getpid())[1] if self._memory_limit is not None else 0
        os.ftruncate(self._stack_fd, 0)
        pid = os.fork()
        if pid == 0:
            self._be_child(shard, ours, theirs)
        theirs.close()
        with suppress(OSError):
            os.setpgid(pid, pid)
        deadline = started + timeout if timeout else math.inf
        child = _Child(self._seq, pid, os.pidfd_open(pid), ours, started, deadline, memory)
        fault = self._watch(child)
        ended = monotonic()
        os.close(child.pidfd)
        kill_tree(pid, spare=self._others)
        self._tell(child, fault, ended)
        ours.close()

    # In the warm process.

    def _watch(self, child: _Child) -> Fault | None:
        """Relay what the child says until it ends; the fault if it did not end by itself, and well."""
        poll = select.poll()
        poll.register(child.box, select.POLLIN)
        poll.register(child.pidfd, select.POLLIN)
        while True:
            patience = min(TICK, max(0.0, child.deadline - monotonic()))
            if child.asked:
                poll.register(self._line, select.POLLIN)
            ready = dict(poll.poll(patience * 1000))
            if self._line.fileno() in ready:
                self._pass_answers(child)
                poll.unregister(self._line)  # what else comes can wait until the shard is over
            self._relay(child)
            if child.pidfd in ready:
                _pid, status = os.waitpid(child.pid, 0)
                self._relay(child)
                return (
                    None
                    if child.result is not None
                    else _death(os.waitstatus_to_exitcode(status), self._stack_fd)
                )
            if ready.get(child.box.fileno(), 0) & select.POLLHUP:
                poll.unregister(child.box)  # it has closed its end, and may live on
            # Once its result is there it ends at once, or never: then somebody has stopped it.
            done = child.result is not None and ready and monotonic() < child.deadline
            fault = None if done else self._misbehaved(child)
            if fault is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                self._relay(child)
                return None if child.result is not None else fault

    def _misbehaved(self, child: _Child) -> Fault | None:
        """Is the child late, stopped, or too big?"""
        now = monotonic()
        if now >= child.deadline:
            stack = self._stack_of(child)
            return Fault(
                cause="timed_out",
                message=f"ran longer than its timeout and was killed after {now - child.started:.2f} s",
                stack=stack,
            )
        with suppress(ChildProcessError):  # it has died meanwhile, and can stop no more
            if os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
                return Fault(cause="crashed", message="stopped itself, and was killed", signal=signal.SIGSTOP)
        if self._memory_limit is not None and memory_of(child.pid)[1] - child.memory > self._memory_limit:
            return Fault(
                cause="out_of_memory", message=f"its private memory passed memory_limit={self._memory_limit}"
            )
        return None

    def _stack_of(self, child: _Child) -> str:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGUSR1)
        await_dump(self._stack_fd, 0, lambda: True)
        return own_stack(read_tail(self._stack_fd, 16 * 1024))

    def _relay(self, child: _Child) -> None:
        for body in child.box.arrived():
            try:
                said = _from_child(body)
            except FrameError:
                continue
            if isinstance(said, frames.Call):
                question = self._calls.renumber(said)
                child.asked[question.call] = said.call
                self._line.send(question)
            elif isinstance(said, frames.Progress):
                self._progress(said.done, said.total)
            elif child.result is None:
                child.result = said

    def _pass_answers(self, child: _Child) -> None:
        """Give the child what the centre has answered; nobody waits for it, because a deadline may pass meanwhile."""
        bodies = self._line.received()
        if bodies is None:
            raise SystemExit("the centre is gone")
        for body in bodies:
            frame = self._codec.work(body)
            if isinstance(frame, frames.Answer) and frame.call in child.asked:
                answer = msgspec.structs.replace(frame, call=child.asked.pop(frame.call))
                with suppress(OSError):  # the child has closed its end
                    child.box.send(answer)
            else:
                self._backlog.append((frame, body))

    def _tell(self, child: _Child, fault: Fault | None, ended: float) -> None:
        self._slot.leave()
        output = self._printed(child.seq) if self._capture is not None and self._capture.size() else ""
        result = child.result
        if fault is None and result is not None:
            fault = result.fault
        if fault is None and result is not None:
            try:
                _well_formed.decode(result.value)
            except msgspec.DecodeError as error:
                fault = undeliverable(self._described.name, str(error))
        if fault is None and result is not None:
            self._unsent, self._start = child.seq, child.started
            self._buffer += bytes(result.value)
            self._ends.append(ended)
            self.flush()
        else:
            assert fault is not None
            told = msgspec.structs.replace(fault, output=output, rebuild=False)
            self._line.send(frames.Fail(child.seq, child.started, ended - child.started, told))

    # In the child.

    def _be_child(self, shard: Shard[Any], ours: Mailbox, theirs: Mailbox) -> NoReturn:
        """Run the shard, send what came of it, end. Nothing the shard raises gets past this."""
        code = 1
        try:
            os.setpgid(0, 0)
            # It has a group of its own, and a nanny that was killed collects nobody.
            die_with_parent(self._pid)
            ours.close()
            self._shed()
            theirs.send(self._outcome(shard, theirs))
            code = 0
        finally:
            os._exit(code)

    def _shed(self) -> None:
        """Close what is the protocol's: the line, and the file behind fd 1 and 2 (those stay)."""
        os.close(self._line.fileno())
        if self._capture is not None:
            os.close(self._capture.fd)

    def _outcome(self, shard: Shard[Any], box: Mailbox) -> frames.Answer:
        asking = threading.RLock()
        asked: list[int] = []  # the question that is waited for

        def ask(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            with asking:  # whichever thread asks
                if asked:
                    raise RuntimeError(NO_QUESTION)
                question = self._calls.ask(method, args, kwargs)
                asked.append(question.call)
                try:
                    answer = exchange(question)
                finally:
                    asked.clear()
            return answer_value(answer, self._described.questions.get(method, Any))

        def exchange(question: frames.Call) -> frames.Answer:
            box.send(question)
            while (body := box.receive()) is not None:
                answer: frames.Answer = _from_warm(body)
                if answer.call == question.call:  # else an exception has ended the wait for it
                    return answer
            raise SystemExit("the worker is gone")

        report_to(self._runner, lambda done, total: box.send(frames.Progress(0, done, total)))
        try:
            if type(shard.payload) is Raw:
                shard.payload = self._codec.decode_payload(shard.payload)
            if self._described.is_async:
                value = _run_async(self._runner, shard, ask)
            else:
                self._runner.center = Link(ask)
                value = self._runner.do_run(shard)
            return frames.Answer(0, Raw(self._codec.encode(value, "value")))
        except NotDeliverable as error:
            return frames.Answer(0, fault=undeliverable(self._described.name, str(error)))
        except BaseException as error:  # noqa: BLE001  (a shard's error is its own)
            return frames.Answer(0, fault=fault_of(error, rebuild=False))


def _run_async(runner: Any, shard: Shard[Any], ask: Any) -> Any:
    """Run an async do_run on a fresh loop; questions block it, which harms nobody: there is one shard."""
    import asyncio  # only runners that need a loop pay for it

    async def asked(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return ask(method, args, kwargs)

    runner.center = Link(asked)

    async def main() -> Any:
        value = runner.do_run(shard)
        return await value if inspect.isawaitable(value) else value

    return asyncio.run(main())


def _death(code: int, stack_fd: int) -> Fault:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        stack = own_stack(read_tail(stack_fd, 16 * 1024))
        return Fault(cause="crashed", message=f"its process died of {name}", signal=-code, stack=stack)
    return Fault(cause="crashed", message=f"its process exited with code {code}", exit_code=code)
