"""The workers: fed, heard, replaced when they die, and given up when they cannot come up."""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from dispatch import (
    DataParallelDispatchCenter,
    DispatchCenter,
    DispatchConfig,
    Failed,
    Policy,
    Runner,
    Shard,
    StartupFailed,
    WorkerEnded,
)
from dispatch.engines.process import ProcessEngine
from dispatch.testing import FaultyChannel, Hold, Passing, Verdict
from tests.center.facts import Gate, NewGate, descendants, is_alive, on_both_loops, on_one_loop, until
from tests.center.runners import Actor, AsyncActor, Broken, Job, Upper, double, lines, mark

ONE = DispatchConfig(data_parallel=1)
TWO = DispatchConfig(data_parallel=2)


@on_both_loops
async def test_a_dead_workers_other_shards_run_elsewhere_uncharged(tmp_path: Path) -> None:
    """Only the shard that ran is charged; those that waited in the same worker are done at their first attempt."""
    jobs = [Job(arg=n) for n in range(400)]
    for n in (50, 150, 250):
        jobs[n] = Job("die", [str(tmp_path / str(n)), 2])
    center = DataParallelDispatchCenter(Actor, jobs, config=TWO)
    report = await center.run()
    assert report.counts == {"done": 400}
    assert [outcome.index for outcome in report if len(outcome.attempts) > 1] == [50, 150, 250]
    assert {outcome.attempts[0].fault.cause for outcome in report if len(outcome.attempts) > 1} == {"crashed"}
    assert len({attempt.pid for outcome in report for attempt in outcome.attempts}) >= 4  # three died


@on_both_loops
async def test_a_dead_worker_is_replaced_and_told(center: Any, gate: Gate) -> None:
    """The event holds the evidence; the number of workers stays."""
    told: list[WorkerEnded] = []
    center._opening.bus.join(lambda event: told.append(event) if isinstance(event, WorkerEnded) else None)
    await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
    outcome = await center.submit_outcome(Job("die", [str(gate.job.arg) + "x", 99]))
    assert isinstance(outcome, Failed)
    await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
    dead = [attempt.pid for attempt in outcome.attempts]
    assert [event.pid for event in told] == dead
    assert [(event.expected, event.fault.exit_code) for event in told if event.fault] == [(False, 7)] * 2
    assert not any(is_alive(pid) for pid in dead)
    assert not {worker.pid for worker in center.snapshot().workers} & {*dead}


@on_one_loop
async def test_a_death_among_tasks_charges_only_who_dies_alone(tmp_path: Path, new_gate: NewGate) -> None:
    """When a worker dies with several tasks running nobody is charged: each runs again alone."""
    neighbours = [new_gate() for _ in range(3)]
    jobs = [*(each.job for each in neighbours), Job("die", [str(tmp_path / "killer"), 99])]
    async with DataParallelDispatchCenter(AsyncActor, config=ONE) as center, center.stream(jobs) as outcomes:
        await until(lambda: len(lines(tmp_path / "killer")) >= 1)
        for each in neighbours:
            each.open()
        found = {outcome.index: outcome async for outcome in outcomes}
    assert [len(found[n].attempts) for n in range(3)] == [1, 1, 1]
    assert isinstance(found[3], Failed)
    assert [attempt.fault.cause for attempt in found[3].attempts] == ["crashed", "crashed"]


@on_both_loops
async def test_an_idle_worker_takes_over_what_a_busy_one_has_not_started(center: Any, gate: Gate) -> None:
    """Shards that were sent ahead behind a long one do not wait for it while another worker idles."""
    await center.run([Job(arg=n) for n in range(1000)])
    async with center.stream([*(Job(arg=n) for n in range(500)), gate.job, *[Job()] * 500]) as outcomes:
        assert len([await anext(outcomes) for _ in range(1000)]) == 1000
        gate.open()
        assert [outcome.index async for outcome in outcomes] == [500]


# Workers that cannot come up.


@on_both_loops
async def test_a_setup_that_raises_is_told_once(tmp_path: Path) -> None:
    """One StartupFailed with the worker's traceback; each worker tried once, and nothing is left."""
    before, log = descendants(), str(tmp_path / "log")
    center = DataParallelDispatchCenter(Broken, [1, 2, 3], shared_param=log, config=TWO)
    with pytest.raises(StartupFailed, match="the model is not there") as caught:
        await center.run()
    trace = str(caught.value.__cause__)
    assert 'raise RuntimeError("the model is not there")' in trace
    assert "/dispatch/" not in trace
    assert len(lines(log)) <= 2
    assert descendants() <= before


class Overtaken(DataParallelDispatchCenter[int, int]):
    """Its workers are reached through a relay."""

    faulty: FaultyChannel

    def make_engine(self) -> ProcessEngine:
        return ProcessEngine(relay=self.faulty)


@on_one_loop
async def test_an_end_waits_for_the_runners_last_words(tmp_path: Path) -> None:
    """A runner's death that is heard before its first word is told with that word: why, and not only how."""
    heard = anyio.Event()

    def judge(passing: Passing) -> Verdict:
        if passing.kind == "ended":
            heard.set()
        return Hold(heard) if (passing.role, passing.kind) == ("runner", "hi") else None

    async with FaultyChannel(judge) as faulty:
        center = Overtaken(Broken, [1], shared_param=str(tmp_path / "log"), config=ONE)
        center.faulty = faulty
        with pytest.raises(StartupFailed, match="the model is not there"):
            await center.run()
    assert heard.is_set()


GHOST = """
import os
from dispatch import Runner, Shard
if "GHOST" in os.environ:
    import a_driver_that_is_not_installed
class Ghost(Runner):
    def do_run(self, shard: Shard[int]) -> int:
        return shard.payload
"""


@on_one_loop
async def test_a_module_that_fails_in_the_worker_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    """What its import raised there, with its line; for a module that only the parent has, that it is missing."""
    (tmp_path / "ghost_of_a_module.py").write_text(GHOST)
    monkeypatch.syspath_prepend(str(tmp_path))
    import ghost_of_a_module

    config = DispatchConfig(data_parallel=1, env={"GHOST": "1"})
    with pytest.raises(StartupFailed, match="No module named 'a_driver_that_is_not_installed'") as caught:
        await DataParallelDispatchCenter(ghost_of_a_module.Ghost, [1], config=config).run()
    assert "import a_driver_that_is_not_installed" in str(caught.value.__cause__)
    assert (await DataParallelDispatchCenter(ghost_of_a_module.Ghost, [1], config=ONE).run()).values() == [1]

    made_up = ModuleType("made_up_in_the_parent")
    exec(GHOST, vars(made_up))
    monkeypatch.setitem(sys.modules, "made_up_in_the_parent", made_up)
    with pytest.raises(StartupFailed, match="No module named 'made_up_in_the_parent'"):
        await DataParallelDispatchCenter(made_up.Ghost, [1], config=ONE).run()


class Slow(Runner):
    """Is never ready."""

    def setup(self) -> None:
        """Wait for a device."""
        time.sleep(60)

    def do_run(self, shard: Shard[int]) -> int:
        """Never runs."""
        return shard.payload


@on_one_loop
async def test_a_setup_that_never_ends_is_ended() -> None:
    """After `startup_timeout` the worker is killed, and the error shows where it hung."""
    before = descendants()
    config = DispatchConfig(data_parallel=1, policy=Policy(startup_timeout=3.0))
    with pytest.raises(StartupFailed, match="not ready within startup_timeout") as caught:
        await DataParallelDispatchCenter(Slow, [1], config=config).run()
    assert "in setup" in str(caught.value.__cause__)
    assert descendants() <= before


class OnlyOnce(Runner):
    """Comes up once."""

    shared_param: str

    def setup(self) -> None:
        """The second time the licence is used up."""
        if mark(self.shared_param) > 1:
            raise PermissionError("no licence left")

    def do_run(self, shard: Shard[Job]) -> Any:
        """Work."""
        from tests.center.runners import work

        return work(shard.payload)


@on_one_loop
async def test_shards_fail_when_no_worker_is_left(tmp_path: Path) -> None:
    """What waits when the last worker cannot come up again fails with the reason; what was done stays done."""
    config = DispatchConfig(data_parallel=1)
    jobs = [Job(arg=1), Job("die", [str(tmp_path / "d"), 9]), Job(arg=3)]
    async with DataParallelDispatchCenter(
        OnlyOnce, shared_param=str(tmp_path / "log"), config=config
    ) as center:
        assert await center.submit(Job(arg=0)) == 0
        report = await center.run(jobs)
        assert report.counts == {"done": 1, "failed": 2, "startup": 2}
        assert "no licence left" in report.failures[1].fault.message
        with pytest.raises(StartupFailed, match="no licence left"):
            await center.submit(Job(arg=4))
        with pytest.raises(StartupFailed, match="no licence left"):
            await center.run([Job(arg=5)])
    assert len(lines(tmp_path / "log")) == 2


class Mixed(DispatchCenter[Any, Any]):
    """One class works, one cannot come up."""

    def init_runners(self) -> Sequence[type[Runner]]:
        """One of each."""
        return [Upper, Broken]

    def get_shared_param(self) -> str:
        """Where Broken counts."""
        return "/dev/null"

    @staticmethod
    def restore_shared_param(param: str) -> str:
        """The same."""
        return param


@on_one_loop
async def test_shards_of_a_class_that_cannot_come_up_fail() -> None:
    """They do not wait for ever beside another class that works, early ones or late ones."""
    shards = [Shard("a"), Shard(1, runner="Broken"), Shard("b", runner="Upper"), Shard(2, runner="Broken")]
    async with Mixed() as center:
        for _ in range(2):
            report = await center.run(shards)
            assert report.counts == {"done": 2, "failed": 2, "startup": 2}
            assert "the model is not there" in report.failures[0].fault.message
        with pytest.raises(StartupFailed, match="the model is not there"):
            await center.submit(Shard(3, runner="Broken"))


class Half(Runner):
    """The first worker of an opening comes up, the second one does not."""

    shared_param: str

    def setup(self) -> None:
        """Count, and fail the second time."""
        if mark(self.shared_param) > 1:
            raise RuntimeError("only one licence")

    def do_run(self, shard: Shard[int]) -> int:
        """Twice."""
        return 2 * shard.payload


@on_one_loop
async def test_a_worker_that_is_given_up_beside_others_is_told(tmp_path: Path, caplog: Any) -> None:
    """The others do its share; an error in the log and the event of its end have its own traceback."""
    told: list[WorkerEnded] = []
    async with DataParallelDispatchCenter(Half, shared_param=str(tmp_path / "log"), config=TWO) as center:
        center._opening.bus.join(lambda event: told.append(event) if isinstance(event, WorkerEnded) else None)
        await until(lambda: len(lines(tmp_path / "log")) == 2)
        assert await center.submit(2) == 4
        await until(lambda: "given up" in caplog.text)
        await until(lambda: sorted(worker.state for worker in center.snapshot().workers) == ["lost", "ready"])
    assert 'raise RuntimeError("only one licence")' in caplog.text
    assert [event.fault.message for event in told if event.fault] in ([], ["only one licence"])


# What workers say.


@on_both_loops
async def test_output_reaches_the_log_with_shard_and_worker(center: Any, caplog: Any) -> None:
    """What a runner prints is logged as `dispatch.runner`, tagged; the host's own output is not touched."""
    with caplog.at_level(logging.INFO, "dispatch.runner"):
        await center.submit(Shard(Job("print", "hello from there"), id="talker"))
    [record] = [record for record in caplog.records if record.name == "dispatch.runner"]
    assert record.getMessage() == "hello from there"
    assert record.dispatch_shard == "talker"
    assert record.dispatch_worker in {worker.pid for worker in center.snapshot().workers}


@on_one_loop
async def test_a_worker_is_replaced_after_its_share(tmp_path: Path) -> None:
    """With `recycle_after=20` another process takes over once it is ready, and nobody is charged for that."""
    config = DispatchConfig(data_parallel=1, policy=Policy(recycle_after=20))
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        pids: list[int] = []
        async with asyncio.timeout(20):
            while len(set(pids)) < 3:
                outcome = await center.submit_outcome(Job("pid"))
                assert len(outcome.attempts) == 1
                pids.append(outcome.unwrap())
    assert pids.count(pids[0]) >= 20


class NeverLeaves(Actor):
    """Its teardown does not end."""

    def teardown(self) -> None:
        """Hang."""
        time.sleep(600)


@on_one_loop
async def test_a_replaced_worker_that_does_not_leave_is_ended() -> None:
    """Its `teardown` has `grace` seconds, while its successor serves."""
    config = DispatchConfig(data_parallel=1, policy=Policy(recycle_after=5, grace=0.2))
    async with DataParallelDispatchCenter(NeverLeaves, config=config) as center:
        first = await center.submit(Job("pid"))
        async with asyncio.timeout(20):
            while await center.submit(Job("pid")) == first:
                pass
        await until(lambda: not is_alive(first))


async def prints_much_and_fails(number: int) -> None:
    """More than is kept, last words, and an error."""
    print("x" * 100_000)
    print("last words")
    raise ValueError(number)


@on_one_loop
async def test_last_words_in_the_async_lane_are_kept() -> None:
    """The end of what a task printed is attached to its fault, however much came before."""
    async with DataParallelDispatchCenter(prints_much_and_fails, config=ONE) as center:
        outcome = await center.submit_outcome(1)
    assert isinstance(outcome, Failed)
    assert outcome.fault.output.endswith("last words\n")
    assert len(outcome.fault.output) <= 8 * 1024


class SharesLate(DataParallelDispatchCenter[int, int]):
    """Has its shared param when a worker process is there."""

    def __init__(self, before: set[int]) -> None:
        super().__init__(double, config=ONE)
        self._before = before

    async def get_shared_param(self) -> None:
        """Wait for it."""
        await until(lambda: descendants() - self._before)


@on_both_loops
async def test_processes_boot_while_the_shared_param_is_made() -> None:
    """A worker process is started before the centre asks for its shared param."""
    async with SharesLate(descendants()) as center:
        assert await center.submit(4) == 8


@on_one_loop
async def test_random_numbers_belong_to_the_shard() -> None:
    """`shard.rng` follows from seed and id, else from seed and content; not from worker, order or attempt."""

    async def draw(seed: int, jobs: list[Any]) -> list[float]:
        config = DispatchConfig(data_parallel=2, seed=seed)
        report = await DataParallelDispatchCenter(Actor, jobs, config=config).run()
        return [seen["random"] for seen in report.values()]

    jobs = [Shard(Job("seen", n), id=f"q{n}") for n in range(10)]
    plain = [Job("seen", n) for n in range(10)]
    first = await draw(1, [*jobs, *plain])
    again = (await draw(1, [*plain, *jobs][::-1]))[::-1]
    assert len(set(first)) == 20
    assert first == [*again[10:], *again[:10]]
    assert not {*first} & {*await draw(2, [*jobs, *plain])}


@pytest.mark.asyncio
async def test_a_function_of_two_is_given_the_shared_param() -> None:
    """`fn(payload, shared_param)`; one with a default for its second is called with the payload alone."""
    from tests.center.runners import add_shared

    assert (await DataParallelDispatchCenter(add_shared, [1], shared_param=5, config=ONE).run()).values() == [
        6
    ]
    assert (await DataParallelDispatchCenter(double, [1], shared_param=5, config=ONE).run()).values() == [2]
