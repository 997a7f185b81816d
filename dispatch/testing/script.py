"""A runner that does as its script says: the shard's payload is the script. Workers import this: it stays lean.

    payloads = [play(Succeed(1)), play(Sleep(0.1), Raise("KeyError", ["x"])), in_turn(play(Exit(3)), play(Succeed(2)))]
    center = DataParallelDispatchCenter(ScriptedRunner, payloads)

A script has takes: attempt 1 plays the first, attempt 2 the second; the last take serves all later attempts.
Steps are played in order; a step that ends the take (Succeed, Identify, Raise, Exit, ...) ends it. A take that
runs out of steps succeeds with the last answer of an Ask, else None.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
import time
from collections.abc import Generator
from typing import Any, TypeAlias

from msgspec import Struct, field

from dispatch.terms.errors import GiveUp, RetryLater
from dispatch.terms.shard import Shard
from dispatch.worker.runner import Runner

__all__ = (
    "Ask",
    "AsyncScriptedRunner",
    "Daemon",
    "Die",
    "Exit",
    "Hang",
    "Identify",
    "Postpone",
    "Print",
    "Raise",
    "Rehearsal",
    "Script",
    "ScriptedRunner",
    "Sleep",
    "Step",
    "Succeed",
    "Surrender",
    "Tell",
    "Touch",
    "UnreadyRunner",
    "WaitFor",
    "in_turn",
    "play",
)

A_LOOK = 0.002  # seconds between looks for a file
A_LIFE = 60.0  # seconds after which a daemon that was forgotten leaves by itself


class _Step(Struct, frozen=True, tag=str.lower):
    pass


class Succeed(_Step, frozen=True):
    """End with this value."""

    value: Any = None


class Identify(_Step, frozen=True):
    """End with who runs this: a dict of pid, id, index, attempt, and a random number of the shard's own."""


class Raise(_Step, frozen=True):
    """Raise a built-in exception, known by name, with these arguments."""

    kind: str = "ValueError"
    args: list[Any] = field(default_factory=lambda: ["as the script says"])


class Surrender(_Step, frozen=True):
    """Raise GiveUp."""

    message: str = "the script gives up"


class Postpone(_Step, frozen=True):
    """Raise RetryLater: another attempt, `after` seconds from now."""

    after: float = 0.0


class Exit(_Step, frozen=True):
    """Leave the process at once with this code; `softly` by `sys.exit`, which Python survives."""

    code: int = 0
    softly: bool = False


class Die(_Step, frozen=True):
    """Send the process a signal."""

    signal: int = int(signal.SIGKILL)


class Sleep(_Step, frozen=True):
    """Wait so many seconds; an async runner lets its neighbours run meanwhile."""

    seconds: float


class Hang(_Step, frozen=True):
    """Never end. `spinning` burns the CPU and holds the event loop; `deaf` swallows cancellation."""

    spinning: bool = False
    deaf: bool = False


class Print(_Step, frozen=True):
    """Print a line so many times; to the bare descriptor `fd` if one is given, without a newline."""

    text: str
    times: int = 1
    fd: int | None = None


class Ask(_Step, frozen=True):
    """Call a `@remote` method of the centre."""

    method: str
    args: list[Any] = []


class Tell(_Step, frozen=True):
    """Report progress."""

    done: float
    total: float | None = None


class Touch(_Step, frozen=True):
    """Write the process's pid to a new file: a fact that others can wait for."""

    path: str


class WaitFor(_Step, frozen=True):
    """Wait until a file exists, or its directory does not: who would make the file has left."""

    path: str


class Daemon(_Step, frozen=True):
    """Leave a double-forked daemon in a session of its own behind; its pid goes to the file `path`."""

    path: str


Step: TypeAlias = (
    Succeed
    | Identify
    | Raise
    | Surrender
    | Postpone
    | Exit
    | Die
    | Sleep
    | Hang
    | Print
    | Ask
    | Tell
    | Touch
    | WaitFor
    | Daemon
)


class Script(Struct, frozen=True):
    """What to do, by attempt: the first attempt plays the first take, later ones the next; the last take stays."""

    takes: list[list[Step]]


class Rehearsal(Struct, frozen=True, kw_only=True):
    """A shared param for scripted runners: what `setup` and `teardown` play. Sleep and Ask do not occur there."""

    setup: list[Step] = []
    teardown: list[Step] = []


def play(*steps: Step) -> Script:
    """The script that plays these steps in every attempt."""
    return Script([list(steps)])


def in_turn(*scripts: Script) -> Script:
    """The script whose first attempt plays the first of these, the second the second, and so on."""
    return Script([take for script in scripts for take in script.takes])


class _Waits(Struct, frozen=True):
    """What a take asks of its runner: to wait so long, and whether cancellation may end it."""

    seconds: float
    deaf: bool = False


_Acts: TypeAlias = Generator[_Waits | Ask, Any, Any]


def _acts(shard: Shard[Script], runner: Runner[Any]) -> _Acts:
    """Play a take; yields what sync and async runners do in their own ways, and is sent an Ask's answer."""
    takes = shard.payload.takes
    answer: Any = None
    for step in takes[min(shard.attempt, len(takes)) - 1]:
        match step:
            case Succeed(value):
                return value
            case Identify():
                return _identity(shard)
            case Sleep(seconds):
                yield _Waits(seconds)
            case Hang():
                yield from _hang(step)
            case WaitFor(path):
                while os.path.isdir(os.path.dirname(path)) and not os.path.exists(path):
                    yield _Waits(A_LOOK)
            case Ask():
                answer = yield step
            case Tell(done, total):
                runner.progress(done, total)
            case _:
                _do(step)
    return answer


def _hang(step: Hang) -> Generator[_Waits, Any, None]:
    while True:
        if not step.spinning:
            yield _Waits(A_LIFE, step.deaf)


def _identity(shard: Shard[Script]) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "id": shard.id,
        "index": shard.index,
        "attempt": shard.attempt,
        "random": shard.rng.random(),
    }


def _do(step: Step) -> None:
    """Play a step that neither waits nor returns a value."""
    match step:
        case Raise(kind, args):
            raise getattr(builtins, kind)(*args)
        case Surrender(message):
            raise GiveUp(message)
        case Postpone(after):
            raise RetryLater(after)
        case Exit(code, softly):
            if softly:
                sys.exit(code)
            os._exit(code)
        case Die(number):
            os.kill(os.getpid(), number)
        case Print(text, times, fd):
            for _ in range(times):
                os.write(fd, text.encode()) if fd is not None else print(text)  # noqa: T201  (that is the step)
        case Touch(path):
            _write_pid(path)
        case Daemon(path):
            _leave_daemon(path)
        case _:
            raise ValueError(f"{type(step).__name__} cannot be played here")


def _write_pid(path: str) -> None:
    """The file appears with its content, so that who waits for it never reads half of it."""
    part = f"{path}.{os.urandom(8).hex()}"
    with open(part, "w") as file:
        file.write(str(os.getpid()))
    os.replace(part, path)


def _leave_daemon(path: str) -> None:
    if os.fork():
        os.wait()
        while not os.path.exists(path):
            time.sleep(A_LOOK)
        return
    os.setsid()
    if os.fork() == 0:
        _write_pid(path)
        time.sleep(A_LIFE)
    os._exit(0)


class _Scripted(Runner[Any]):
    shared_param: Rehearsal | None

    def setup(self) -> None:
        """Play the rehearsal's `setup`."""
        if isinstance(self.shared_param, Rehearsal):
            for step in self.shared_param.setup:
                _do(step)

    def teardown(self) -> None:
        """Play the rehearsal's `teardown`."""
        if isinstance(self.shared_param, Rehearsal):
            for step in self.shared_param.teardown:
                _do(step)


class ScriptedRunner(_Scripted):
    """Plays scripts, one at a time."""

    def do_run(self, shard: Shard[Script]) -> Any:
        """Play the shard's payload."""
        acts = _acts(shard, self)
        answer: Any = None
        while True:
            try:
                act = acts.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(act, Ask):
                answer = getattr(self.center, act.method)(*act.args)
            else:
                time.sleep(act.seconds)


class AsyncScriptedRunner(_Scripted):
    """Plays scripts, four at a time in one worker."""

    concurrency = 4

    async def do_run(self, shard: Shard[Script]) -> Any:
        """Play the shard's payload."""
        import asyncio  # not at the top: a worker of the sync runner loads this module too

        acts = _acts(shard, self)
        answer: Any = None
        while True:
            try:
                act = acts.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(act, Ask):
                answer = await getattr(self.center, act.method)(*act.args)
                continue
            try:
                await asyncio.sleep(act.seconds)
            except asyncio.CancelledError:
                if not act.deaf:
                    raise


class UnreadyRunner(Runner[Any]):
    """Can never be made ready."""

    reason = "the script says that this runner never gets ready"

    def setup(self) -> None:
        """Raise."""
        raise RuntimeError(self.reason)

    def do_run(self, shard: Shard[Any]) -> None:
        """Never called."""
