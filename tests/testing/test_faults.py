"""The faulty channel, and what a centre makes of the damage: every shard keeps its one outcome."""

import anyio
import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig, Done, Policy
from dispatch.engines import process
from dispatch.engines.process import ProcessEngine
from dispatch.testing import (
    Corrupt,
    Delay,
    Drop,
    FaultyChannel,
    Hold,
    ScriptedRunner,
    Sleep,
    Succeed,
    Truncate,
    leaves_nothing,
    once,
    play,
    until,
)
from dispatch.testing.stage import on_stage
from dispatch.wire import frames

pytestmark = pytest.mark.asyncio


class Damaged(DataParallelDispatchCenter):
    """A centre whose workers it reaches through a faulty channel."""

    faulty: FaultyChannel

    def make_engine(self) -> ProcessEngine:
        return ProcessEngine(relay=self.faulty)


async def run_through(judge, *, number=200, **policy):
    """The report of a run of many short shards through a channel with this judge."""
    async with leaves_nothing(), FaultyChannel(judge) as faulty:
        scripts = [play(Sleep(0.001), Succeed(n)) for n in range(number)]
        center = Damaged(
            ScriptedRunner, scripts, config=DispatchConfig(data_parallel=2, policy=Policy(**policy))
        )
        center.faulty = faulty
        with anyio.fail_after(30):
            report = await center.run()
    return report


DAMAGE = {
    "half of some results": once("results", Truncate(), number=3),
    "an end before some results": once("results", Truncate(share=0), number=3),
    "results that are no results": once("results", Corrupt(), number=3),
    "half of some work": once("work", Truncate(), number=3),
    "work that is no work": once("work", Corrupt(), number=3),
    "a late frame": once("results", Delay(0.3), number=3),
    "half a hello": once("hi", Truncate(), number=0),
    "half a readiness": once("ready", Truncate()),
    "a launch that is none": once("launch", Corrupt()),
    "a nanny's nonsense": once("pulse", Corrupt()),
    "an end in the control line": once("pulse", Truncate(share=0)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_costs_no_outcome(damage) -> None:
    """Whatever happens to one frame, every shard is Done with its own value, and the run ends."""
    report = await run_through(DAMAGE[damage], crash_budget=3)
    assert [type(outcome) for outcome in report] == [Done] * 200
    assert report.values() == list(range(200))


async def test_an_end_that_is_not_told_is_noticed(monkeypatch) -> None:
    """If a nanny's last word is lost, its silence tells, and the worker lives again."""
    monkeypatch.setattr(process, "SILENCE", 0.5)
    damage = iter([once("results", Truncate()), once("ended", Drop())])
    first, second = next(damage), next(damage)
    report = await run_through(lambda passing: first(passing) or second(passing), crash_budget=3)
    assert report.values() == list(range(200))


async def test_a_frame_that_is_dropped_is_lost_alone() -> None:
    """What comes after a dropped frame arrives; the relay counts what came by."""
    async with FaultyChannel(once("results", Drop())) as faulty:
        async with on_stage(lambda: ProcessEngine(relay=faulty)) as stage:
            stage.start()
            await stage.ready()
            for value in ("lost", "found"):
                stage.give(play(Succeed(value)))
                await until(lambda: faulty.passed["results"] >= 1)
            await stage.see(stage.host.done, "the second outcome was lost, too")
            assert [value for _, value in stage.host.done()] == ["found"]
        assert faulty.passed["results"] == 2


async def test_a_frame_that_is_held_holds_up_those_behind_it() -> None:
    """A held frame, and all behind it in its direction, wait for the event; then they arrive in order."""
    released = anyio.Event()
    faulty = FaultyChannel(once("results", Hold(released)))
    async with faulty, on_stage(lambda: ProcessEngine(relay=faulty)) as stage:
        stage.start()
        await stage.ready()
        stage.give(play(Succeed(1)))
        assert await until(lambda: faulty.passed["results"] == 1)
        stage.give(play(Succeed(2)))
        stage.engine.fence(0, 1)  # the nanny's line is another one
        await stage.see(lambda: stage.host.all(frames.Fenced), "the other connection was held up, too")
        assert not stage.host.done()
        released.set()
        await stage.see(lambda: len(stage.host.done()) == 2, "what was held did not arrive")
        assert [value for _, value in stage.host.done()] == [1, 2]


async def test_a_judge_sees_every_frame_and_whose_it_is() -> None:
    """A judge is told role, worker, direction, kind and number of each frame, and its bytes."""
    seen = []
    async with FaultyChannel(seen.append) as faulty, on_stage(lambda: ProcessEngine(relay=faulty)) as stage:
        stage.start(3)
        await stage.ready(3)
        for value in (1, 2):
            stage.give(play(Succeed(value)), worker=3)
            await stage.see(lambda: len(stage.host.done(3)) == value, "no outcome")  # noqa: B023
        stage.engine.send(3, frames.Bye())
        await stage.see_end(3)
    told = [(each.role, each.direction, each.kind, each.number) for each in seen if each.kind != "pulse"]
    runner = [each[1:] for each in told if each[0] == "runner"]
    nanny = [each[1:] for each in told if each[0] == "nanny"]
    assert runner == [
        ("to_center", "hi", 0),
        ("to_center", "ready", 0),
        ("to_worker", "work", 0),
        ("to_center", "results", 0),
        ("to_worker", "work", 1),
        ("to_center", "results", 1),
        ("to_worker", "bye", 0),
    ]
    assert nanny[:3] == [("to_center", "hi", 0), ("to_center", "welcome", 0), ("to_worker", "launch", 0)]
    assert ("to_center", "ended", 0) in nanny
    assert {each.worker for each in seen} == {3}
    assert all(isinstance(each.body, bytes) for each in seen)


async def test_a_judge_that_raises_is_heard() -> None:
    """What a judge raises ends its connection, and comes out where the channel is closed."""

    def judge(passing):
        if passing.kind == "results":
            raise LookupError("the judge is ill")

    with pytest.raises(LookupError, match="ill"):
        async with FaultyChannel(judge) as faulty, on_stage(lambda: ProcessEngine(relay=faulty)) as stage:
            stage.start()
            await stage.ready()
            stage.give(play(Succeed()))
            await stage.see_end()


async def test_a_channel_that_was_never_used_closes() -> None:
    """A channel that no engine asked for anything has nothing to close."""
    async with leaves_nothing(), FaultyChannel(lambda passing: None):
        pass
