"""The async lane, one frame at a time. Deadlines and deaths stand in tests/faults."""

import msgspec
import pytest
from msgspec import Raw

from dispatch.engines.inline import InlineEngine
from dispatch.engines.process import ProcessEngine
from dispatch.testing import AsyncScriptedRunner, Hang, Raise, Succeed, Touch, WaitFor, play
from dispatch.testing.stage import on_stage
from dispatch.wire import frames
from dispatch.wire.codec import encode
from tests.worker import lanes
from tests.worker.test_sync_lane import give, settled, start

pytestmark = pytest.mark.asyncio


async def test_as_many_run_at_once_as_it_says() -> None:
    """Four shards of a runner with concurrency 4 run together, and the fifth waits for a place."""
    async with on_stage(InlineEngine) as stage:
        stage.start(runner=AsyncScriptedRunner)
        await stage.ready()
        told = stage.host.all(frames.Ready)[0]
        assert (told.concurrency, told.several) == (4, True)
        first = stage.give(
            *[play(Touch(stage.path(f"began{n}")), WaitFor(stage.gate), Succeed(n)) for n in range(5)]
        )
        for n in range(4):
            await stage.see_file(f"began{n}")
        assert not stage.exists("began4")
        stage.open_gate()
        await settled(stage, 5)
        assert sorted(stage.host.done()) == [(first + n, n) for n in range(5)]


async def test_an_error_is_its_own() -> None:
    """A shard that raises, SystemExit included, does not touch its neighbours."""
    async with on_stage(InlineEngine) as stage:
        stage.start(runner=AsyncScriptedRunner)
        await stage.ready()
        waits = stage.give(play(WaitFor(stage.gate), Succeed("neighbour")))
        bad = stage.give(play(Raise()), play(Raise("SystemExit", [3])), play(Raise("KeyboardInterrupt", [])))
        await settled(stage, 3)
        assert sorted(stage.host.failed()) == [bad, bad + 1, bad + 2]
        stage.open_gate()
        await settled(stage, 4)
        assert stage.host.done() == [(waits, "neighbour")]


async def test_what_is_withdrawn_comes_back() -> None:
    """Attempts that wait come back; those that run are cancelled first, or go on if only waiting ones are meant."""
    async with on_stage(InlineEngine) as stage:
        stage.start(runner=AsyncScriptedRunner)
        await stage.ready()
        scripts = [play(Touch(stage.path(f"began{n}")), WaitFor(stage.gate), Succeed(n)) for n in range(6)]
        first = stage.give(*scripts)
        for n in range(4):
            await stage.see_file(f"began{n}")
        every = list(range(first, first + 6))
        stage.engine.send(0, frames.Withdraw(every, waiting=True))
        await stage.see(lambda: stage.host.all(frames.Back), "nothing came back")
        assert stage.host.all(frames.Back)[0].seqs == every[4:]
        stage.engine.send(0, frames.Withdraw(every[:2]))
        await stage.see(lambda: len(stage.host.all(frames.Back)) == 3, "the running ones did not come back")
        assert sorted(seq for frame in stage.host.all(frames.Back)[1:] for seq in frame.seqs) == every[:2]
        stage.open_gate()
        await settled(stage, 2)
        assert sorted(stage.host.done()) == [(first + 2, 2), (first + 3, 3)]


async def test_a_deadline_shows_where_the_task_waited() -> None:
    """A shard over its timeout fails with its await chain, and its neighbour goes on."""
    async with on_stage(InlineEngine) as stage:
        stage.start(runner=AsyncScriptedRunner)
        await stage.ready()
        stage.give(play(WaitFor(stage.gate), Succeed("neighbour")))
        late = stage.give(play(Hang()), timeout=0.1)
        await settled(stage, 1)
        [fail] = stage.host.all(frames.Fail)
        assert (fail.seq, fail.fault.cause) == (late, "timed_out")
        assert "in do_run" in fail.fault.stack
        assert "/dispatch/worker/" not in fail.fault.stack
        stage.open_gate()
        await settled(stage, 2)


async def test_a_shard_begins_with_a_context_of_its_own() -> None:
    """What one shard sets in its context is not there for the next one; what setup set is."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Contexts)
        await stage.ready()
        give(stage, "one", "two", "three")
        await settled(stage, 3)
        assert [value for _, value in stage.host.done()] == ["setup"] * 3


async def test_answers_find_their_tasks() -> None:
    """Many questions may be open at once, and be answered in any order."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.AsksLater)
        await stage.ready()
        first = give(stage, *range(8))
        await stage.see(lambda: len(stage.host.all(frames.Call)) == 8, "questions are missing")
        for call in reversed(stage.host.all(frames.Call)):
            [number] = msgspec.msgpack.decode(call.args)
            stage.engine.send(0, frames.Answer(call.call, Raw(encode(lanes.Number(2 * number)))))
        await settled(stage, 8)
        assert sorted(stage.host.done()) == [(first + n, 2 * n) for n in range(8)]


async def test_prints_are_told_apart() -> None:
    """What tasks print in turn is told with the shard of each."""
    async with on_stage(ProcessEngine) as stage:
        start(stage, lanes.PrintsInTurn)
        await stage.ready()
        first = give(stage, "a", "b")
        await settled(stage, 2)
        told = sorted((frame.seq, frame.text) for frame in stage.host.all(frames.Output))
    assert told == [(first, "a\n" * 3), (first + 1, "b\n" * 3)]


async def test_bye_waits_for_what_runs(tmp_path) -> None:
    """After Bye the running shards finish, then teardown runs, then the life ends by itself."""
    path = tmp_path / "will"
    async with on_stage(ProcessEngine) as stage:
        start(stage, lanes.LastWill)
        await stage.ready()
        give(stage, str(path), str(path), str(path))
        stage.engine.send(0, frames.Bye())
        ended = await stage.see_end()
        assert [value for _, value in stage.host.done()] == ["done"] * 3
    assert (ended.exit_code, ended.why) == (0, "")
    assert path.read_text() == "torn down"
