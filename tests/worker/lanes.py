"""Runners for the tests of the lanes. Workers import this, so it imports nothing of pytest's."""

import asyncio
import contextvars
import os
import sys
import threading
from typing import Any, Protocol

import msgspec

from dispatch import Runner, Shard


class Number(msgspec.Struct):
    """A payload with a type."""

    number: int


class Questions(Protocol):
    """What runners ask here."""

    def twice(self, number: int) -> Number: ...


class Counts(Runner[Any]):
    """Returns the same list each time, one longer, and changes it afterwards."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def do_run(self, shard: Shard[Number]) -> list[int]:
        self.kept.append(shard.payload.number)
        return self.kept


class Looks(Runner[Any]):
    """Says everything that a shard knows of itself."""

    def do_run(self, shard: Shard[Any]) -> list[Any]:
        return [shard.id, shard.index, shard.attempt, shard.timeout, shard.payload, shard.rng.random()]


class Returns(Runner[Any]):
    """Returns what its payload names."""

    def do_run(self, shard: Shard[str]) -> Any:
        made: dict[str, Any] = {
            "fine": "fine",
            "lock": {"deep": [threading.Lock()]},
            "big": b"x" * 2_000_000,
            "int": 10**100,
        }
        return made[shard.payload]


class Reports(Runner[Any]):
    """Reports progress far too often."""

    def do_run(self, shard: Shard[int]) -> None:
        for done in range(shard.payload + 1):
            self.progress(done, shard.payload)


class Asks(Runner[Questions]):
    """Asks its centre, from its own thread and from another one."""

    def do_run(self, shard: Shard[int]) -> list[int]:
        answers: list[int] = []

        def ask() -> None:
            answers.append(self.center.twice(shard.payload).number)

        ask()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return answers


class AsyncManners(Runner[Any]):
    """A sync runner with an async setup and teardown."""

    ready = 0

    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.ready = 1

    def do_run(self, shard: Shard[str]) -> int:
        self.path = shard.payload
        return self.ready

    async def teardown(self) -> None:
        await asyncio.sleep(0)
        with open(self.path, "w") as file:
            file.write("torn down")


class BadTeardown(Runner[Any]):
    """Its teardown raises."""

    def do_run(self, shard: Shard[Any]) -> None:
        """Nothing."""

    def teardown(self) -> None:
        raise LookupError("cannot let go")


class Prints(Runner[Any]):
    """Prints in setup, and what its payload says, by Python or past it."""

    def setup(self) -> None:
        print("ready soon")

    def do_run(self, shard: Shard[str]) -> None:
        if shard.payload.startswith("raw"):
            os.write(1, shard.payload.encode())
        elif shard.payload:
            print(shard.payload, file=sys.stderr)


seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


class Contexts(Runner[Any]):
    """Says what an earlier shard left in its context, and leaves something itself."""

    async def setup(self) -> None:
        seen.set("setup")

    async def do_run(self, shard: Shard[str]) -> str:
        before = seen.get()
        seen.set(shard.payload)
        await asyncio.sleep(0)
        return before


class AsksLater(Runner[Questions]):
    """Asks many things at once."""

    concurrency = 8

    async def do_run(self, shard: Shard[int]) -> int:
        answer: Any = self.center.twice(shard.payload)
        return int((await answer).number)


class PrintsInTurn(Runner[Any]):
    """Prints before and after its neighbours do."""

    concurrency = 2

    async def do_run(self, shard: Shard[str]) -> None:
        for _ in range(3):
            print(shard.payload)
            await asyncio.sleep(0)


class LastWill(Runner[Any]):
    """An async runner whose teardown is seen."""

    concurrency = 2

    async def do_run(self, shard: Shard[str]) -> str:
        self.path = shard.payload
        await asyncio.sleep(0.05)
        return "done"

    async def teardown(self) -> None:
        await asyncio.sleep(0)
        with open(self.path, "w") as file:
            file.write("torn down")
