"""What the tests of the command line run: a runner that does as its payload says, a function, and centres."""

import os
import sys
import time
from pathlib import Path

import msgspec

from dispatch import DataParallelDispatchCenter, Runner, Shard


class Sample(msgspec.Struct):
    """A number, and what to do with it."""

    number: int
    how: str = "halve"


class Grader(Runner):
    """Halves a number, or does as it is told."""

    def do_run(self, shard: Shard[Sample]) -> float:
        """Halve it."""
        how = shard.payload.how
        if how == "raise":
            raise ValueError(f"no {shard.payload.number}")
        if how == "die":
            os._exit(7)
        if how == "hang":
            print("hanging now", flush=True)
            while True:
                time.sleep(1)
        if how.startswith("wait "):
            Path(f"{how[5:]}.in").touch()
            while not Path(f"{how[5:]}.go").exists():
                time.sleep(0.005)
        return shard.payload.number / 2


def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


def add(number: int, more: int) -> int:
    """A number and the shared one."""
    return number + more


def anything(payload):
    """The payload itself: no annotations."""
    return payload


def large(number: int) -> str:
    """A value that the record keeps in a file of its own."""
    return str(number) * 2_000_000


def needs_threads(payload: int) -> list[str]:
    """Who is loaded in the worker, of what is heavy."""
    return sorted({"typer", "rich", "dispatch.cli.app"} & set(sys.modules))


class Own(DataParallelDispatchCenter):
    """Brings its own shards and its own shared param."""

    runner = add

    def get_shared_param(self) -> int:
        """Ten."""
        return 10

    def iter_shards(self):
        """Three numbers."""
        return iter((1, 2, 3))


class Twice(DataParallelDispatchCenter):
    """Brings two shards of one id."""

    runner = double

    def iter_shards(self):
        """The same twice."""
        return iter((Shard(1, id="a"), Shard(1, id="a")))


class Broken(Runner):
    """Cannot be made ready."""

    def setup(self) -> None:
        """Fail."""
        raise RuntimeError("no GPU here")

    def do_run(self, shard: Shard[int]) -> int:
        """Never run."""
        return shard.payload


class Unwritable(Runner):
    """Is annotated with what cannot be encoded."""

    def do_run(self, shard: Shard[object]) -> "NotThere":  # noqa: F821  (that is the point)
        """Never run."""


made = DataParallelDispatchCenter(double)
