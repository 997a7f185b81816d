"""One suite over every centre: what the doors promise. Each promise is a function of dispatch.testing."""

import msgspec
import pytest

from dispatch import (
    Cancelled,
    CenterClosed,
    DataParallelDispatchCenter,
    DispatchConfig,
    DummyDispatchCenter,
    LocalDispatchCenter,
)
from dispatch.testing import (
    CENTER_PROMISES,
    AsyncScriptedRunner,
    Rehearsal,
    ScriptedRunner,
    Succeed,
    check_center,
    leaves_nothing,
    play,
)
from tests.contract.centers import InProcesses, InThreads

ids = {"ids": lambda item: item.__name__}
all_promises = pytest.mark.parametrize("promise", CENTER_PROMISES, **ids)
BY_THE_LANE = {
    "each_shard_has_one_outcome",
    "faults_cost_themselves_only",
    "doors_are_apart",
    "leaving_early_leaves_nothing",
    "closing_finishes_what_was_accepted",
    "draining_starts_nothing_new",
}
IN_FORKS = {
    "each_shard_has_one_outcome",
    "faults_cost_themselves_only",
    "runners_steer_their_retries",
    "leaving_early_leaves_nothing",
    "draining_starts_nothing_new",
}
our_centers = pytest.mark.parametrize("center", [LocalDispatchCenter, DataParallelDispatchCenter], **ids)


@pytest.mark.asyncio
@pytest.mark.both_loops
@all_promises
@our_centers
async def test_a_centre_keeps_its_promise(center, promise) -> None:
    """Every centre of ours keeps every promise of a centre, on either event loop."""
    await check_center(center, promises=[promise])


@pytest.mark.asyncio
@all_promises
async def test_a_centre_of_async_runners_keeps_its_promise(promise) -> None:
    """The same with an async runner, several shards at once."""
    await check_center(LocalDispatchCenter, runner=AsyncScriptedRunner, promises=[promise])


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("promise", [each for each in CENTER_PROMISES if each.__name__ in BY_THE_LANE], **ids)
async def test_async_runners_in_processes_keep_what_the_lane_must(promise) -> None:
    """The same in processes: what an async lane does otherwise than a sync one."""
    await check_center(DataParallelDispatchCenter, runner=AsyncScriptedRunner, promises=[promise])


def forking(runner, shards, config):
    """A centre that runs each shard in a fork."""
    policy = msgspec.structs.replace(config.policy, isolation="fork")
    return DataParallelDispatchCenter(runner, shards, config=msgspec.structs.replace(config, policy=policy))


@pytest.mark.asyncio
@pytest.mark.parametrize("promise", [each for each in CENTER_PROMISES if each.__name__ in IN_FORKS], **ids)
async def test_a_fork_for_each_shard_breaks_no_promise(promise) -> None:
    """The same under isolation="fork", but for what it says itself: other exceptions, other processes."""
    await check_center(forking, promises=[promise])


@pytest.mark.asyncio
@all_promises
async def test_a_strangers_centre_keeps_the_promises(promise) -> None:
    """A centre that says only what a centre must say keeps every promise."""
    await check_center(InThreads, promises=[promise])


@pytest.mark.asyncio
@pytest.mark.parametrize("promise", CENTER_PROMISES[::4], **ids)
async def test_a_strangers_centre_in_processes_is_no_different(promise) -> None:
    """The same in processes, where workers import the centre for its shared param."""
    await check_center(InProcesses, promises=[promise])


@pytest.mark.asyncio
async def test_a_dummy_centre_promises_a_plan() -> None:
    """The dummy centre starts nothing; every outcome is Cancelled, and its plan holds every shard and what is wrong."""
    scripts = [play(Succeed("x" * n)) for n in range(5)] + [play(Succeed(object()))]
    config = DispatchConfig(data_parallel=3)
    async with leaves_nothing():
        center = DummyDispatchCenter(ScriptedRunner, scripts, shared_param=Rehearsal(), config=config)
        report = await center.run()
        with pytest.raises(CenterClosed, match="dummy"):
            await center.submit(scripts[0])
    assert [type(outcome) for outcome in report] == [Cancelled] * 6
    assert report.counts == {"cancelled": 6}
    plan = report.plan
    assert plan.runners == ("ScriptedRunner",) * 3
    assert plan.shared_param_bytes > 0
    assert [shard.id for shard in plan.shards] == list("012345")
    sizes = [shard.size for shard in plan.shards[:5]]
    assert sizes == list(range(sizes[0], sizes[0] + 5))
    assert len({shard.digest for shard in plan.shards}) == 6
    assert [shard.id for shard in plan.problems] == ["5"]
    assert "object" in plan.problems[0].problem
