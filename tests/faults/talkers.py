"""Runners that talk while they work, each in a way that once cost a worker, a value or the whole run."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from dispatch import DataParallelDispatchCenter, Runner, Shard, remote


class Questions(Protocol):
    """What they ask."""

    def get(self, number: int) -> int: ...
    def news(self) -> int: ...
    def cancelled(self) -> int: ...
    def late(self, number: int) -> int: ...


class Answers(DataParallelDispatchCenter[int, object]):
    """Answers them, out of order."""

    @remote
    async def get(self, number: int) -> int:
        """The number, later or sooner."""
        await asyncio.sleep(0.01 * (number % 3))
        return number

    @remote
    async def late(self, number: int) -> int:
        """The number, in a while."""
        await asyncio.sleep(0.4)
        return number

    @remote
    async def news(self) -> int:
        """There is none."""
        await asyncio.get_running_loop().create_future()
        return 0

    @remote
    async def cancelled(self) -> int:
        """Wait for something that somebody else has cancelled."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future


class Impatient(Runner[Questions]):
    """Waits for news until an alarm raises, beside a thread that is answered after that."""

    def do_run(self, shard: Shard[int]) -> int:
        """What the thread was told."""
        told: list[int] = []
        thread = threading.Thread(target=lambda: told.append(self.center.late(shard.payload)))
        signal.signal(signal.SIGALRM, self.enough)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        thread.start()
        with suppress(InterruptedError):
            self.center.news()
        thread.join()
        return told[0]

    def enough(self, *_: object) -> None:
        """End what waits."""
        raise InterruptedError


class AsksInAHandler(Runner[Questions]):
    """Asks in a signal handler, while it waits for an answer."""

    def do_run(self, shard: Shard[int]) -> int:
        """Never comes to a value."""
        signal.signal(signal.SIGALRM, lambda *_: self.center.get(1))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        return self.center.news()


class Surrogates(Runner[None]):
    """Prints a file's name that is not UTF-8, as Python gives it."""

    async def do_run(self, shard: Shard[int]) -> int:
        """Print, and fail where the payload is odd."""
        print(f"caf\udce9 {shard.payload}")
        if shard.payload % 2:
            raise ValueError(shard.payload)
        return shard.payload


class LongPoll(Runner[Questions]):
    """Has a thread that waits for news, and asks while it waits."""

    def setup(self) -> None:
        """Begin to wait."""
        threading.Thread(target=self.center.news, daemon=True).start()

    def do_run(self, shard: Shard[int]) -> int:
        """What the centre says."""
        return self.center.get(shard.payload)


class Cancels(Runner[Questions]):
    """Asks what ends in a cancellation."""

    def do_run(self, shard: Shard[int]) -> int:
        """Never comes to a value."""
        return self.center.cancelled()


class Pool(Runner[Questions]):
    """Asks from several threads at once."""

    def do_run(self, shard: Shard[int]) -> list[int]:
        """What was asked for, in its order."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self.center.get, range(8)))


class NoNumber(Runner[None]):
    """Says that it is half done."""

    def do_run(self, shard: Shard[int]) -> int:
        """Say it in words."""
        self.progress("half" if shard.payload == 1 else 0.5)  # type: ignore[arg-type]  # that is the fault
        return shard.payload


class FromAThread(Runner[None]):
    """Tells of its progress from a thread, beside its loop."""

    async def do_run(self, shard: Shard[int]) -> int:
        """In a hundred steps, the last of which is always told."""
        await asyncio.to_thread(lambda: [self.progress(n, 100) for n in range(101)])
        return shard.payload


class LeavesAThread(Runner[None]):
    """Leaves a thread of `asyncio.to_thread` behind, which its loop would wait for."""

    async def do_run(self, shard: Shard[int]) -> int:
        """Do not wait for it."""
        self.left = asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
        return shard.payload


class NoKey(Runner[None]):
    """Cannot be made ready, and finds out in an async `setup`."""

    async def setup(self) -> None:
        """Fail."""
        raise LookupError("there is no key")

    async def do_run(self, shard: Shard[int]) -> int:
        """Never runs."""
        return shard.payload


class Busy(Runner[None]):
    """Refuses to end, beside a neighbour that works in long steps."""

    concurrency = 2

    async def do_run(self, shard: Shard[str]) -> str:
        """Refuse, or hold the loop for much less than the grace again and again."""
        if shard.payload == "refuses":
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    continue
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            time.sleep(0.13)
            await asyncio.sleep(0)
        return shard.payload
