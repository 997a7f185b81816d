"""Ends in the middle of something: nothing is lost, nothing more starts, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from dispatch import (
    Cancelled,
    CenterClosed,
    DispatchConfig,
    Done,
    JournalError,
    LocalDispatchCenter,
    Policy,
    Retry,
    Retrying,
)
from dispatch.engines.base import Host
from dispatch.engines.inline import InlineEngine
from dispatch.record.writer import Writer
from tests.center.facts import Gate, on_one_loop, until
from tests.center.runners import Actor, Job, double

PATIENCE = 20.0  # seconds


def fails(payload: int) -> int:
    """Raise."""
    raise ValueError(payload)


def grows(payload: bytes) -> bytes:
    """Much more than it was given."""
    return bytes(300_000)


async def endless_async() -> AsyncIterator[int]:
    """0, 1, 2 and so on, each at once."""
    number = 0
    while True:
        yield number
        number += 1


class Slow(LocalDispatchCenter[int, int]):
    """Takes its time to open."""

    runner = double

    async def get_shared_param(self) -> None:
        """Wait for ever."""
        await anyio.sleep_forever()


@on_one_loop
async def test_closing_ends_an_opening_that_is_under_way() -> None:
    """A host that shuts down while a centre opens gets rid of it; who opened it is told, and may open it again."""
    center = Slow()
    opening = asyncio.create_task(center.open())
    await until(lambda: center._starting is not None)
    await center.aclose()
    with pytest.raises(CenterClosed, match="was given up"):
        await opening
    with pytest.raises(CenterClosed):
        await center.submit(1)
    center.get_shared_param = lambda: None  # type: ignore[method-assign,assignment,return-value]
    async with center:
        assert await center.submit(1) == 2


class Breaking(InlineEngine):
    """An engine of somebody's own, with a bug."""

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self._late = late
        self.broken = anyio.Event()

    async def open(self, tasks: TaskGroup, host: Host) -> None:
        """Raise, or let a task raise later."""
        if not self._late:
            raise ArithmeticError("of an engine")
        await super().open(tasks, host)
        tasks.start_soon(self._break)

    async def _break(self) -> None:
        await self.broken.wait()
        raise ArithmeticError("of an engine")


class OnBreaking(LocalDispatchCenter[int, int]):
    """Runs on it."""

    late = False

    def make_engine(self) -> Breaking:
        """Ours."""
        self.engine = Breaking(late=self.late)
        return self.engine


@on_one_loop
async def test_a_submit_that_comes_too_late_is_told_so() -> None:
    """On a centre that drains: it is open, so that is not what the error says."""
    async with LocalDispatchCenter(double) as center:
        center.drain()
        with pytest.raises(CenterClosed, match="submit comes too late: the centre is draining"):
            await center.submit(1)


@on_one_loop
async def test_an_engine_that_breaks_is_no_success() -> None:
    """What it raises comes out where the centre is opened, or of the run under way; no report says that all is well."""
    with pytest.raises(ExceptionGroup) as caught:
        await OnBreaking(double, [1, 2]).run()
    assert caught.group_contains(ArithmeticError, match="of an engine")
    center = OnBreaking(double)
    center.late = True
    await center.open()
    assert await center.submit(1) == 2
    center.engine.broken.set()
    with pytest.raises(ExceptionGroup) as caught:
        await center.aclose()
    assert caught.group_contains(ArithmeticError, match="of an engine")


@on_one_loop
@pytest.mark.parametrize("one_by_one", [False, True])
async def test_consumers_of_one_stream_share_it(one_by_one: bool) -> None:
    """Several tasks that iterate one stream, or ask it for the next outcome, get each outcome once between them."""
    found: list[int] = []

    async def consume(outcomes: Any) -> None:
        if not one_by_one:
            found.extend([outcome.index async for outcome in outcomes])
            return
        with suppress(StopAsyncIteration):
            while True:
                found.append((await anext(outcomes)).index)

    async with LocalDispatchCenter(double).stream(range(10_000)) as outcomes:
        await asyncio.gather(*(consume(outcomes) for _ in range(3)))
    assert sorted(found) == list(range(10_000))


@on_one_loop
async def test_nothing_is_read_after_a_drain() -> None:
    """A run on a centre that has been drained reads no shard, be its source sync or async."""
    async with LocalDispatchCenter(double) as center:
        center.drain()
        for source in (range(3), endless_async()):
            report = await center.run(source)
            assert (report.total, report.interrupted) == (0, True)


@on_one_loop
async def test_a_source_that_drains_its_own_centre() -> None:
    """What a source gives after it called `drain` does not start."""
    center = LocalDispatchCenter(double)

    def source() -> Iterator[int]:
        for number in range(2000):
            if number == 700:
                center.drain()
            yield number

    report = await center.run(source())
    assert report.interrupted
    assert {type(outcome) for outcome in report if outcome.index >= 700} == {Cancelled}


@on_one_loop
async def test_a_listener_that_drains_at_a_retry() -> None:
    """A retry that was decided when a listener drains is cancelled at once, and not run later."""
    policy = Policy(retry=Retry(attempts=3, wait=60.0))
    center = LocalDispatchCenter(fails, [1], config=DispatchConfig(policy=policy))
    center.on_event = lambda event: center.drain() if isinstance(event, Retrying) else None
    with anyio.fail_after(PATIENCE):
        report = await center.run()
    assert [type(outcome) for outcome in report] == [Cancelled]
    assert [len(outcome.attempts) for outcome in report] == [1]


class Stop(BaseException):
    """Not an Exception."""


async def meets_a_cancellation() -> AsyncIterator[int]:
    """One shard, and then the cancellation of something else."""
    yield 1
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def stops() -> Iterator[int]:
    """One shard, and then no Exception."""
    yield 1
    raise Stop


@on_one_loop
@pytest.mark.parametrize(("source", "name"), [(meets_a_cancellation, "CancelledError"), (stops, "Stop")])
async def test_a_source_that_ends_by_no_exception(source: Any, name: str) -> None:
    """A source that ends by a CancelledError of somebody else's, or its like, is an error and no end."""
    with pytest.raises(RuntimeError, match=f"the source of shards ended with {name}"):
        await LocalDispatchCenter(double).run(source())
    async with LocalDispatchCenter(double).stream(source()) as outcomes:
        assert (await anext(outcomes)).unwrap() == 2
        with pytest.raises(RuntimeError, match=name):
            await anext(outcomes)


@on_one_loop
async def test_a_resumed_run_does_not_wait_for_what_it_has_not_admitted(tmp_path: Path) -> None:
    """Where recorded values and the payloads behind them are each too much, a resumed run still goes on."""
    shards = [b"%d" % n for n in range(97)] + [b"%d" % n + bytes(20_000) for n in range(128)]
    config = DispatchConfig(work_dir=str(tmp_path), max_pending_bytes=100_000)
    for reused in (0, len(shards)):
        with anyio.fail_after(PATIENCE):
            report = await LocalDispatchCenter(grows, shards, config=config).run(collect=False)
        assert (report.counts, report.reused) == ({"done": len(shards)}, reused)


@on_one_loop
async def test_closing_does_not_wait_for_what_cannot_be_written(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A centre that is closed while the journal breaks under another task's run closes, and the run says why."""
    write = Writer._commit

    def commit(self: Writer, acts: Any) -> Any:
        if any(act.outcomes for act in acts):
            raise sqlite3.OperationalError("database or disk is full")
        return write(self, acts)

    monkeypatch.setattr(Writer, "_commit", commit)
    center = LocalDispatchCenter(Actor, config=DispatchConfig(work_dir=str(tmp_path / "run")))
    await center.open()
    running = asyncio.create_task(center.run([gate.job]))
    await until(lambda: center.snapshot().in_flight)
    closing = asyncio.create_task(center.aclose())
    gate.open()
    with anyio.fail_after(PATIENCE):
        await closing
    with pytest.raises(JournalError, match="disk is full"):
        await running


@on_one_loop
async def test_a_run_closes_only_the_opening_that_was_its_own(gate: Gate, new_gate: Any) -> None:
    """A run whose centre somebody closes does not close the one that the next run opens."""
    center, second = LocalDispatchCenter(Actor), new_gate()
    first_run = asyncio.create_task(center.run([gate.job]))
    await until(lambda: center._opening is not None and center.snapshot().in_flight)
    closing = asyncio.create_task(center.aclose())
    await until(lambda: center._opening is None)
    second_run = asyncio.create_task(center.run([second.job, *(Job(arg=n) for n in range(5))]))
    await until(lambda: center._opening is not None and center.snapshot().in_flight)
    gate.open()
    assert (await first_run).counts == {"done": 1}
    await closing
    second.open()
    report = await second_run
    assert (report.counts, report.interrupted) == ({"done": 6}, False)


@on_one_loop
async def test_a_submit_that_is_cancelled_as_its_outcome_comes() -> None:
    """A cancelled submit whose shard has its outcome already waits for nothing."""
    async with LocalDispatchCenter(double) as center:
        door: Any = center._need_open("submit").calls
        take = door.take
        submitted = asyncio.create_task(center.submit(1))

        def cancel_and_take(outcomes: Any, **told: Any) -> None:
            submitted.cancel()
            take(outcomes, **told)

        door.take = cancel_and_take
        with pytest.raises(asyncio.CancelledError):
            await submitted
        door.take = take
        assert not door._waiters
        assert isinstance(await center.submit_outcome(2), Done)


LEAVING = """
import asyncio, sys
from dispatch import DataParallelDispatchCenter, DispatchConfig, LocalDispatchCenter
from tests.center.runners import double

async def main(kind, turns):
    running = asyncio.create_task(kind(double, config=DispatchConfig(data_parallel=1)).run(range(3)))
    for _ in range(turns):
        await asyncio.sleep(0)

for kind in (LocalDispatchCenter, DataParallelDispatchCenter):
    for turns in range(12):
        asyncio.run(main(kind, turns))
        print("left", kind.__name__, turns, flush=True)
"""


def test_a_loop_that_closes_while_a_centre_opens() -> None:
    """`asyncio.run` returns although its main leaves a run behind that has just begun to open."""
    command = [sys.executable, "-c", LEAVING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("left") == 24
