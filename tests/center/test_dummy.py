"""A centre that executes nothing, and says what a run would do."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dispatch import (
    Cancelled,
    CenterClosed,
    DispatchConfig,
    DummyDispatchCenter,
    Report,
    RunnerError,
    Shard,
)
from tests.center.facts import descendants, on_both_loops, on_one_loop
from tests.center.runners import Actor, Job, add_shared, double, lines


@on_both_loops
async def test_every_outcome_is_cancelled_and_the_plan_is_full(tmp_path: Path) -> None:
    """Nothing runs and nothing starts; the plan has each shard's id, size and digest."""
    before = descendants()
    log = str(tmp_path / "log")
    shards = [Shard(Job("raise until", [log, 1]), id="one"), Job(arg=2), Job(arg=2)]
    report = await DummyDispatchCenter(Actor, shards, config=DispatchConfig(data_parallel=3)).run()
    assert [type(outcome) for outcome in report] == [Cancelled] * 3
    assert report.counts == {"cancelled": 3}
    assert (report.total, report.total_known, report.coverage) == (3, True, 0.0)
    assert [outcome.payload for outcome in report] == [shards[0].payload, *shards[1:]]
    assert report.plan is not None
    assert report.plan.runners == ("Actor", "Actor", "Actor")
    assert report.plan.shared_param_bytes is None
    one, two, three = report.plan.shards
    assert (one.id, two.id, three.id) == ("one", "1", "2")
    assert two.size == len(msgspec.msgpack.encode(Job(arg=2)))
    assert two.digest == three.digest != one.digest
    assert report.plan.problems == []
    assert not lines(log)
    assert descendants() <= before


@on_one_loop
async def test_the_plan_tells_what_would_fail() -> None:
    """Payloads that do not encode or fit, ids that are not unique, fields that make no sense; each by its shard."""
    shards = [
        Job(arg=object()),
        {"do": 17},
        Shard(Job(), id="same"),
        Shard(Job(), id="same"),
        Shard(Job(), timeout=-1),
        Shard(Job(), runner="Nobody"),
        Job(arg="x" * 2000),
        Job(arg=1),
    ]
    config = DispatchConfig(data_parallel=1, max_value_bytes=1000)
    report = await DummyDispatchCenter(Actor, shards, config=config).run()
    assert report.plan is not None
    told = {shard.id: shard.problem for shard in report.plan.problems}
    assert list(told) == ["0", "1", "same", "4", "5", "6"]
    assert "object at $.arg" in told["0"]
    assert "payload does not fit Job" in told["1"]
    assert told["same"] == "another shard has this id"
    assert told["4"] == "its timeout is -1"
    assert told["5"] == "no runner is called Nobody"
    assert "over max_value_bytes=1000" in told["6"]


@on_one_loop
async def test_with_a_work_dir_the_plan_is_a_file(tmp_path: Path) -> None:
    """plan.json, whole or not at all, with the shared param's size."""
    config = DispatchConfig(data_parallel=2, work_dir=str(tmp_path / "work"))
    report = await DummyDispatchCenter(add_shared, range(5), shared_param=7, config=config).run()
    plan = json.loads((tmp_path / "work" / "plan.json").read_text())
    assert os.listdir(tmp_path / "work") == ["plan.json"]
    assert plan["runners"] == ["add_shared", "add_shared"]
    assert plan["shared_param_bytes"] == 1
    assert plan["shards"] == msgspec.to_builtins(report.plan)["shards"]
    assert len(plan["shards"]) == 5


@on_both_loops
async def test_it_takes_what_a_centre_takes() -> None:
    """Async sources, `run(shards)`, `stream`, `async with`; a centre's own methods are called."""

    class Told(DummyDispatchCenter[int, int]):
        runner = double

        async def get_shared_param(self) -> list[int]:
            await asyncio.sleep(0)
            return [1, 2, 3]

        async def iter_shards(self) -> AsyncIterator[int]:  # type: ignore[override]  # an async generator
            for n in range(4):
                yield n

        async def post_process(self, report: Report[int]) -> None:
            self.report = report

    center = Told(config=DispatchConfig(data_parallel=1))
    report = await center.run()
    assert center.report is report
    assert report.plan is not None
    assert (report.total, report.plan.shared_param_bytes) == (4, 4)
    async with center, center.stream(range(3), ordered=True) as outcomes:
        assert [type(outcome) async for outcome in outcomes] == [Cancelled] * 3
    assert (await center.run(range(2), collect=False)).outcomes == []


@pytest.mark.asyncio
async def test_it_submits_nothing() -> None:
    """`submit` raises, and says that this centre executes nothing."""
    async with DummyDispatchCenter(double) as center:
        with pytest.raises(CenterClosed, match="a dummy centre, which executes nothing"):
            await center.submit(1)
        with pytest.raises(CenterClosed, match="a dummy centre, which executes nothing"):
            await center.submit_outcome(1)


@pytest.mark.asyncio
async def test_it_checks_what_the_real_run_would() -> None:
    """A runner that workers could not import is refused here too: that is what a plan is for."""
    with pytest.raises(RunnerError, match="a lambda has no name"):
        await DummyDispatchCenter(lambda x: x, [1]).run()
    with pytest.raises(RunnerError, match="a lambda has no name"):
        await DummyDispatchCenter(lambda x: x, [1]).open()


def test_it_would_start_as_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `data_parallel` one for each usable CPU."""
    monkeypatch.setattr("dispatch.center.data_parallel.usable_cpus", lambda: 5)
    report: Report[Any] = asyncio.run(DummyDispatchCenter(double, []).run())
    assert report.plan is not None
    assert report.plan.runners == ("double",) * 5
