"""What the workers of these tests run. A shard's payload says what to do, so that one open centre serves many tests."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from dispatch import GiveUp, RetryLater, Runner, Shard


class Job(msgspec.Struct, omit_defaults=True):
    """One thing to do."""

    do: str = "echo"
    arg: Any = None


class Seen(msgspec.Struct):
    """A shard as its runner saw it."""

    id: str
    index: int
    attempt: int
    timeout: float | None
    random: float
    pid: int


def double(x: int) -> int:
    """Twice x."""
    return 2 * x


def hang(x: int) -> int:
    """Never returns."""
    while True:
        time.sleep(1)


def add_shared(x: int, extra: int) -> int:
    """X and the shared param."""
    return x + extra


async def double_later(x: int) -> int:
    """Twice x, after a turn of the loop."""
    await asyncio.sleep(0)
    return 2 * x


def mark(path: str, text: object = "") -> int:
    """Append a line to a file; how many it has now."""
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return len(lines(path))


def lines(path: str | Path) -> list[str]:
    """The lines of a file; none if it does not exist."""
    try:
        return Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []


def opened(gate: str) -> Iterator[None]:
    """Say in GATE.in that we are here, and wait until GATE.go exists (not for ever: a test may have failed)."""
    mark(f"{gate}.in", os.getpid())
    deadline = time.monotonic() + 40
    while not os.path.exists(f"{gate}.go") and time.monotonic() < deadline:
        yield


def wait_at(gate: str) -> int:
    """Wait for a gate to open; who waited."""
    for _ in opened(gate):
        time.sleep(0.002)
    return os.getpid()


def fail(message: str) -> None:
    """Raise ValueError."""
    raise ValueError(message)


def fail_until(arg: tuple[str, int]) -> int:
    """Succeed at the n-th attempt, raise before; attempts are lines in a file."""
    path, n = arg
    if (attempt := mark(path)) < n:
        raise ValueError(f"attempt {attempt}")
    return attempt


def give_up(path: str) -> None:
    """Ask for no further attempt."""
    mark(path)
    raise GiveUp("no use")


def ask_for_later(arg: tuple[str, float]) -> int:
    """At the first attempt, ask for another one after so many seconds."""
    path, after = arg
    if (attempt := mark(path)) == 1:
        raise RetryLater(after, "busy")
    return attempt


def die_until(arg: tuple[str, int]) -> int:
    """Succeed at the n-th attempt, take the worker along before."""
    path, n = arg
    if mark(path, os.getpid()) < n:
        os._exit(7)
    return os.getpid()


JOBS: dict[str, Callable[[Any], Any]] = {
    "echo": lambda arg: arg,
    "pid": lambda _: os.getpid(),
    "gate": wait_at,
    "raise": fail,
    "raise until": fail_until,
    "give up": give_up,
    "later": ask_for_later,
    "die": die_until,
    "print": print,
    "bytes": lambda size: b"x" * size,
    "env": os.environ.get,
}


def work(job: Job) -> Any:
    """Do a job as a plain function."""
    return JOBS[job.do](job.arg)


def seen(shard: Shard[Job]) -> Seen:
    """What a runner can tell of a shard."""
    return Seen(shard.id, shard.index, shard.attempt, shard.timeout, shard.rng.random(), os.getpid())


class Actor(Runner):
    """Does as the job says."""

    def do_run(self, shard: Shard[Job]) -> Any:
        """Do it."""
        match shard.payload:
            case Job("seen"):
                return seen(shard)
            case Job("progress", total):
                self.progress(total, total)
                return total
            case job:
                return work(job)


class AsyncActor(Runner):
    """The same on an event loop, four at once."""

    concurrency = 4

    async def do_run(self, shard: Shard[Job]) -> Any:
        """Do it."""
        if shard.payload.do == "gate":
            try:
                for _ in opened(shard.payload.arg):
                    await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                mark(f"{shard.payload.arg}.cancelled", os.getpid())
                raise
            return os.getpid()
        await asyncio.sleep(0)
        return seen(shard) if shard.payload.do == "seen" else work(shard.payload)


class Upper(Runner):
    """Another class of runner, for centres with two."""

    def do_run(self, shard: Shard[str]) -> str:
        """In capitals."""
        return shard.payload.upper()


class Lower(Runner):
    """And the other one."""

    def do_run(self, shard: Shard[str]) -> str:
        """In small letters."""
        return shard.payload.lower()


class Marked(Runner):
    """Leaves a line in the file `shared_param` at each station of its life."""

    shared_param: str

    def setup(self) -> None:
        """Say so."""
        mark(self.shared_param, f"setup {os.getpid()}")

    def do_run(self, shard: Shard[Job]) -> Any:
        """Do the job."""
        return work(shard.payload)

    def teardown(self) -> None:
        """Say so."""
        mark(self.shared_param, f"teardown {os.getpid()}")


class Broken(Runner):
    """Cannot be made ready."""

    shared_param: str

    def setup(self) -> None:
        """Count the tries, and fail."""
        mark(self.shared_param)
        raise RuntimeError("the model is not there")

    def do_run(self, shard: Shard[int]) -> int:
        """Never runs."""
        return shard.payload


class Questions(Protocol):
    """What Asker asks."""

    def add(self, a: int, b: int) -> int: ...
    def refuse(self, why: str) -> int: ...


class Asker(Runner[Questions]):
    """Asks its centre three questions for each shard."""

    def do_run(self, shard: Shard[int]) -> int:
        """A sum of sums; a negative payload is refused by the centre."""
        if shard.payload < 0:
            return self.center.refuse(f"no {shard.payload}")
        return sum(self.center.add(shard.payload, n) for n in range(3))


class ThreadedAsker(Runner[Questions]):
    """Its first shard leaves a thread that asks while the others run; its last one waits for what that was told."""

    LAST = 2000
    told: list[int]

    def do_run(self, shard: Shard[int]) -> int:
        """The payload; for the last shard the sum of a thousand answers."""
        if shard.payload == 0:
            self.thread = threading.Thread(target=self.ask)
            self.thread.start()
        elif shard.payload == self.LAST:
            self.thread.join()
            return sum(self.told)
        return shard.payload

    def ask(self) -> None:
        """A thousand questions, one after another."""
        self.told = [self.center.add(n, n) for n in range(1000)]


class AsyncAsker(Runner[Any]):
    """The same from the async lane, where answers are awaited."""

    concurrency = 8

    async def do_run(self, shard: Shard[int]) -> int:
        """A sum of sums, asked at once."""
        if shard.payload < 0:
            return await self.center.refuse(f"no {shard.payload}")
        return sum(await asyncio.gather(*(self.center.add(shard.payload, n) for n in range(3))))


def endless() -> Iterator[int]:
    """0, 1, 2 and so on for ever."""
    return itertools.count()
