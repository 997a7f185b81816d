"""Every way to leave a door, one after the other; says what each one left behind, as a line of JSON.

Run in development mode by test_opening.py: on stderr appears what the interpreter has to complain of.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import anyio
import uvloop

import dispatch
from dispatch import DataParallelDispatchCenter, DispatchConfig, StartupFailed
from tests.center.facts import descendants, open_files
from tests.center.runners import Broken, double, double_later, hang

ONE, TWO = DispatchConfig(data_parallel=1), DispatchConfig(data_parallel=2)
WAYS: list[Callable[[], Awaitable[Any]]] = []


class LeftError(Exception):
    """Of the consumer."""


def way(leave: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Try this one."""
    WAYS.append(leave)
    return leave


def center(runner: Any = double, shards: Any = (), config: DispatchConfig = ONE) -> Any:
    """A centre with a shared param, so that there is a file too."""
    return DataParallelDispatchCenter(runner, shards, shared_param=[1, 2, 3], config=config)


async def endless() -> AsyncIterator[int]:
    """An async source that never ends."""
    for n in count():
        await asyncio.sleep(0)
        yield n


@way
async def normally() -> None:
    """A run to its end."""
    assert (await center(double, range(100)).run()).counts == {"done": 100}


@way
async def by_break() -> None:
    """Out of an endless stream."""
    async with center(double, count()).stream() as outcomes:
        async for _ in outcomes:
            break


@way
async def by_break_from_an_async_source() -> None:
    """Out of a stream whose source is an async generator."""
    async with center(double_later, endless()).stream(ordered=True) as outcomes:
        async for _ in outcomes:
            break


@way
async def by_exception() -> None:
    """Of the consumer's own."""
    with suppress(LeftError):
        async with center(double, count()).stream() as outcomes:
            async for _ in outcomes:
                raise LeftError


@way
async def by_cancel_scope() -> None:
    """Around a run of shards that never return."""
    with anyio.move_on_after(0.25):
        await center(hang, [1, 2, 3]).run()


@way
async def by_timeout() -> None:
    """Around a stream of them."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.25), center(hang, [1, 2, 3]).stream() as outcomes:
            await anext(outcomes)


@way
async def by_timeout_around_map() -> None:
    """The function in the place of a class."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.25):
            await dispatch.map(hang, count(), config=ONE)


@way
async def by_exception_in_an_open_centre() -> None:
    """With a submit and a run under way."""
    try:
        async with center(hang) as opened:
            tasks = [asyncio.create_task(opened.submit_outcome(1)), asyncio.create_task(opened.run(count()))]
            await asyncio.sleep(0.02)
            raise LeftError
    except LeftError:
        await asyncio.gather(*tasks)


@way
async def by_a_source_that_raises() -> None:
    """Half-way."""

    def source() -> Iterator[int]:
        yield from range(10)
        raise LeftError

    with suppress(LeftError):
        await center(double, source()).run()


@way
async def by_failing_to_start() -> None:
    """A runner whose setup raises."""
    with suppress(StartupFailed):
        await DataParallelDispatchCenter(Broken, [1], shared_param="/dev/null", config=ONE).run()


@way
async def by_cancelling_a_submit() -> None:
    """That runs, in a centre that then closes in peace."""
    async with center(hang) as opened:
        task = asyncio.create_task(opened.submit(1))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])


@way
async def by_cancelling_while_closing() -> None:
    """`aclose` waits for a shard that never returns, and is cancelled."""
    opened = center(hang)
    await opened.open()
    task = asyncio.create_task(opened.submit_outcome(1))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(opened.aclose())
    await asyncio.sleep(0.02)
    closing.cancel()
    await asyncio.wait([closing, task])


def cancelled_after(seconds: float) -> Callable[[], Awaitable[Any]]:
    """At start-up, whatever it is doing then."""

    async def by_cancel() -> None:
        task = asyncio.create_task(center(double, count(), TWO).run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    by_cancel.__name__ = f"by_cancel_after_{seconds:g}"
    return by_cancel


WAYS.extend(map(cancelled_after, (0, 0.05, 0.1)))


async def never_closed() -> None:
    """The program ends with the centre open, and both workers ready: asyncio's debug mode logs a peer in the door."""
    opened = center(hang, config=TWO)
    await opened.open()
    while {worker.state for worker in opened.snapshot().workers} != {"ready"}:
        await asyncio.sleep(0.01)


async def all_ways() -> None:
    """Each in turn, and what it left."""
    await normally()  # what is loaded or opened once and for all
    files = open_files()
    for leave in WAYS:
        began = time.monotonic()
        await leave()
        seconds = time.monotonic() - began
        left = len(descendants()), len(open_files()) - len(files), threading.active_count() - 1
        print(json.dumps([leave.__name__, left, seconds]))


def main(loop: str) -> None:
    """The ways that end while the loop runs, then those that end with it."""
    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(all_ways())
    files: list[list[str]] = []
    for _ in range(2):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(never_closed())
        files.append(open_files())
    left = len(descendants()), len(files[1]) - len(files[0]), threading.active_count() - 1
    print(json.dumps([never_closed.__name__, left, 0]))


if __name__ == "__main__":
    main(sys.argv[1])
