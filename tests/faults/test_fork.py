"""`isolation="fork"`: each shard in a fork of the warm runner process, which stays warm, clean and alive."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest

from dispatch import (
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    Failed,
    Policy,
    Progressed,
    RemoteError,
    Report,
    RunnerError,
    StartupFailed,
    WorkerEnded,
    remote,
)
from dispatch.testing.traces import is_alive
from tests.faults import culprits, forked
from tests.faults.culprits import Task
from tests.faults.forked import (
    Asks,
    AsksLater,
    Forger,
    Forked,
    ForkedCulprit,
    Heavy,
    NativeThreads,
    Several,
    Threads,
)
from tests.faults.scene import Lateness, config, failed, run, uncharged, until

pytestmark = pytest.mark.asyncio

SHARDS, GUILTY = 40, 17


async def matrix(act: Any, **policy: Any) -> Report[Any]:
    """One fault in one of 40 forks on 2 workers; the warm processes must not even notice."""
    shards = [Task(number, act.__name__ if number == GUILTY else "") for number in range(SHARDS)]
    report = await run(ForkedCulprit, shards, isolation="fork", **{"crash_budget": 1, **policy})
    uncharged(report, but=[GUILTY])
    assert {outcome.value.double for outcome in report.outcomes if isinstance(outcome, Done)} >= {
        2 * n for n in range(SHARDS) if n != GUILTY
    }
    assert all(len(worker.pids) == 1 for worker in report.workers)
    return report


async def test_the_warm_process_stays_as_setup_left_it() -> None:
    """Every shard runs in a process of its own, forked from one warm process whose state no shard has changed."""
    report = await run(Forked, [Task(n) for n in range(SHARDS)], isolation="fork")
    places = report.values()
    assert len({place.pid for place in places}) == SHARDS
    assert len({place.warm for place in places}) == len(report.workers) <= 2
    assert {(place.setups, place.touched, place.threads) for place in places} == {(1, 0, 1)}


@pytest.mark.parametrize(
    ("act", "number", "code"),
    [
        (culprits.segfaults, signal.SIGSEGV, None),
        (culprits.kills_itself, signal.SIGKILL, None),
        (culprits.exits, None, 1),
        (culprits.exits_well, None, 0),
        (culprits.stops_itself, signal.SIGSTOP, None),
    ],
)
async def test_a_fork_that_dies(act: Any, number: int | None, code: int | None, lateness: Lateness) -> None:
    """A fork that dies is crashed with its exact signal or exit code, and the worker serves on."""
    outcome = failed(await matrix(act), GUILTY)
    assert (outcome.fault.cause, outcome.fault.signal, outcome.fault.exit_code) == ("crashed", number, code)
    if act is culprits.segfaults:
        assert "in segfaults" in outcome.fault.stack
    assert outcome.attempts[-1].seconds < 1 + lateness.slack


@pytest.mark.parametrize("act", [culprits.spins, culprits.backtracks, culprits.sleeps, culprits.deaf])
async def test_a_fork_that_never_returns(act: Any, lateness: Lateness) -> None:
    """A fork over its deadline is killed within 0.2 s, with the stack that shows where, and the worker serves on."""
    outcome = failed(await matrix(act, timeout=0.4), GUILTY)
    assert outcome.fault.cause == "timed_out"
    assert f"in {act.__name__}" in outcome.fault.stack
    assert 0.4 <= outcome.attempts[-1].seconds < 0.6 + lateness.slack


async def test_a_fork_that_stops_after_its_answer() -> None:
    """A fork that is stopped where it should end has answered: Done, it is killed, and the worker serves on."""
    uncharged(await matrix(culprits.stops_at_the_end))


async def test_a_fork_that_swallows_memory() -> None:
    """`memory_limit` is each shard's: what one takes beyond the warm process ends it, and not the worker."""
    outcome = failed(await matrix(culprits.swallows_memory, memory_limit=128 << 20), GUILTY)
    assert outcome.fault.cause == "out_of_memory"
    assert "memory_limit" in outcome.fault.message


@pytest.mark.parametrize(
    ("act", "cause", "words"),
    [
        (culprits.leaves, "raised", "3"),
        (culprits.raises_keyboard_interrupt, "raised", ""),
        (culprits.raises_two_arguments, "raised", "7: seven"),
        (culprits.raises_a_treacherous_one, "raised", ""),
        (culprits.raises_at_length, "raised", "characters cut"),
        (culprits.returns_a_deep_lock, "undeliverable", "$['rows'][1]['lock']"),
        (culprits.returns_too_much, "undeliverable", "max_value_bytes"),
        (culprits.returns_another_shape, "undeliverable", "double"),
    ],
)
async def test_a_fork_that_fails(act: Any, cause: str, words: str) -> None:
    """What a fork raises or returns amiss is told as in a worker; `unwrap` raises RemoteError, not the type."""
    outcome = failed(await matrix(act), GUILTY)
    assert outcome.fault.cause == cause
    assert words in outcome.fault.message
    if cause == "raised":
        with pytest.raises(RemoteError):
            outcome.unwrap()


async def test_what_a_fork_prints(caplog: pytest.LogCaptureFixture) -> None:
    """What a fork prints is tagged with its shard; a flood is cut and counted; last words are kept with the fault."""
    with caplog.at_level("INFO", logger="dispatch.runner"):
        uncharged(await matrix(culprits.floods))
    printed = [record for record in caplog.records if record.name == "dispatch.runner"]
    [record] = [record for record in printed if record.dispatch_shard == str(GUILTY)]
    assert len(record.args[0]) <= 64 * 1024
    assert failed(await matrix(culprits.floods_and_exits), GUILTY).fault.output.endswith("last words")


async def test_a_forks_processes_go_with_its_shard(tmp_path: Path) -> None:
    """Children and daemons of a fork are dead when the next shard starts, though the worker goes on."""
    center = DataParallelDispatchCenter(Forked, config=config(1, isolation="fork"))
    async with center:
        for act in ("leaves_a_child", "leaves_a_daemon", "leaves_a_stubborn_daemon"):
            place = await center.submit(Task(0, act))
            children = Path(f"/proc/{place.warm}/task/{place.warm}/children").read_text().split()
            assert [int(pid) for pid in children if is_alive(int(pid))] == []
            assert not is_alive(place.pid)


async def test_a_forged_verdict() -> None:
    """A shard that writes verdicts to every descriptor it finds, its parent's included, still gets the honest one."""
    report = await run(Forger, range(20), isolation="fork", crash_budget=5)
    assert [outcome.value for outcome in report.outcomes if isinstance(outcome, Done)] == ["honest"] * 10
    for outcome in report.outcomes[1::2]:
        assert isinstance(outcome, Failed)
        assert "the verdict of an honest judge" in outcome.fault.message


# What a fork has of its worker and its centre.


class AskedCenter(DataParallelDispatchCenter):
    """Answers what forks ask."""

    @remote
    async def add(self, first: int, second: int) -> int:
        return first + second

    @remote
    async def refuse(self) -> int:
        raise ZeroDivisionError("not from me")

    @remote
    async def ponder(self) -> int:
        await asyncio.sleep(600)
        return 0


async def test_questions_and_progress_are_relayed() -> None:
    """A fork's calls reach the centre and its answers the fork; progress is seen; what the centre raises is raised."""
    told = []
    async with AskedCenter(Asks, config=config(2, isolation="fork")) as center:

        async def listen() -> None:
            async for event in center.events():
                told.append(event)  # noqa: PERF401  (while they come)

        listening = asyncio.create_task(listen())
        report = await center.run([Task(n) for n in range(20)])
        assert report.values() == [10 * n + 45 for n in range(20)]
        outcome = await center.submit_outcome(Task(0, "refuse"))
        assert isinstance(outcome, Failed)
        assert "not from me" in outcome.fault.message
        await until(lambda: len([event for event in told if isinstance(event, Progressed)]) >= 20)
        listening.cancel()
    assert {event.total for event in told if isinstance(event, Progressed)} == {2}


async def test_a_question_does_not_stop_the_clock(lateness: Lateness) -> None:
    """A fork that waits for an answer past its deadline is killed in time, and its worker serves on."""
    async with AskedCenter(Asks, config=config(1, isolation="fork", timeout=0.3)) as center:
        outcome = await center.submit_outcome(Task(0, "ponder"))
        assert isinstance(outcome, Failed)
        assert outcome.fault.cause == "timed_out"
        assert outcome.attempts[0].seconds < 0.5 + lateness.slack
        before = center.snapshot().workers[0].pid
        assert await center.submit(Task(3)) == 75
        assert center.snapshot().workers[0].pid == before


async def test_an_async_shard_gets_a_fresh_loop() -> None:
    """An async do_run runs in its fork on an event loop of its own, and may ask."""
    async with AskedCenter(AsksLater, config=config(2, isolation="fork")) as center:
        values = (await center.run([Task(n) for n in range(10)])).values()
        assert [value[0] for value in values] == list(range(1, 11))


# What cannot be forked.


async def test_concurrency_is_refused() -> None:
    """`concurrency > 1` and forks exclude each other, said before a process starts."""
    with pytest.raises(RunnerError, match="concurrency"):
        await run(Several, [1], isolation="fork")


async def test_a_thread_from_setup_is_refused() -> None:
    """A runner whose setup left a Python thread running is told its name and the cure, instead of forking its locks."""
    with pytest.raises(StartupFailed, match=r"the-thread-of-setup.*isolation") as raised:
        await run(Threads, [1], isolation="fork")
    assert "thread" in str(raised.value)


async def test_native_threads_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Threads that Python knows nothing of are warned of, once a worker, with the variable that cures it."""
    with caplog.at_level("INFO", logger="dispatch.runner"):
        report = await run(NativeThreads, range(10), workers=1, isolation="fork")
    assert report.values() == [2 * n for n in range(10)]
    printed = [record.getMessage() for record in caplog.records if record.name == "dispatch.runner"]
    [told] = [text for text in printed if "native threads" in text]
    assert "OMP_NUM_THREADS" in told


async def test_cancelling_a_fork() -> None:
    """A submit that is cancelled ends its fork, and the next one is served."""
    async with DataParallelDispatchCenter(Forked, config=config(1, isolation="fork")) as center:
        task = asyncio.create_task(center.submit(Task(0, "spins")))
        await until(lambda: center.snapshot().in_flight)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await center.submit(Task(1))).touched == 0


async def test_a_warm_process_that_is_killed() -> None:
    """A warm process that is killed from outside takes its fork along; the shard that ran there is charged."""
    center = DataParallelDispatchCenter(Forked, config=config(1, isolation="fork", crash_budget=1))
    async with center:
        ended = []

        async def listen() -> None:
            async for event in center.events():
                ended.append(event)  # noqa: PERF401  (while they come)

        listening = asyncio.create_task(listen())
        warm = (await center.submit(Task(0))).warm
        task = asyncio.create_task(center.submit_outcome(Task(1, "sleeps")))
        children = Path(f"/proc/{warm}/task/{warm}/children")
        await until(lambda: children.read_text().strip())
        fork = int(children.read_text().split()[0])
        os.kill(warm, signal.SIGKILL)
        outcome = await task
        assert isinstance(outcome, Failed)
        assert (outcome.fault.cause, outcome.fault.signal) == ("crashed", signal.SIGKILL)
        assert not is_alive(fork)
        assert (await center.submit(Task(2))).warm != warm
        listening.cancel()
    assert next(event.expected for event in ended if isinstance(event, WorkerEnded)) is False


async def test_what_a_fork_costs() -> None:
    """A shard in a fork costs at most 1.5 times a bare fork and wait of the same process, taken in turns with it."""
    ratios = []
    while len(ratios) < 3 and min(ratios, default=2.0) > 1.5:
        policy = Policy(isolation="fork")
        settings = DispatchConfig(data_parallel=1, policy=policy, env={"MEASURE": "1"})
        report = await DataParallelDispatchCenter(
            Heavy, [forked.Weighs() for _ in range(60)], config=settings
        ).run()
        bare = statistics.median(report.values())
        shard = statistics.median(outcome.attempts[0].seconds for outcome in report.outcomes)
        ratios.append(shard / bare)
    assert min(ratios) <= 1.5
