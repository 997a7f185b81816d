"""Plain functions, without writing a class."""

from typing import Any

import pytest

import dispatch
from dispatch import (
    Cancelled,
    DispatchConfig,
    Done,
    Failed,
    Policy,
    RemoteError,
    RunnerError,
    Shard,
    ShardCancelled,
    Undeliverable,
    WorkerDied,
)
from tests.center.facts import Gate, descendants, on_both_loops, on_one_loop
from tests.center.runners import Job, Upper, add_shared, double, double_later, endless, work

ONE = DispatchConfig(data_parallel=1)
LOCAL = DispatchConfig(runner_type="local")


@on_both_loops
@pytest.mark.parametrize("config", [ONE, LOCAL], ids=["processes", "local"])
@pytest.mark.parametrize("fn", [double, double_later])
async def test_map_gives_values_in_input_order(fn: Any, config: DispatchConfig) -> None:
    """Of a sync or an async function, over any iterable, on the engine that the configuration names."""
    assert await dispatch.map(fn, iter(range(100)), config=config) == [2 * n for n in range(100)]


@on_one_loop
async def test_map_takes_a_shared_param_and_a_runner() -> None:
    """A function of two gets the shared param; a Runner class stands where a function does."""
    assert await dispatch.map(add_shared, [1, 2], shared_param=10, config=ONE) == [11, 12]
    assert await dispatch.map(Upper, ["a", "b"], config=ONE) == ["A", "B"]
    assert await dispatch.map(double, [], config=ONE) == []


@on_both_loops
async def test_map_raises_a_group_of_all_failures() -> None:
    """Each in its own type, after everything ran."""
    jobs = [
        Job(arg=0),
        Job("raise", "one"),
        Job("no such job"),
        Job(arg=object()),
        Job("die", ["/dev/null", 9]),
        Job(arg=5),
    ]
    with pytest.raises(ExceptionGroup, match="4 of 6 shards have no value") as caught:
        await dispatch.map(work, jobs, config=DispatchConfig(data_parallel=1, policy=Policy(crash_budget=1)))
    kinds = [type(error) for error in caught.value.exceptions]
    assert kinds == [ValueError, KeyError, Undeliverable, WorkerDied]
    assert "raise ValueError(message)" in str(caught.value.exceptions[0].__cause__)


@on_one_loop
async def test_map_gives_outcomes_if_asked() -> None:
    """`return_outcomes=True` raises nothing that a shard did."""
    outcomes = await dispatch.map(work, [Job(arg=1), Job("raise", "two")], config=ONE, return_outcomes=True)
    assert [type(outcome) for outcome in outcomes] == [Done, Failed]


@on_one_loop
async def test_what_map_stops_is_an_error_too(gate: Gate) -> None:
    """Shards that `max_failures` cancelled are in the group: no value is missing in silence."""
    config = DispatchConfig(data_parallel=1, policy=Policy(max_failures=1))
    with pytest.raises(ExceptionGroup) as caught:
        await dispatch.map(work, [Job("raise", "first"), *[gate.job] * 3], config=config)
    first, *rest = caught.value.exceptions
    assert isinstance(first, ValueError)
    assert [type(error) for error in rest] == [ShardCancelled] * 3


@on_one_loop
async def test_under_fork_nothing_is_rebuilt() -> None:
    """`isolation="fork"`: what a misbehaving shard raised comes back as RemoteError."""
    config = DispatchConfig(data_parallel=1, policy=Policy(isolation="fork"))
    with pytest.raises(ExceptionGroup) as caught:
        await dispatch.map(work, [Job("raise", "one")], config=config)
    [error] = caught.value.exceptions
    assert type(error) is RemoteError
    assert "ValueError: one" in str(error)


@on_both_loops
async def test_stream_of_a_function() -> None:
    """Outcomes as they come, or in order; an endless source may be left."""
    before = descendants()
    async with dispatch.stream(double, endless(), config=ONE, ordered=True) as outcomes:
        assert [(await anext(outcomes)).unwrap() for _ in range(10)] == list(range(0, 20, 2))
    async with dispatch.stream(add_shared, [1, 2, 3], shared_param=1, config=ONE) as outcomes:
        assert sorted([outcome.unwrap() async for outcome in outcomes]) == [2, 3, 4]
    assert descendants() <= before


@on_one_loop
async def test_shards_may_say_more_than_a_payload() -> None:
    """`Shard(payload, id=...)` in the place of a payload."""
    outcomes = await dispatch.map(double, [Shard(4, id="four")], config=ONE, return_outcomes=True)
    assert [(outcome.shard_id, outcome.unwrap()) for outcome in outcomes] == [("four", 8)]


@pytest.mark.asyncio
async def test_a_lambda_is_refused_where_workers_must_import_it() -> None:
    """In processes; in this process it runs."""
    with pytest.raises(RunnerError, match="a lambda has no name that workers could import"):
        await dispatch.map(lambda x: x, [1], config=ONE)
    assert await dispatch.map(lambda x: x + 1, [1, 2], config=LOCAL) == [2, 3]


@pytest.mark.asyncio
async def test_the_dummy_runs_no_function() -> None:
    """`runner_type="dummy"` gives Cancelled outcomes."""
    config = DispatchConfig(runner_type="dummy")
    outcomes = await dispatch.map(double, [1, 2], config=config, return_outcomes=True)
    assert [type(outcome) for outcome in outcomes] == [Cancelled, Cancelled]
