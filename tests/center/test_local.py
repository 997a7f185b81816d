"""One runner in this process: one shard at a time, in order, beside the event loop."""

import asyncio
import os
import threading
import warnings
from typing import Any

import pytest

from dispatch import (
    Cancelled,
    CenterClosed,
    DispatchConfig,
    Failed,
    GiveUp,
    LocalDispatchCenter,
    Policy,
    Retry,
    Runner,
    Shard,
    ShardTimeout,
    StartupFailed,
    remote,
)
from tests.center.facts import Gate, descendants, on_both_loops, until
from tests.center.runners import (
    Actor,
    Asker,
    AsyncActor,
    AsyncAsker,
    Broken,
    Job,
    Marked,
    double,
    lines,
    work,
)


@on_both_loops
async def test_shards_run_here_one_at_a_time_in_order() -> None:
    """In this process, on one thread that is not the main one."""
    order: list[int] = []
    threads: set[int] = set()

    def remember(n: int) -> int:
        order.append(n)
        threads.add(threading.get_ident())
        return os.getpid()

    before = descendants()
    report = await LocalDispatchCenter(remember, range(500)).run()
    assert {*report.values()} == {os.getpid()}
    assert order == list(range(500))
    assert len(threads) == 1
    assert threading.main_thread().ident not in threads
    assert descendants() <= before


@on_both_loops
async def test_the_event_loop_stays_alive_meanwhile(gate: Gate) -> None:
    """A shard that takes long blocks neither the host's tasks nor a snapshot."""
    async with LocalDispatchCenter(Actor) as center:
        running = asyncio.create_task(center.submit(gate.job))
        await gate.entered()
        assert center.snapshot().in_flight == 1
        gate.open()
        assert await running == os.getpid()


@on_both_loops
async def test_it_is_a_centre_like_another(tmp_path: Any) -> None:
    """Retries, GiveUp, ordered streams, shared params, setup and teardown are as in processes."""
    config = DispatchConfig(policy=Policy(retry=Retry(attempts=3)))
    async with LocalDispatchCenter(Marked, shared_param=str(tmp_path / "log"), config=config) as center:
        assert await center.submit(Job("raise until", [str(tmp_path / "a"), 3])) == 3
        with pytest.raises(GiveUp, match="no use"):
            await center.submit(Job("give up", str(tmp_path / "b")))
        async with center.stream([Job(arg=n) for n in range(20)], ordered=True) as outcomes:
            assert [outcome.unwrap() async for outcome in outcomes] == list(range(20))
        report = await center.run([Job(arg=1), {"do": 1}, Job(arg=object())])
        assert report.counts == {"done": 1, "failed": 2, "undeliverable": 2}
    assert lines(tmp_path / "log") == [f"setup {os.getpid()}", f"teardown {os.getpid()}"]
    with pytest.raises(CenterClosed):
        await center.submit(Job())


class Adding(LocalDispatchCenter[int, int]):
    """Answers."""

    @remote
    async def add(self, a: int, b: int) -> int:
        """On the event loop, while the runner's thread waits."""
        assert threading.current_thread() is threading.main_thread()
        await asyncio.sleep(0)
        return a + b

    @remote
    def refuse(self, why: str) -> int:
        """A plain def."""
        raise PermissionError(why)


@on_both_loops
@pytest.mark.parametrize("runner", [Asker, AsyncAsker])
async def test_runners_ask_their_centre(runner: Any) -> None:
    """Values and exceptions, from both lanes."""
    report = await Adding(runner, [1, -2, 3]).run()
    assert [outcome.unwrap() for outcome in report if outcome.index != 1] == [6, 12]
    with pytest.raises(PermissionError, match="no -2"):
        report.outcomes[1].unwrap()


@on_both_loops
async def test_an_async_runner_runs_one_shard_at_a_time() -> None:
    """Whatever its `concurrency`: here one follows the other."""
    order: list[tuple[str, int]] = []

    class Slow(Runner):
        concurrency = 8

        async def do_run(self, shard: Shard[int]) -> None:
            order.append(("in", shard.payload))
            await asyncio.sleep(0)
            order.append(("out", shard.payload))

    await LocalDispatchCenter(Slow, range(20)).run()
    assert order == [(where, n) for n in range(20) for where in ("in", "out")]


@on_both_loops
async def test_an_async_shard_over_its_deadline_is_cancelled_here_too(gate: Gate) -> None:
    """What cannot be done to sync code can be done to a task."""
    async with LocalDispatchCenter(AsyncActor) as center:
        with pytest.raises(ShardTimeout):
            await center.submit(gate.job, timeout=0.05)
        await until(lambda: gate.cancelled == [os.getpid()])
        assert await center.submit(Job(arg=1)) == 1


@on_both_loops
@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (Policy(timeout=5, memory_limit=1 << 30), "timeout, memory_limit"),
        (Policy(isolation="fork"), "isolation"),
        (Policy(recycle_after=10), "recycle_after"),
    ],
)
async def test_it_warns_once_of_what_it_cannot_enforce(policy: Policy, named: str) -> None:
    """By name, when it opens; a policy that asks for nothing of that kind is met with silence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with LocalDispatchCenter(double, config=DispatchConfig(policy=policy)) as center:
            await center.run([1, 2])
            await center.submit(3)
        assert [
            (warning.category, f"cannot enforce {named}" in str(warning.message)) for warning in caught
        ] == [(RuntimeWarning, True)]
    await LocalDispatchCenter(double, [1], config=DispatchConfig(policy=Policy(grace=1))).run()


@on_both_loops
async def test_cancelling_abandons_the_thread(gate: Gate) -> None:
    """Sync code cannot be stopped: the door is left at once, and the thread ends when its shard does."""
    threads = threading.active_count()
    async with asyncio.timeout(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await LocalDispatchCenter(Actor, [gate.job, Job(arg=1)]).run()
    [thread] = [each for each in threading.enumerate() if each.name.startswith("dispatch-")]
    assert thread.daemon
    gate.open()
    await until(lambda: threading.active_count() == threads)


@on_both_loops
async def test_a_cancelled_submit_costs_its_thread_only(gate: Gate) -> None:
    """The next shard runs on a fresh thread; what the abandoned one returns is nobody's."""
    async with LocalDispatchCenter(Actor) as center:
        running = asyncio.create_task(center.submit(gate.job))
        await gate.entered()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await center.submit(Job(arg=1)) == 1
        gate.open()
        assert await center.submit(Job(arg=2)) == 2
    assert gate.pids == [os.getpid()]


@on_both_loops
async def test_leaving_a_stream_cancels_the_rest(gate: Gate) -> None:
    """As everywhere: one outcome for each shard that was read."""
    async with LocalDispatchCenter(work) as center:
        reports: list[Any] = []

        async def keep(report: Any) -> None:
            reports.append(report)

        center.post_process = keep  # type: ignore[method-assign]  # a centre of one's own, in short
        async with center.stream([Job(arg=1), gate.job, Job(arg=2)]) as outcomes:
            assert (await anext(outcomes)).unwrap() == 1
            await gate.entered()
    assert [type(outcome) for outcome in reports[0]] == [Cancelled, Cancelled]
    assert reports[0].counts == {"done": 1, "cancelled": 2}


@on_both_loops
async def test_a_setup_that_raises_is_told(tmp_path: Any) -> None:
    """As StartupFailed, once."""
    with pytest.raises(StartupFailed, match="the model is not there"):
        await LocalDispatchCenter(Broken, [1], shared_param=str(tmp_path / "log")).run()
    assert len(lines(tmp_path / "log")) == 1


@on_both_loops
async def test_sys_exit_ends_a_shard_and_not_the_host() -> None:
    """It is a fault of the shard; the next one runs."""

    def leave(n: int) -> int:
        if n == 1:
            raise SystemExit(3)
        return n

    report = await LocalDispatchCenter(leave, range(3)).run()
    assert [type(outcome) is Failed for outcome in report] == [False, True, False]
    assert (report.failures[0].fault.type, report.failures[0].fault.exit_code) == ("SystemExit", 3)
