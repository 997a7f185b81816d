"""A user's centre on the engine of another one: its methods stay, and `super()` finds its way."""

import asyncio
import os
from typing import Any

import pytest

from dispatch import (
    DataParallelDispatchCenter,
    DispatchCenter,
    DispatchConfig,
    DummyDispatchCenter,
    LocalDispatchCenter,
    Report,
    Runner,
    Shard,
    remote,
)
from dispatch.center.rebased import rebased
from dispatch.engines.inline import InlineEngine
from dispatch.engines.process import ProcessEngine


class Asker(Runner[Any]):
    """Adds what its centre says and what is shared, and tells where it ran."""

    def do_run(self, shard: Shard[int]) -> tuple[int, int]:
        return shard.payload + self.center.more() + self.shared_param, os.getpid()


class Mixed:
    """A mixin that knows nothing of centres."""

    def note(self) -> str:
        return "mixed"


class Mine(Mixed, DataParallelDispatchCenter[int, tuple[int, int]]):
    """Overrides what it can, and calls what it overrides."""

    runner = Asker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = 0

    def get_shared_param(self) -> int:
        return 100

    @staticmethod
    def restore_shared_param(param: int) -> int:
        return param * 10

    @remote
    async def more(self) -> int:
        return 10

    async def post_process(self, report: Report[tuple[int, int]]) -> None:
        await super().post_process(report)
        self.seen = report.total


class LocalMine(LocalDispatchCenter[int, tuple[int, int]]):
    """Begins as a local one."""

    runner = Asker

    def get_shared_param(self) -> int:
        return 1

    @remote
    async def more(self) -> int:
        return 2


def config(kind: str) -> DispatchConfig:
    """Two workers of a kind of centre."""
    return DispatchConfig(runner_type=kind, data_parallel=2)


def test_a_rebased_centre_is_of_both_classes() -> None:
    """What `init` makes is an instance of the subclass and of the centre that the configuration names."""
    center = Mine.init(config("local"))
    assert isinstance(center, Mine)
    assert isinstance(center, LocalDispatchCenter)
    assert center.note() == "mixed"
    assert type(center).__qualname__ == "Mine"


def test_a_rebased_centre_runs_on_the_engine_it_was_put_on() -> None:
    """Its number of workers and its engine are the named centre's, in both directions."""
    assert len(Mine.init(config("local")).init_runners()) == 1
    assert isinstance(Mine.init(config("local")).make_engine(), InlineEngine)
    assert len(LocalMine.init(config("data_parallel")).init_runners()) == 2
    assert isinstance(LocalMine.init(config("data_parallel")).make_engine(), ProcessEngine)


def test_nothing_is_rebased_without_need() -> None:
    """A class that is of the named kind is taken as it is; one of ours gives way to the named one."""
    assert type(Mine.init(config("data_parallel"))) is Mine
    assert type(DispatchCenter.init(config("dummy"))) is DummyDispatchCenter
    assert type(DataParallelDispatchCenter.init(config("local"))) is LocalDispatchCenter
    assert rebased(Mine, type("Registered", (Mine,), {})).__name__ == "Registered"


@pytest.mark.parametrize("kind", ["local", "data_parallel"])
def test_a_rebased_centre_keeps_its_methods(kind: str) -> None:
    """Its constructor, shared param, remote methods and post_process are its own on every engine."""
    center = Mine.init(config(kind), shards=[1, 2])
    report = asyncio.run(center.run())
    assert [number for number, _ in report.values()] == [1011, 1012]
    assert {pid == os.getpid() for _, pid in report.values()} == {kind == "local"}
    assert center.seen == 2


def test_a_local_centre_is_rebased_onto_processes() -> None:
    """A subclass of the local centre runs in other processes when the configuration says so."""
    report = asyncio.run(LocalMine.init(config("data_parallel"), shards=[1]).run())
    ((number, pid),) = report.values()
    assert number == 4
    assert pid != os.getpid()


def test_a_rebased_dummy_executes_nothing() -> None:
    """Put on the dummy, a centre plans its shards, and its post_process still hears of them."""
    center = Mine.init(config("dummy"), shards=[1, 2, 3])
    report = asyncio.run(center.run())
    assert report.counts == {"cancelled": 3}
    assert center.seen == 3
