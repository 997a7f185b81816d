"""An opening from `open` to `close`, whatever happens meanwhile: fairness, drains, and leaving in time."""

import asyncio
import os
import time
from typing import Any

import anyio
import pytest

from dispatch import (
    Cancelled,
    Closed,
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    Draining,
    Policy,
    Runner,
    Shard,
    WorkerReady,
)
from tests.center.facts import Gate, NewGate, descendants, on_both_loops, open_files, until
from tests.center.runners import Actor, AsyncActor, Job, double, endless, hang, mark, wait_at

ONE = DispatchConfig(data_parallel=1)
TWO = DispatchConfig(data_parallel=2)


@on_both_loops
async def test_doors_take_turns() -> None:
    """Three streams of many shards on one worker progress side by side: none waits until another is done."""
    order: list[int] = []

    async def consume(number: int) -> None:
        async with center.stream(Job(arg=number) for _ in range(3000)) as outcomes:
            async for outcome in outcomes:
                order.append(outcome.unwrap())  # noqa: PERF401  (one by one: the order is the question)

    async with DataParallelDispatchCenter(Actor, config=ONE) as center:
        await asyncio.gather(*(consume(number) for number in range(3)))
    assert sorted(order) == [0] * 3000 + [1] * 3000 + [2] * 3000
    first_end = min(max(at for at, number in enumerate(order) if number == each) for each in range(3))
    assert min(order[:first_end].count(number) for number in range(3)) > 1000


@on_both_loops
async def test_outcomes_are_handed_on_one_turn_at_a_time() -> None:
    """While a stream of quick shards is consumed the host's other tasks run."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async with DataParallelDispatchCenter(double, config=ONE) as center:
        turns = 0
        report = await center.run(range(20_000))
    task.cancel()
    assert report.counts == {"done": 20_000}
    assert turns > 100


@on_both_loops
async def test_a_drain_stops_what_takes_longer_than_its_grace(new_gate: NewGate) -> None:
    """`center.drain()` without any signal: nothing new starts, running shards have `grace`, the rest is Cancelled."""
    quick, never = new_gate(), new_gate()
    config = DispatchConfig(data_parallel=2, policy=Policy(grace=0.5))
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        told: list[Any] = []
        center._opening.bus.join(told.append)
        running = asyncio.create_task(center.run([quick.job, never.job, *(Job(arg=n) for n in range(50))]))
        await quick.entered()
        await never.entered()
        center.drain()
        center.drain()
        quick.open()
        report = await running
        assert center.snapshot().draining
    assert report.counts["done"] >= 1
    assert isinstance(report.outcomes[0], Done)
    assert isinstance(report.outcomes[1], Cancelled)
    assert {type(outcome) for outcome in report.outcomes[2:]} <= {Cancelled, Done}
    assert report.interrupted
    assert [type(event) for event in told].count(Draining) == 1
    assert type(told[-1]) is Closed


@on_both_loops
async def test_a_drain_lets_tasks_go_on_and_takes_back_waiting_ones(gate: Gate) -> None:
    """In the async lane what was sent ahead and not started is Cancelled too."""
    async with DataParallelDispatchCenter(AsyncActor, config=ONE) as center:
        running = asyncio.create_task(center.run([gate.job] * 12))
        await gate.entered(4)
        center.drain()
        gate.open()
        report = await running
    assert report.counts == {"done": 4, "cancelled": 8}


class SecondIsSlow(Runner):
    """The second process that comes up waits in `setup`."""

    shared_param: str

    def setup(self) -> None:
        """Wait for SLOW.go."""
        if mark(self.shared_param) == 2:
            wait_at(self.shared_param)

    def do_run(self, shard: Shard[int]) -> int:
        """Who am I."""
        return os.getpid()


@on_both_loops
async def test_open_returns_when_the_first_worker_is_ready(tmp_path: Any) -> None:
    """The other one, held up in `setup`, comes up beside the work, and an event tells of it."""
    center = DataParallelDispatchCenter(SecondIsSlow, shared_param=str(tmp_path / "slow"), config=TWO)
    async with center:
        told: list[Any] = []
        center._opening.bus.join(told.append)
        assert sorted(worker.state for worker in center.snapshot().workers) == ["ready", "starting"]
        first = await center.submit(1)
        (tmp_path / "slow.go").touch()
        await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
        [ready] = [event for event in told if isinstance(event, WorkerReady)]
        assert {first, ready.pid} == {worker.pid for worker in center.snapshot().workers}
        assert (ready.runner, ready.seconds > 0) == ("SecondIsSlow", True)


async def left(how: str, center: Any) -> float:
    """Seconds from leaving to being out."""
    began = 0.0
    try:
        async with asyncio.timeout(20), center:
            submit = asyncio.create_task(center.submit_outcome(1))
            await until(lambda: center.snapshot().workers[0].shard_id is not None)
            if how == "exception":
                began = time.monotonic()
                raise LookupError
            if how == "stream":
                async with center.stream(endless()) as outcomes:
                    del outcomes
                    await until(lambda: center.snapshot().ready > 100)
                    began = time.monotonic()
                seconds = time.monotonic() - began
                submit.cancel()
                return seconds
            if how == "scope":
                with anyio.CancelScope() as scope:

                    def cancel() -> None:
                        nonlocal began
                        began = time.monotonic()
                        scope.cancel()

                    asyncio.get_running_loop().call_later(0.05, cancel)
                    await center.run([1, 2])
                seconds = time.monotonic() - began
                submit.cancel()
                return seconds
    except LookupError:
        await submit
    return time.monotonic() - began


@on_both_loops
@pytest.mark.parametrize("how", ["exception", "stream", "scope"])
async def test_leaving_takes_less_than_half_a_second(how: str) -> None:
    """Although a shard spins for ever, and a stream has thousands read ahead (the best of three: machines are busy)."""
    center = DataParallelDispatchCenter(hang, config=ONE)
    seconds = [await left(how, center)]
    before, files = descendants(), open_files()  # libuv takes a spare one with its first pipe: that is past
    seconds += [await left(how, center) for _ in range(2)]
    assert min(seconds) < 0.5
    assert descendants() <= before
    with anyio.fail_after(1):  # a loop may take some turns to let go of a socket
        while open_files() != files:
            await anyio.sleep(0.01)


@on_both_loops
async def test_opening_is_cancelled_without_a_trace() -> None:
    """At any moment of the start-up: the worker is awaited, then ended, and the centre may be opened again."""
    before = descendants()
    center = DataParallelDispatchCenter(double, config=TWO)
    for seconds in (0, 0.01, 0.05):
        with anyio.move_on_after(seconds) as scope:
            await center.open()
        assert scope.cancelled_caught
        assert descendants() <= before
    async with center:
        assert await center.submit(4) == 8


@on_both_loops
async def test_cancelling_a_close_stops_at_once(gate: Gate) -> None:
    """`aclose` waits for what was accepted; cancelled, it stops that and leaves nothing."""
    before = descendants()
    center = DataParallelDispatchCenter(Actor, config=ONE)
    await center.open()
    submit = asyncio.create_task(center.submit_outcome(gate.job))
    await gate.entered()
    with anyio.move_on_after(0.05) as scope:
        await center.aclose()
    assert scope.cancelled_caught
    assert isinstance(await submit, Cancelled)
    assert descendants() <= before
