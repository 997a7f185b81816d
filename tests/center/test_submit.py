"""Submits: each has its own waiter, a place of its own, and can be taken back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dispatch import (
    Cancelled,
    CenterClosed,
    ConfigError,
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    Failed,
    QueueFull,
    Shard,
    ShardTimeout,
    Undeliverable,
    WorkerDied,
)
from tests.center.facts import Gate, NewGate, is_alive, on_both_loops, until
from tests.center.runners import Actor, AsyncActor, Job


def under_way(center: Any) -> int:
    """Shards that wait for a worker or are in one."""
    snapshot = center.snapshot()
    return snapshot.ready + snapshot.delayed + snapshot.in_flight


@on_both_loops
async def test_submit_returns_the_value(center: Any) -> None:
    """The value comes back as it is, and as an outcome from `submit_outcome`."""
    assert await center.submit(Job(arg={"a": [1, 2]})) == {"a": [1, 2]}
    outcome = await center.submit_outcome(Job(arg=7))
    assert isinstance(outcome, Done)
    assert (outcome.value, outcome.payload) == (7, Job(arg=7))


@on_both_loops
async def test_submit_raises_what_the_runner_raised(center: Any) -> None:
    """The original type and message, with the remote traceback as its cause; as an outcome it raises nothing."""
    with pytest.raises(ValueError, match=r"^no such thing$") as caught:
        await center.submit(Job("raise", "no such thing"))
    assert "raise ValueError(message)" in str(caught.value.__cause__)
    outcome = await center.submit_outcome(Job("raise", "no such thing"))
    assert isinstance(outcome, Failed)
    assert (outcome.fault.cause, outcome.fault.type) == ("raised", "ValueError")


@on_both_loops
async def test_submit_raises_one_error_for_each_cause(center: Any, gate: Gate, tmp_path: Path) -> None:
    """A timeout, a death and an unencodable payload each have a type, which says what happened."""
    with pytest.raises(ShardTimeout, match="ran longer than its timeout") as late:
        await center.submit(gate.job, timeout=0.1)
    assert isinstance(late.value, TimeoutError)
    assert "in wait_at" in str(late.value.__cause__)
    with pytest.raises(WorkerDied, match="exited with code 7"):
        await center.submit(Job("die", [str(tmp_path / "deaths"), 99]))
    with pytest.raises(Undeliverable, match=r"object at \$.arg\[0\]"):
        await center.submit(Job(arg=[object()]))
    with pytest.raises(Undeliverable, match="payload does not fit Job"):
        await center.submit({"do": 1})


@on_both_loops
@pytest.mark.parametrize("timeout", [-1, 0, float("nan")])
async def test_a_timeout_that_makes_no_sense_is_refused(center: Any, timeout: float) -> None:
    """At once, by name, and nothing is run."""
    before = center.snapshot().counts
    with pytest.raises(ConfigError, match=r"submit: timeout is .*: it must be more than 0 seconds"):
        await center.submit(Job("gate", "nowhere"), timeout=timeout)
    assert center.snapshot().counts == before


@on_both_loops
async def test_a_shard_may_be_submitted(center: Any) -> None:
    """Its id, timeout and runner count; a timeout of the submit itself counts more."""
    seen = await center.submit(Shard(Job("seen"), id="mine", timeout=30))
    assert (seen["id"], seen["timeout"]) == ("mine", 30)
    seen = await center.submit(Shard(Job("seen"), id="mine", timeout=30), timeout=20)
    assert (seen["id"], seen["timeout"]) == ("mine", 20)
    with pytest.raises(ConfigError, match="this centre's init_runners gives: Actor"):
        await center.submit(Shard(Job(), runner="Other"))


@on_both_loops
async def test_a_submit_never_waits_behind_a_stream(center: Any, gate: Gate) -> None:
    """While a stream of thousands is under way and its read-ahead full, a submit is answered between."""
    held = [gate.job] * 20_000
    async with center.stream([Job(), *held]) as outcomes:
        await anext(outcomes)
        await until(lambda: len(gate.pids) == 2 and center.snapshot().ready > 5000)
        waiting = asyncio.create_task(center.submit(Job(arg="me first")))
        await until(lambda: center.snapshot().ready > 5001 or waiting.done())
        gate.open()
        assert await waiting == "me first"
        assert center.snapshot().ready > 5000


@on_both_loops
async def test_many_doors_at_once_get_their_own_outcomes(center: Any) -> None:
    """Runs, streams and submits share the workers, and nobody gets what another asked for."""

    async def streamed(start: int) -> list[int]:
        async with center.stream(Job(arg=start + n) for n in range(300)) as outcomes:
            return sorted([outcome.unwrap() async for outcome in outcomes])

    async def submitted(start: int) -> list[int]:
        return [await center.submit(Job(arg=start + n)) for n in range(50)]

    async def ran(start: int) -> list[int]:
        return (await center.run(Job(arg=start + n) for n in range(300))).values()

    doors = [door(1000 * n) for n, door in enumerate([streamed, submitted, ran] * 3)]
    for number, got in enumerate(await asyncio.gather(*doors)):
        assert got == [1000 * number + n for n in range(len(got))]
        assert len(got) in (50, 300)


@on_both_loops
async def test_cancelling_a_submit_withdraws_a_waiting_shard(center: Any, new_gate: NewGate) -> None:
    """A shard that waits behind others never starts."""
    gate, mine = new_gate(), new_gate()
    busy = [asyncio.create_task(center.submit(gate.job)) for _ in range(2)]
    await gate.entered(2)
    waiting = asyncio.create_task(center.submit(mine.job))
    await until(lambda: under_way(center) == 3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert under_way(center) == 2
    gate.open()
    await asyncio.gather(*busy)
    assert await center.submit(Job(arg=1)) == 1
    assert not mine.pids


@on_both_loops
async def test_cancelling_a_submit_stops_a_running_shard(center: Any, gate: Gate) -> None:
    """Its process is killed, it does not run again, and the worker is replaced."""
    cancelled = center.snapshot().counts["cancelled"]
    running = asyncio.create_task(center.submit(gate.job))
    [pid] = await gate.entered()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not is_alive(pid))
    await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
    pids = (await center.run([Job("pid")] * 100)).values()
    assert pid not in pids
    assert gate.pids == [pid]
    assert center.snapshot().counts["cancelled"] == cancelled + 1


@on_both_loops
async def test_cancelling_a_submit_cancels_its_task_only(async_center: Any, new_gate: NewGate) -> None:
    """In the async lane the one task is cancelled; its neighbour in the same worker goes on."""
    mine, other = new_gate(), new_gate()
    neighbour = asyncio.create_task(async_center.submit(other.job))
    running = asyncio.create_task(async_center.submit(mine.job))
    [pid] = await mine.entered()
    assert await other.entered() == [pid]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: mine.cancelled == [pid])
    other.open()
    assert await neighbour == pid
    assert mine.pids == [pid]


@on_both_loops
async def test_a_timeout_around_a_submit_stops_it(center: Any, gate: Gate) -> None:
    """`asyncio.timeout` bounds the whole wait, and takes the shard along."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await center.submit(gate.job)
    assert under_way(center) == 0
    assert not any(is_alive(pid) for pid in gate.pids)


@on_both_loops
async def test_a_full_queue_makes_submits_wait_or_raise(gate: Gate) -> None:
    """With `max_pending` shards under way a submit waits its turn, and with `nowait` raises QueueFull."""
    config = DispatchConfig(data_parallel=1, max_pending=2)
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        held = [asyncio.create_task(center.submit(gate.job)) for _ in range(2)]
        await gate.entered()
        with pytest.raises(QueueFull, match="2 shards are pending already"):
            await center.submit(Job(), nowait=True)
        given_up, *waiting = [asyncio.create_task(center.submit(Job(arg=n))) for n in range(6)]
        await asyncio.sleep(0)
        given_up.cancel()
        assert under_way(center) == 2
        gate.open()
        assert await asyncio.gather(*waiting) == [1, 2, 3, 4, 5]
        await asyncio.gather(*held)
        assert given_up.cancelled()


@on_both_loops
async def test_a_queue_is_full_of_bytes_too(gate: Gate) -> None:
    """`max_pending_bytes` of payloads under way make the next submit wait."""
    config = DispatchConfig(data_parallel=1, max_pending_bytes=10_000)
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        held = asyncio.create_task(center.submit(gate.job))
        large = asyncio.create_task(center.submit(Job(arg="x" * 20_000)))
        await until(lambda: gate.pids and under_way(center) == 2)
        with pytest.raises(QueueFull):
            await center.submit(Job(), nowait=True)
        gate.open()
        await asyncio.gather(held, large)
        assert await center.submit(Job(arg=1), nowait=True) == 1


@on_both_loops
async def test_a_place_that_is_not_used_goes_to_the_next(gate: Gate) -> None:
    """A submit that waited for a place and then fails to encode, or makes no sense, passes its place on."""
    config = DispatchConfig(data_parallel=1, max_pending=1)
    async with DataParallelDispatchCenter(Actor, config=config) as center, asyncio.timeout(20):
        held = asyncio.create_task(center.submit(gate.job))
        await gate.entered()
        bad = asyncio.create_task(center.submit_outcome(Job(arg=object())))
        worse = asyncio.create_task(center.submit_outcome(Job(), timeout=-1))
        good = asyncio.create_task(center.submit(Job(arg=1)))
        await asyncio.sleep(0)
        gate.open()
        assert await good == 1
        assert (await bad).fault.cause == "undeliverable"
        with pytest.raises(ConfigError):
            await worse
        await held


@on_both_loops
async def test_whoever_waits_for_a_place_hears_that_the_centre_closes(gate: Gate) -> None:
    """Submits that were accepted are finished, those that still waited raise CenterClosed, all of them."""
    config = DispatchConfig(data_parallel=1, max_pending=1)
    center = DataParallelDispatchCenter(Actor, config=config)
    await center.open()
    async with asyncio.timeout(20):
        held = asyncio.create_task(center.submit(gate.job))
        await gate.entered()
        waiting = [asyncio.create_task(center.submit(Job(arg=n))) for n in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(center.aclose())
        await asyncio.sleep(0)
        gate.open()
        assert isinstance(await held, int)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [CenterClosed] * 5
        await closing


@on_both_loops
async def test_a_closed_centre_takes_no_submit() -> None:
    """Before it is open, after it is closed, and while it drains: CenterClosed, with the way to open it."""
    center = DataParallelDispatchCenter(Actor, config=DispatchConfig(data_parallel=1))
    with pytest.raises(CenterClosed, match="submit needs an open centre; use 'async with center:'"):
        await center.submit(Job())
    async with center:
        assert await center.submit(Job(arg=1)) == 1
        center.drain()
        with pytest.raises(CenterClosed):
            await center.submit(Job())
    with pytest.raises(CenterClosed):
        await center.submit(Job())


@on_both_loops
async def test_a_drain_cancels_what_waits_and_lets_run_what_runs(gate: Gate) -> None:
    """After `drain` a running submit gets its value, a waiting one is Cancelled, and a delayed retry too."""
    policy = DispatchConfig.load({"policy": {"retry": {"attempts": 3, "wait": 50}}}).policy
    config = DispatchConfig(data_parallel=1, policy=policy)
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        delayed = asyncio.create_task(center.submit_outcome(Job("raise", "once")))
        await until(lambda: center.snapshot().delayed == 1)
        running = asyncio.create_task(center.submit(gate.job))
        [pid] = await gate.entered()
        waiting = asyncio.create_task(center.submit_outcome(Job(arg=1)))
        await until(lambda: under_way(center) == 3)
        center.drain()
        assert isinstance(await waiting, Cancelled)
        assert isinstance(await delayed, Cancelled)
        assert center.snapshot().draining
        gate.open()
        assert await running == pid


@on_both_loops
async def test_submits_to_a_worker_with_tasks_overlap(new_gate: NewGate) -> None:
    """With `concurrency = 4` one worker holds four submits at once, and the fifth waits for one of them."""
    gates = [new_gate() for _ in range(5)]
    config = DispatchConfig(data_parallel=1)
    async with DataParallelDispatchCenter(AsyncActor, config=config) as center:
        running = [asyncio.create_task(center.submit(gate.job)) for gate in gates]
        await until(lambda: all(gate.pids for gate in gates[:4]))
        assert not gates[4].pids
        gates[2].open()
        pid = await running[2]
        await gates[4].entered()
        for gate in gates:
            gate.open()
        assert set(await asyncio.gather(*running)) == {pid}
