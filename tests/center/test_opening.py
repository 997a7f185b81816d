"""One opening: what it shares, what it answers, whom it tells, and that nothing is left of it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from dispatch import (
    Cancelled,
    DataParallelDispatchCenter,
    DispatchConfig,
    Failed,
    Policy,
    Report,
    Runner,
    Shard,
    remote,
)
from dispatch.center import opening
from tests.center.facts import NewGate, descendants, ended, on_both_loops, on_one_loop, until
from tests.center.runners import Actor, Asker, AsyncAsker, Job, ThreadedAsker, add_shared

ONE = DispatchConfig(data_parallel=1)
TWO = DispatchConfig(data_parallel=2)


# What is shared.


class Late(DataParallelDispatchCenter[int, int]):
    """Fetches its shared param first."""

    runner = add_shared
    asked = 0

    async def get_shared_param(self) -> int:
        """May be async."""
        await asyncio.sleep(0)
        self.asked += 1
        return 100


@on_one_loop
async def test_a_shared_param_is_asked_for_once_per_opening() -> None:
    """`get_shared_param` may be async, and is called when the centre opens (test_shared_param.py counts the rest)."""
    center = Late(config=ONE)
    async with center:
        assert (await center.run([1, 2])).values() == [101, 102]
        assert await center.submit(3) == 103
    assert center.asked == 1
    await center.run([1])
    assert center.asked == 2


class Big(msgspec.Struct):
    """A shared param with a large part that nobody wants copied."""

    name: str
    body: memoryview
    raw: msgspec.Raw


class Mapped(Runner):
    """Says how much private memory reading costs."""

    shared_param: Big

    def do_run(self, shard: Shard[int]) -> tuple[int, int, bool, int]:
        """Sizes, whether the body is read-only, and private bytes of this process."""
        body = self.shared_param.body
        assert bytes(body[:3]) == bytes(body[-3:]) == b"abc"
        private = sum(
            int(line.split()[1])
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
            if line.startswith("Private_Dirty")
        )
        return len(body), len(bytes(self.shared_param.raw)), body.readonly, private * 1024


class BigCenter(DataParallelDispatchCenter[int, Any]):
    """Shares 64 MB."""

    runner = Mapped

    def get_shared_param(self) -> Big:
        """With a view in it."""
        body = b"abc" + bytes(64_000_000) + b"abc"
        return Big("big", memoryview(body), msgspec.Raw(msgspec.msgpack.encode([1, 2, 3])))


@pytest.mark.asyncio
async def test_views_of_a_shared_param_cost_no_copy() -> None:
    """Fields typed `memoryview` and `msgspec.Raw` are views of the map: the worker's own memory stays small."""
    [(size, raw, readonly, private)] = (await BigCenter(shards=[1], config=ONE).run()).values()
    assert (size, raw, readonly) == (64_000_006, 4, True)
    assert private < 40_000_000


class Restored(Runner):
    """Gets what the centre made of the shared param."""

    shared_param: int

    def do_run(self, shard: Shard[int]) -> tuple[int, int]:
        """It, and who has it."""
        return self.shared_param, os.getpid()


class Restoring(DataParallelDispatchCenter[int, Any]):
    """Makes something of its shared param in each worker."""

    runner = Restored

    def get_shared_param(self) -> dict[str, int]:
        """Encoded in the parent."""
        return {"secret": 41}

    @staticmethod
    def restore_shared_param(param: dict[str, int]) -> int:
        """Runs in the worker."""
        return param["secret"] + os.getpid()


@on_one_loop
async def test_what_is_restored_becomes_the_runners_param() -> None:
    """`restore_shared_param` runs in each worker, and what it returns is `runner.shared_param`."""
    for value, pid in (await Restoring(shards=range(20), config=TWO).run()).values():
        assert value == 41 + pid != 41 + os.getpid()


@on_one_loop
async def test_a_shared_param_that_cannot_be_encoded_is_told() -> None:
    """With its type and the path to it, before anything is started."""
    before = descendants()
    center = DataParallelDispatchCenter(add_shared, [1], shared_param={"deep": [object()]}, config=ONE)
    with pytest.raises(ValueError, match=r"shared_param.*object at \$\['deep'\]\[0\]"):
        await center.run()
    assert descendants() <= before


# What is answered.


class Adding(DataParallelDispatchCenter[int, int]):
    """Answers."""

    runner = Asker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = 0

    @remote
    async def add(self, a: int, b: int) -> int:
        """Runs on the parent's event loop, and may wait there."""
        self.asked += 1
        if self.asked % 100 == 0:
            await asyncio.sleep(0.001)
        return a + b

    @remote
    def refuse(self, why: str) -> int:
        """A plain method may raise as well."""
        raise PermissionError(why)


@on_both_loops
@pytest.mark.parametrize("runner", [Asker, AsyncAsker])
async def test_runners_ask_their_centre(runner: Any) -> None:
    """Thousands of calls from both lanes, interleaved with shards: each gets its own answer or exception."""
    center = Adding(runner, [-n if n % 10 == 0 else n for n in range(1, 1001)], config=TWO)
    report = await center.run()
    assert center.asked == 3 * 900
    assert report.counts == {"done": 900, "failed": 100, "raised": 100}
    for n, outcome in enumerate(report, start=1):
        if n % 10:
            assert outcome.unwrap() == 3 * n + 3
        else:
            with pytest.raises(PermissionError, match=f"no -{n}$"):
                outcome.unwrap()


@on_one_loop
async def test_a_runners_thread_asks_while_shards_run() -> None:
    """A thread's questions and the lane's work come over one line, and neither gets what is the other's."""
    with anyio.fail_after(30):
        report = await Adding(ThreadedAsker, range(ThreadedAsker.LAST + 1), config=ONE).run()
    values = [outcome.unwrap() for outcome in report]
    assert values == [*range(ThreadedAsker.LAST), sum(2 * n for n in range(1000))]


@on_one_loop
async def test_a_runners_thread_asks_while_its_worker_idles() -> None:
    """A thread that a shard left behind is answered although no further shard comes."""
    async with Adding(ThreadedAsker, config=ONE) as center:
        assert await center.submit(0) == 0
        await until(lambda: center.asked == 1000)
        assert await center.submit(1) == 1


@on_one_loop
async def test_an_answer_to_nobody_harms_nobody() -> None:
    """An unknown method is told with the known ones; the next question is answered."""
    async with Adding(AsyncAsker, config=ONE) as center:
        assert await center.submit(1) == 6
        outcome = await center.submit_outcome(-5)
        assert isinstance(outcome, Failed)
        assert outcome.fault.type == "PermissionError"
        assert await center.submit(2) == 9


# Who is told.


class Told(DataParallelDispatchCenter[Job, Any]):
    """Keeps what post_process gets; takes its time."""

    runner = Actor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reports: list[Report[Any]] = []

    async def post_process(self, report: Report[Any]) -> None:
        """Upload it somewhere."""
        await asyncio.sleep(0.05)
        self.reports.append(report)


@on_both_loops
async def test_post_process_gets_every_run_interrupted_ones_included(new_gate: NewGate) -> None:
    """Once for a run, a stream that is left, and a run that is cancelled; the rest of those is Cancelled."""
    first, second = new_gate(), new_gate()
    async with Told(config=ONE) as center:
        await center.run([Job(arg=1)])
        async with center.stream([Job(arg=1), first.job, Job(arg=2)]) as outcomes:
            await anext(outcomes)
        running = asyncio.create_task(center.run([second.job, Job(arg=2)]))
        await second.entered()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await center.submit(Job(arg=1))
    whole, left, cancelled = center.reports
    assert (whole.counts, whole.interrupted) == ({"done": 1}, False)
    assert (left.counts, left.interrupted) == ({"done": 1, "cancelled": 2}, True)
    assert (cancelled.counts, cancelled.interrupted) == ({"cancelled": 2}, True)
    assert cancelled.unfinished == ["0", "1"]
    assert {type(outcome) for outcome in cancelled} == {Cancelled}


@on_one_loop
async def test_post_process_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one that keeps somebody from leaving is bounded (`grace` and a little)."""
    monkeypatch.setattr(opening, "STOPPED_WITHIN", 0.001)
    async with Told(config=DispatchConfig(data_parallel=1, policy=Policy(grace=0))) as center:
        await center.run([Job(arg=1)])
        assert len(center.reports) == 1
        with pytest.raises(LookupError):
            async with center.stream([Job(arg=1)]) as outcomes:
                await anext(outcomes)
                raise LookupError
        assert len(center.reports) == 1


class Wrong(Told):
    """Its post_process has a bug."""

    async def post_process(self, report: Report[Any]) -> None:
        """Raise."""
        raise ArithmeticError(report.total)


@on_one_loop
async def test_what_post_process_raises_is_raised() -> None:
    """A bug in it is not lost, and the centre serves on."""
    async with Wrong(config=ONE) as center:
        with pytest.raises(ArithmeticError, match="2"):
            await center.run([Job(), Job()])
        assert await center.submit(Job(arg=1)) == 1


@on_one_loop
async def test_what_post_process_raises_hides_no_reason_to_leave(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled, timed out or failed: that comes out as it is, and the bug is logged."""
    async with Wrong(config=ONE) as center:
        with pytest.raises(LookupError, match="of the host"):
            async with center.stream([Job()]):
                raise LookupError("of the host")
    assert "post_process failed" in caplog.text
    assert "ArithmeticError" in caplog.text


class Sourceless(Told):
    """Has no shards of its own to give."""

    def iter_shards(self) -> list[Any]:
        """Raise."""
        raise ArithmeticError("no such file")


@on_one_loop
async def test_an_iter_shards_that_raises_leaves_no_door() -> None:
    """The run has not begun: the error comes out, nothing is kept of it, and the centre serves on."""
    async with Sourceless(config=ONE) as center:
        doors = len(center._need_open("run").session.books.doors)
        for _ in range(3):
            with pytest.raises(ArithmeticError, match="no such file"):
                await center.run()
        assert len(center._need_open("run").session.books.doors) == doors
        assert (await center.run([Job(arg=1)])).values() == [1]


@on_one_loop
async def test_a_stream_keeps_a_thousand_failures_for_its_report() -> None:
    """All are handed out and counted; a stream that never ends grows by none of them."""
    async with Told(config=ONE) as center, center.stream(Job("raise", "no") for _ in range(1200)) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 1200
    [report] = center.reports
    assert (report.counts, len(report.outcomes)) == ({"failed": 1200, "raised": 1200}, 1000)
    assert report.counts["done"] == 0


# What is left.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_leaving_any_door_leaves_nothing(loop: str) -> None:
    """By break, exception, scope, timeout, at start-up, with the loop: no process, file, thread, warning is left."""
    code, out, err = ended("-m", "tests.center.leaving", loop)
    assert (code, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert {name: left for name, left, _ in told if left != [0, 0, 0]} == {}
    assert len(told) == 16
    assert told[-1][0] == "never_closed"
