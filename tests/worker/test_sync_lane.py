"""The sync lane, one frame at a time: on a thread of this process where that is enough, else in a worker."""

import os

import pytest
from msgspec import Raw

from dispatch.engines.base import Start
from dispatch.engines.inline import InlineEngine
from dispatch.engines.process import ProcessEngine
from dispatch.terms.shard import shard_rng
from dispatch.testing import Print, Raise, ScriptedRunner, Sleep, Succeed, play
from dispatch.testing.stage import on_stage
from dispatch.wire import frames
from dispatch.wire.codec import encode
from dispatch.worker.runner import reference
from dispatch.worker.spec import Lease
from tests.worker import lanes

pytestmark = pytest.mark.asyncio


def start(stage, runner, *, limit=1_000_000):
    """Launch a worker of a runner that plays no scripts."""
    lease = Lease(runner=reference(runner), limit=limit, seed=7)
    stage.engine.launch(Start(number=0, lease=lease, targets=(runner, None), env={}, startup_timeout=30.0))


def give(stage, *payloads, **rare):
    """Send payloads in one frame; the seq of the first."""
    first, stage.seq = stage.seq, stage.seq + len(payloads)
    timeout = rare.pop("timeout", None)
    work = frames.Work(first, timeout, [10 + n for n in range(len(payloads))], **rare)
    stage.engine.send_work(0, work, [encode(payload) for payload in payloads])
    return first


async def settled(stage, number):
    """Wait until so many shards are done or failed."""
    await stage.see(lambda: len(stage.host.done()) + len(stage.host.failed()) >= number, "shards are missing")


async def test_a_shard_knows_itself() -> None:
    """Id, index, attempt and timeout come from the frame; random numbers from seed and id, else seed and content."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Looks)
        await stage.ready()
        give(stage, "a", "b", ids={1: "named"}, attempts={1: 3}, timeouts={1: 2.5}, timeout=9.0)
        await settled(stage, 2)
        plain, rare = (value for _, value in stage.host.done())
    assert plain == ["10", 10, 1, 9.0, "a", shard_rng(7, "", encode("a")).random()]
    assert rare == ["named", 11, 3, 2.5, "b", shard_rng(7, "named", encode("b")).random()]


async def test_a_value_is_taken_at_once() -> None:
    """What a runner changes in a value after returning it does not reach the parent."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Counts)
        await stage.ready()
        give(stage, *[{"number": n} for n in range(4)])
        await settled(stage, 4)
        assert [value for _, value in stage.host.done()] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


async def test_a_payload_that_does_not_fit_fails_alone() -> None:
    """Of a frame with one bad payload the others run; the bad one is undeliverable, with the path to what is wrong."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Counts)
        await stage.ready()
        first = give(stage, {"number": 1}, {"number": "x"}, {"number": 3})
        await settled(stage, 3)
        assert [seq for seq, _ in stage.host.done()] == [first, first + 2]
        [fail] = stage.host.all(frames.Fail)
    assert (fail.seq, fail.fault.cause) == (first + 1, "undeliverable")
    assert "payload does not fit Number" in fail.fault.message
    assert "$.number" in fail.fault.message


async def test_a_value_that_cannot_travel_fails_alone() -> None:
    """A value that does not encode, or is too big, is undeliverable, and those before and after it arrive."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Returns)
        await stage.ready()
        first = give(stage, "fine", "lock", "fine", "big", "int", "fine")
        await settled(stage, 6)
        assert [seq for seq, _ in stage.host.done()] == [first, first + 2, first + 5]
        faults = {fail.seq - first: fail.fault for fail in stage.host.all(frames.Fail)}
    assert {fault.cause for fault in faults.values()} == {"undeliverable"}
    assert "lock" in faults[1].message
    assert "['deep'][0]" in faults[1].message
    assert "over max_value_bytes=1000000" in faults[3].message
    assert "int" in faults[4].message


async def test_the_rest_of_a_slow_frame_goes_back() -> None:
    """A frame was sized for a few ms: when its first shard takes long, the unstarted ones are given back."""
    async with on_stage(InlineEngine) as stage:
        stage.start(runner=ScriptedRunner)
        await stage.ready()
        first = stage.give(play(Sleep(0.1), Succeed("slow")), play(Succeed()), play(Succeed()))
        await stage.see(lambda: stage.host.all(frames.Back), "nothing came back")
        assert stage.host.all(frames.Back)[0].seqs == [first + 1, first + 2]
        await settled(stage, 1)
        assert stage.host.done() == [(first, "slow")]


async def test_progress_is_thinned() -> None:
    """A runner that reports ten thousand times says a little, and always that it is through."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Reports)
        await stage.ready()
        first = give(stage, 10_000)
        await settled(stage, 1)
        said = stage.host.all(frames.Progress)
    assert len(said) < 100
    assert (said[-1].seq, said[-1].done, said[-1].total) == (first, 10_000, 10_000)


async def test_questions_are_answered_to_their_asker() -> None:
    """A call blocks until its answer comes, from any thread; work that arrives meanwhile is not lost."""
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.Asks)
        await stage.ready()
        first = give(stage, 21)
        for number in (1, 2):
            await stage.see(lambda: len(stage.host.all(frames.Call)) >= number, "no question")  # noqa: B023
            call = stage.host.all(frames.Call)[-1]
            assert call.method == "twice"
            if number == 1:
                second = give(stage, 4)  # arrives while the lane waits for an answer
            stage.engine.send(0, frames.Answer(call.call, Raw(encode(lanes.Number(42 + number)))))
        await stage.see(lambda: len(stage.host.all(frames.Call)) >= 3, "the second frame was lost")
        assert stage.host.done()[0] == (first, [43, 44])
        for number in (3, 4):
            await stage.see(lambda: len(stage.host.all(frames.Call)) >= number, "no question")  # noqa: B023
            stage.engine.send(
                0, frames.Answer(stage.host.all(frames.Call)[-1].call, Raw(encode(lanes.Number(8))))
            )
        await settled(stage, 2)
        assert stage.host.done()[1] == (second, [8, 8])


async def test_an_async_setup_is_waited_for(tmp_path) -> None:
    """A sync runner may have an async setup and teardown; the teardown runs when the worker leaves in peace."""
    path = tmp_path / "will"
    async with on_stage(InlineEngine) as stage:
        start(stage, lanes.AsyncManners)
        await stage.ready()
        give(stage, str(path))
        await settled(stage, 1)
        assert stage.host.done()[0][1] == 1
        assert not path.exists()
        stage.engine.send(0, frames.Bye())
        await stage.see_end()
    assert path.read_text() == "torn down"


async def test_a_teardown_that_raises_is_seen() -> None:
    """What teardown raises ends the process with code 1, and its traceback is the process's last output."""
    async with on_stage(ProcessEngine) as stage:
        start(stage, lanes.BadTeardown)
        await stage.ready()
        stage.engine.send(0, frames.Bye())
        ended = await stage.see_end()
    assert ended.exit_code == 1
    assert "LookupError: cannot let go" in ended.output


async def test_output_belongs_to_its_shard() -> None:
    """What a shard prints is told with its seq, what setup printed with none; a fault carries the tail."""
    async with on_stage(ProcessEngine) as stage:
        start(stage, lanes.Prints)
        await stage.ready()
        first = give(stage, "one", "", "three")
        await settled(stage, 3)
        raw = give(stage, "raw words")
        await settled(stage, 4)
        told = [(frame.seq, frame.text, frame.cut) for frame in stage.host.all(frames.Output)]
        assert told == [
            (0, "ready soon\n", 0),
            (first, "one\n", 0),
            (first + 2, "three\n", 0),
            (raw, "raw words", 0),
        ]
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        stage.give(play(Print("before"), Raise()))
        await settled(stage, 1)
        assert stage.host.all(frames.Fail)[0].fault.output == "before\n"


async def test_times_are_the_shards_own() -> None:
    """Each outcome says when its shard started and ended, on the monotonic clock, one after another."""
    async with on_stage(InlineEngine) as stage:
        stage.start()
        await stage.ready()
        stage.give(play(Sleep(0.005)), play(Sleep(0.005)))
        await settled(stage, 2)
        times = []
        for frame in stage.host.all(frames.Results):
            times += zip([*frame.started, *frame.ended], frame.ended, strict=False)
    assert all(ended - began >= 0.005 for began, ended in times)
    assert times[0][1] <= times[1][0]
    assert os.getpid() == stage.host.all(frames.Ready)[0].pid
