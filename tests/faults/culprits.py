"""What goes wrong in a runner, one function for each way. Only workers call these.

`ACTS` names them; `Culprit` runs one where a payload asks for it, and is a good runner otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import locale
import os
import platform
import re
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from dispatch import Runner, Shard

FLOOD = 100 * 1024 * 1024  # bytes, or characters
DAEMON = "import os, time; os.setsid(); time.sleep(600)"  # what a child or a daemon of a shard does


class Task(Struct):
    """A shard's payload: its number, what it does wrong ("": nothing), and for how long (seconds)."""

    number: int
    act: str = ""
    seconds: float = 0.0


class Answer(Struct):
    """What a good shard returns: twice its number, the attempt that said so, and its worker's pid."""

    double: int
    attempt: int
    pid: int


def double(number: int) -> int:
    """The plainest shard."""
    return 2 * number


# Ends its process.


def exits(_task: Task) -> None:
    os._exit(1)


def exits_well(_task: Task) -> None:
    os._exit(0)


def aborts(_task: Task) -> None:
    os.abort()


def segfaults(_task: Task) -> None:
    ctypes.string_at(0)


def kills_itself(_task: Task) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stops_itself(_task: Task) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stops_at_the_end(_task: Task) -> None:
    """The process that this shard runs in, if it is a fork, stops where it would exit."""
    os._exit = lambda _code: os.kill(os.getpid(), signal.SIGSTOP)


def kills_its_nanny(_task: Task) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def kills_its_nanny_from_a_fork(_task: Task) -> None:
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(600)


def forks_and_returns(_task: Task) -> None:
    """Come back twice."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def forks_and_raises(_task: Task) -> None:
    """As `os.execvp` of what does not exist would."""
    child = os.fork()
    if not child:
        raise FileNotFoundError("no-such-program")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def forks_and_leaves(_task: Task) -> None:
    child = os.fork()
    if not child:
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def waits_in_the_kernel(_task: Task) -> None:
    """As Popen does while its child hangs before `exec`: such a process can be killed, and not be stopped."""
    clone, clone_vfork = {"x86_64": 56, "aarch64": 220}[platform.machine()], 0x4000
    if ctypes.CDLL(None).syscall(clone, clone_vfork | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        time.sleep(600)


def undoes_our_handlers(task: Task) -> None:
    """Be late, and then well."""
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    time.sleep(task.seconds or 600)


def returns_at_the_last_moment(_task: Task) -> None:
    """When the nanny asks where it hangs: the deadline has passed, and nobody has killed it yet."""
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: asked.append(number))
    while not asked:
        time.sleep(0.001)


def becomes_another_program(_task: Task) -> None:
    os.execvp("sleep", ["sleep", "600"])


def sets_a_trace_function(_task: Task) -> None:
    sys.settrace(_traces_nothing)


def _traces_nothing(*_: object) -> None:
    """Called for each call, until it is taken away."""


def overflows_the_stack(_task: Task) -> None:
    """Recurse in C, on a stack that may grow no further than 64 KiB beyond what it has."""
    used = int(re.search(r"\nVmStk:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_STACK, (used + 65536, resource.RLIM_INFINITY))
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    sys.setrecursionlimit(1_000_000)
    repr(nested)


def dies_then_raises_then_works(task: Task, attempt: int) -> None:
    if attempt == 1:
        os._exit(1)
    if attempt == 2:
        raise ValueError("the second time")


def _sockets() -> list[int]:
    fds = [int(name) for name in os.listdir("/proc/self/fd")]
    return [fd for fd in fds if _target(fd).startswith("socket:")]


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def writes_garbage_to_every_socket(_task: Task) -> None:
    for fd in _sockets():
        os.write(fd, struct.pack("<I", 6) + b"\xc1" * 6)


def writes_half_a_frame_and_dies(_task: Task) -> None:
    for fd in _sockets():
        os.write(fd, struct.pack("<I", 600) + b"\x92" * 100)
    os._exit(1)


def announces_4_gigabytes(_task: Task) -> None:
    for fd in _sockets():
        os.write(fd, b"\xff" * 100)
    time.sleep(600)


def closes_every_socket(_task: Task) -> None:
    for fd in _sockets():
        os.close(fd)


# Leaves by an exception that is none of Exception's.


def leaves(_task: Task) -> None:
    sys.exit(3)


def raises_system_exit(_task: Task) -> None:
    raise SystemExit


def raises_keyboard_interrupt(_task: Task) -> None:
    raise KeyboardInterrupt


def raises_generator_exit(_task: Task) -> None:
    raise GeneratorExit


def raises_cancelled(_task: Task) -> None:
    raise asyncio.CancelledError


def raises_a_base_group(_task: Task) -> None:
    raise BaseExceptionGroup("both", [SystemExit(3), ValueError("one")])


def raises_stop_iteration(_task: Task) -> None:
    raise StopIteration("no more")


def raises_stop_async_iteration(_task: Task) -> None:
    raise StopAsyncIteration("no more")


def recurses(_task: Task) -> None:
    recurses(_task)


# Never returns.


def spins(_task: Task) -> None:
    while True:
        pass


def backtracks(_task: Task) -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")  # a C call that keeps the GIL


def sleeps(_task: Task) -> None:
    time.sleep(600)


def sleeps_for(task: Task) -> None:
    time.sleep(task.seconds)


def sleeps_for_then_exits(task: Task) -> None:
    time.sleep(task.seconds)
    os._exit(1)


def waits_for_a_byte(_task: Task) -> None:
    os.read(os.pipe()[0], 1)


def deaf(_task: Task) -> None:
    """Hang, and ignore every signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)


# Raises.


class TwoArguments(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("there is nothing to say")


class Treacherous(Exception):
    """Raises SystemExit wherever a host might touch it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise SystemExit(f"set {name}")

    def __getattribute__(self, name: str) -> Any:
        if name in ("args", "__class__", "add_note"):
            raise SystemExit(f"get {name}")
        return super().__getattribute__(name)

    def __str__(self) -> str:
        raise SystemExit("str")


def raises_a_treacherous_one(_task: Task) -> None:
    raise Treacherous("and what it says")


def raises_a_stranger(_task: Task) -> None:
    from tests.faults.stranger import StrangerError

    raise StrangerError("only workers load this")


def raises_two_arguments(_task: Task) -> None:
    raise TwoArguments(7, "seven")


def raises_a_lock(_task: Task) -> None:
    raise ValueError(threading.Lock())


def raises_the_unspeakable(_task: Task) -> None:
    raise Unspeakable


def raises_at_length(_task: Task) -> None:
    raise ValueError("x" * FLOOD)


def raises_a_group(_task: Task) -> None:
    raise ExceptionGroup("two at once", [ValueError("one"), KeyError("two")])


# Returns what cannot travel.


def returns_a_lock(_task: Task) -> Any:
    return threading.Lock()


def returns_a_generator(_task: Task) -> Any:
    return (n for n in range(3))


def returns_itself(_task: Task) -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def returns_too_much(_task: Task) -> Any:
    return b"x" * (2 * 1024 * 1024)


def returns_a_great_number(_task: Task) -> Any:
    return 10**100


def returns_a_deep_lock(_task: Task) -> Any:
    return {"fine": 1, "rows": [{}, {"lock": threading.Lock()}]}


def returns_another_shape(_task: Task) -> Any:
    return {"double": "not a number", "attempt": 1, "pid": 1}


# Does its work, and something beside it.


def floods(_task: Task) -> None:
    block = b"o" * 1024 * 1024
    for _ in range(FLOOD // len(block) // 2):
        os.write(1, block)
        os.write(2, block)


def floods_and_raises(_task: Task) -> None:
    floods(_task)
    os.write(2, b"last words")
    raise ValueError("after all that")


def floods_and_exits(_task: Task) -> None:
    floods(_task)
    os.write(1, b"last words")
    os._exit(1)


def reads_stdin(_task: Task) -> None:
    assert sys.stdin.read() == ""
    assert os.read(0, 1) == b""


def leaves_a_child(_task: Task) -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def leaves_a_daemon(_task: Task) -> None:
    """Fork twice, in a session of its own, as daemons do."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])
        os._exit(0)
    os.wait()


def leaves_a_stubborn_daemon(_task: Task) -> None:
    """A daemon that ignores what can be ignored, forks on, and has closed everything."""
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.closerange(0, 64)
            while os.fork() == 0 and os.getppid() and len(os.listdir("/proc/self/task")) and _descend():
                pass
            time.sleep(600)
        os._exit(0)
    os.wait()


_generations = [0]


def _descend() -> bool:
    _generations[0] += 1
    return _generations[0] < 3


def announces(task: Task) -> None:
    """Say to the program's reader that this shard has started; then take some seconds, or for ever."""
    with open(os.environ["ANNOUNCE"], "a") as file:
        file.write(f"{task.number}\n")
    time.sleep(task.seconds)


def leaves_a_thread(_task: Task) -> None:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


def sets_an_alarm(_task: Task) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def changes_directory(_task: Task) -> None:
    os.chdir("/")


def changes_the_locale(_task: Task) -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")


def changes_the_umask(_task: Task) -> None:
    os.umask(0o777)


def changes_and_raises(_task: Task) -> None:
    os.chdir("/")
    os.umask(0)
    raise ValueError("on top of it")


def works(task: Task) -> None:
    """Be busy for some seconds of wall time."""
    until = time.monotonic() + task.seconds
    while time.monotonic() < until:
        pass


def swallows_memory(_task: Task) -> None:
    """Take ever more private memory, whatever MemoryError says."""
    kept = []
    while True:
        with contextlib.suppress(MemoryError):
            kept.append(bytearray(os.urandom(1024)) * 8192)


ACTS: dict[str, Callable[[Task], Any]] = {
    name: act
    for name, act in list(vars().items())
    if set(getattr(act, "__annotations__", ())) in ({"task", "return"}, {"_task", "return"})
}


class Culprit(Runner):
    """Does what is wrong where the payload asks for it, then its work."""

    def do_run(self, shard: Shard[Task]) -> Answer:
        task = shard.payload
        if task.act == "dies_then_raises_then_works":
            dies_then_raises_then_works(task, shard.attempt)
        value = ACTS[task.act](task) if task.act in ACTS else None
        return Answer(2 * task.number, shard.attempt, os.getpid()) if value is None else value


# The async lane.


async def rests(task: Task) -> None:
    await asyncio.sleep(task.seconds)


async def rests_then_exits(task: Task) -> None:
    await asyncio.sleep(task.seconds)
    os._exit(1)


async def blocks(_task: Task) -> None:
    await asyncio.sleep(0.05)  # until the neighbours run
    time.sleep(600)


async def hangs(_task: Task) -> None:
    await innermost()


async def innermost() -> None:
    await asyncio.get_running_loop().create_future()


async def refuses(_task: Task) -> None:
    """Never end, and swallow every cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


async def cleans_up(task: Task) -> None:
    """End some time after being cancelled."""
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(task.seconds)


async def turns_it_into_a_value(_task: Task) -> Any:
    """Return something although cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(600)
    return "too late"


ASYNC_ACTS: dict[str, Callable[[Task], Any]] = {
    act.__name__: act
    for act in (rests, rests_then_exits, blocks, hangs, refuses, cleans_up, turns_it_into_a_value)
}


class Juggler(Runner):
    """The same with an event loop: up to eight shards at once."""

    concurrency = 8

    async def do_run(self, shard: Shard[Task]) -> Answer:
        task = shard.payload
        value = None
        if task.act in ASYNC_ACTS:
            value = await ASYNC_ACTS[task.act](task)
        elif task.act:
            value = ACTS[task.act](task)
        return Answer(2 * task.number, shard.attempt, os.getpid()) if value is None else value


class View(Struct):
    """What a shard can see of its process."""

    directory: str
    umask: int
    locale: str
    timer: float
    traced: bool


class LooksAround(Runner):
    """Does what the payload says, after a look at its process."""

    def setup(self) -> None:
        os.umask(0o27)

    def do_run(self, shard: Shard[Task]) -> View:
        umask = os.umask(0)
        os.umask(umask)
        timer = signal.getitimer(signal.ITIMER_REAL)[0]
        traced = sys.gettrace() is not None
        view = View(os.getcwd(), umask, locale.setlocale(locale.LC_ALL), timer, traced)
        if shard.payload.act:
            ACTS[shard.payload.act](shard.payload)
        return view


class SlowSetup(Culprit):
    """Needs a while to get ready."""

    def setup(self) -> None:
        time.sleep(0.6)


class SlowTeardown(Culprit):
    """Takes its time to leave."""

    def teardown(self) -> None:
        time.sleep(30)


class HangsInSetup(Runner):
    """Never gets ready."""

    def setup(self) -> None:
        time.sleep(600)

    def do_run(self, shard: Shard[Any]) -> None:
        """Never called."""


class SignsTheBook(Culprit):
    """Signs a book when it leaves in peace; may take a while to get ready."""

    def setup(self) -> None:
        time.sleep(float(os.environ.get("SETUP", "0")))

    def teardown(self) -> None:
        if "BOOK" in os.environ:
            Path(os.environ["BOOK"], str(os.getpid())).touch()
