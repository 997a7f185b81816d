"""The API as a stranger types it: read by mypy and pyright (strict), never run.

What must be an error stands with an ignore of its own: an ignore that is not needed is an error too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol, assert_never, assert_type

import msgspec

import dispatch
from dispatch import (
    Attempt,
    Cancelled,
    Cause,
    DataParallelDispatchCenter,
    DispatchCenter,
    DispatchConfig,
    Done,
    DummyDispatchCenter,
    Failed,
    Fault,
    GiveUp,
    LocalDispatchCenter,
    Outcome,
    Plan,
    Policy,
    Report,
    Retry,
    RetryLater,
    Runner,
    RunnerType,
    Shard,
    Snapshot,
    register,
    remote,
)

CONFIG = DispatchConfig(
    runner_type=RunnerType.LOCAL,
    data_parallel=2,
    policy=Policy(timeout=1.5, retry=Retry(attempts=3, on=("raised", "crashed")), isolation="fork"),
    env={"OMP_NUM_THREADS": "2"},
)


class Sample(msgspec.Struct):
    """A payload."""

    question: str


class Score(msgspec.Struct):
    """A value."""

    correct: bool


Table = dict[str, str]
SAMPLES = [Sample("1 + 1"), Sample("2 + 2")]


# Runners.


class Questions(Protocol):
    """What ScoreRunner may ask."""

    def next_key(self, model: str) -> int: ...


class AsyncQuestions(Protocol):
    """The same, asked from an async do_run."""

    async def next_key(self, model: str) -> int: ...


class ScoreRunner(Runner[Questions]):
    """Asks its centre."""

    version = "2"

    def setup(self) -> None:
        self.opened = True

    def do_run(self, shard: Shard[Sample]) -> Score:
        assert_type(shard.payload, Sample)
        assert_type(shard.id, str)
        assert_type(shard.index, int)
        assert_type(shard.attempt, int)
        assert_type(shard.timeout, float | None)
        assert_type(shard.rng.random(), float)
        assert_type(self.center, Questions)
        assert_type(self.center.next_key("small"), int)
        assert_type(self.shared_param, Any)
        self.progress(1, 2)
        if shard.attempt > 1:
            raise GiveUp("no use")
        if not self.opened:
            raise RetryLater(after=0.5)
        self.center.no_such_key("small")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  (a Protocol says all that may be asked)
        return Score(correct=True)

    def teardown(self) -> None:
        self.opened = False


class AsyncRunner(Runner[AsyncQuestions]):
    """Several at a time."""

    concurrency = 8

    async def setup(self) -> None:
        await asyncio.sleep(0)

    async def do_run(self, shard: Shard[Sample]) -> Score:
        assert_type(await self.center.next_key("small"), int)
        return Score(correct=shard.payload.question == "")


class PlainRunner(Runner):
    """Asks nothing, and says nothing of its payload."""

    def do_run(self, shard: Shard) -> int:
        assert_type(shard.payload, Any)
        assert_type(self.center, Any)
        return shard.index


def grade(sample: Sample) -> Score:
    """A function of a payload."""
    return Score(correct=sample.question == "")


async def grade_async(sample: Sample) -> Score:
    """An async one."""
    return Score(correct=sample.question == "")


def grade_with(sample: Sample, table: Table) -> Score:
    """A function of a payload and the shared param."""
    return Score(correct=sample.question in table)


async def grade_with_async(sample: Sample, table: Table) -> Score:
    """An async one of both."""
    return Score(correct=sample.question in table)


def scaled(number: float, factor: int = 2) -> float:
    """One required parameter: the payload."""
    return number * factor


# Centres: P and R are read from the runner.


def centres() -> None:
    """The three concrete centres take the same arguments."""
    assert_type(LocalDispatchCenter(ScoreRunner), LocalDispatchCenter[Sample, Score])
    assert_type(LocalDispatchCenter(AsyncRunner, SAMPLES), LocalDispatchCenter[Sample, Score])
    assert_type(LocalDispatchCenter(PlainRunner), LocalDispatchCenter[Any, int])
    assert_type(DataParallelDispatchCenter(ScoreRunner), DataParallelDispatchCenter[Sample, Score])
    assert_type(DataParallelDispatchCenter(grade, SAMPLES), DataParallelDispatchCenter[Sample, Score])
    assert_type(DataParallelDispatchCenter(grade_async), DataParallelDispatchCenter[Sample, Score])
    assert_type(
        DataParallelDispatchCenter(grade_with, SAMPLES, shared_param={"1 + 1": "2"}, config=CONFIG),
        DataParallelDispatchCenter[Sample, Score],
    )
    assert_type(
        DataParallelDispatchCenter(grade_with_async, SAMPLES, shared_param={"1 + 1": "2"}),
        DataParallelDispatchCenter[Sample, Score],
    )
    assert_type(DummyDispatchCenter(scaled, [1.0]), DummyDispatchCenter[float, float])
    assert_type(DummyDispatchCenter(scaled), DummyDispatchCenter[float, float])
    assert_type(LocalDispatchCenter(), LocalDispatchCenter[Any, Any])
    LocalDispatchCenter(ScoreRunner, [Shard(Sample("3 + 3"), id="q3", timeout=5.0, runner="ScoreRunner")])
    LocalDispatchCenter(ScoreRunner, endless())
    LocalDispatchCenter(grade, endless_async())
    LocalDispatchCenter(grade, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  (an int is no Sample)
    LocalDispatchCenter(ScoreRunner, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  (the same)


def endless() -> Iterator[Sample]:
    """A source of payloads that never ends."""
    while True:
        yield Sample("?")


async def endless_async() -> AsyncIterator[Shard[Sample]]:
    """The same, async, of Shards."""
    while True:
        yield Shard(Sample("?"), timeout=1.0)


# A subclass says what it runs.


class ScoreCenter(DataParallelDispatchCenter[Sample, Score]):
    """Brings everything."""

    runner = ScoreRunner

    def __init__(self, *, config: DispatchConfig | None = None) -> None:
        super().__init__(shards=SAMPLES, config=config)
        self.keys = 0
        self.coverage = 0.0

    def get_shared_param(self) -> Table:
        return {"1 + 1": "2"}

    @staticmethod
    def restore_shared_param(param: Table) -> Table:
        return param

    @remote
    async def next_key(self, model: str) -> int:
        self.keys += len(model)
        return self.keys

    async def post_process(self, report: Report[Score]) -> None:
        self.coverage = report.coverage


class LooseCenter(LocalDispatchCenter):
    """Says nothing of its types."""

    runner = grade

    async def iter_shards(self) -> AsyncIterator[Sample]:
        yield Sample("1 + 1")

    async def get_shared_param(self) -> Table:
        return {}

    async def post_process(self, report: Report) -> None:
        assert_type(report, Report[Any])


@register("mine")
class AbstractlyMine(DispatchCenter[Sample, Score]):
    """A centre from scratch."""

    def init_runners(self) -> Sequence[type[Runner]]:
        return [ScoreRunner, AsyncRunner]

    def get_shared_param(self) -> None:
        return None

    @staticmethod
    def restore_shared_param(param: None) -> None:
        return param


async def subclasses() -> None:
    """A subclass keeps its own type, also through `init`."""
    assert_type(ScoreCenter(config=CONFIG), ScoreCenter)
    assert_type(ScoreCenter.init(CONFIG), ScoreCenter)
    assert_type(ScoreCenter.init(CONFIG).keys, int)
    assert_type(await ScoreCenter().run(), Report[Score])
    assert_type(await ScoreCenter().submit(SAMPLES[0]), Score)
    assert_type(await LooseCenter().submit(SAMPLES[0]), Any)
    assert_type(await AbstractlyMine(shards=SAMPLES).run(), Report[Score])
    assert_type(AbstractlyMine().start(), Report[Score])
    assert_type(await ScoreCenter.next_key(ScoreCenter(), "small"), int)


def init() -> None:
    """`init` reads the types from the runner, or keeps the subclass's."""
    assert_type(DispatchCenter.init(CONFIG, ScoreRunner, SAMPLES), DispatchCenter[Sample, Score])
    assert_type(DispatchCenter.init(CONFIG, AsyncRunner), DispatchCenter[Sample, Score])
    assert_type(DispatchCenter.init(None, grade, SAMPLES), DispatchCenter[Sample, Score])
    assert_type(DispatchCenter.init(CONFIG, grade_async), DispatchCenter[Sample, Score])
    assert_type(DispatchCenter.init(CONFIG, grade_with, shared_param={}), DispatchCenter[Sample, Score])
    assert_type(DispatchCenter.init(CONFIG, grade_with_async, shared_param={}), DispatchCenter[Sample, Score])
    assert_type(DispatchCenter.init(CONFIG), DispatchCenter[Any, Any])


# Doors.


async def doors() -> None:
    """What each door gives."""
    async with DataParallelDispatchCenter(ScoreRunner, config=CONFIG) as center:
        assert_type(center, DataParallelDispatchCenter[Sample, Score])
        assert_type(await center.submit(SAMPLES[0], timeout=5), Score)
        assert_type(await center.submit(Shard(SAMPLES[0], id="first"), nowait=True), Score)
        told(await center.submit_outcome(SAMPLES[0]))
        assert_type(await center.run(SAMPLES), Report[Score])
        assert_type(await center.run(endless(), collect=False, handle_signals=True), Report[Score])
        async with center.stream(SAMPLES, ordered=True) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Done[Score] | Failed | Cancelled)
                told(outcome)
        center.drain()
        assert_type(center.snapshot(), Snapshot)
        async for event in center.events():
            assert_type(event.at, float)
        await center.submit("1 + 1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  (no Sample)
    center = DataParallelDispatchCenter(ScoreRunner)
    await center.open()
    await center.aclose(grace=10)
    assert_type(center.start(collect=False), Report[Score])


async def functions() -> None:
    """`dispatch.map` and `dispatch.stream` read the types from the function."""
    assert_type(await dispatch.map(grade, SAMPLES), list[Score])
    assert_type(await dispatch.map(grade_async, SAMPLES, config=CONFIG), list[Score])
    assert_type(await dispatch.map(grade_with, SAMPLES, shared_param={"1 + 1": "2"}), list[Score])
    assert_type(await dispatch.map(grade_with_async, endless(), shared_param={"1 + 1": "2"}), list[Score])
    assert_type(await dispatch.map(ScoreRunner, endless_async()), list[Score])
    assert_type(await dispatch.map(AsyncRunner, SAMPLES), list[Score])
    assert_type(await dispatch.map(scaled, [1, 2.5]), list[float])
    assert_type(await dispatch.map(len, ["a", "bc"]), list[int])
    outcomes = await dispatch.map(grade, SAMPLES, return_outcomes=True)
    assert_type(outcomes, list[Done[Score] | Failed | Cancelled])
    outcomes = await dispatch.map(grade_with_async, SAMPLES, shared_param={}, return_outcomes=True)
    assert_type(outcomes[0].unwrap(), Score)
    async with dispatch.stream(grade, SAMPLES, ordered=True) as each:
        assert_type([outcome.unwrap() async for outcome in each], list[Score])
    async with dispatch.stream(AsyncRunner, SAMPLES) as each:
        assert_type([outcome.unwrap() async for outcome in each], list[Score])
    async with dispatch.stream(grade_with, SAMPLES, shared_param={"1 + 1": "2"}) as each:
        assert_type(await anext(each), Done[Score] | Failed | Cancelled)
    await dispatch.map(grade, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  (no Sample)
    await dispatch.map(grade_with, SAMPLES)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  (what is shared?)
    await dispatch.map(grade_with, SAMPLES, shared_param=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]  (no Table)


# Outcomes.


def told(outcome: Outcome[Score]) -> str:
    """A match statement over an outcome is complete with three cases."""
    assert_type(outcome.shard_id, str)
    assert_type(outcome.index, int)
    assert_type(outcome.payload, Any)
    assert_type(outcome.reused, bool)
    assert_type(outcome.attempts, tuple[Attempt, ...])
    assert_type(outcome.unwrap(), Score)
    match outcome:
        case Done(value=score):
            assert_type(outcome, Done[Score])
            assert_type(score, Score)
            return str(score.correct)
        case Failed(fault=fault):
            assert_type(fault, Fault)
            assert_type(fault.cause, Cause)
            assert_type(fault.signal, int | None)
            assert_type(fault.exit_code, int | None)
            return fault.traceback or fault.stack or fault.output
        case Cancelled():
            return "cancelled"
        case _:
            assert_never(outcome)


def reported(report: Report[Score]) -> str:
    """What a report holds."""
    assert_type(report.values(), list[Score])
    assert_type(report.outcomes, list[Done[Score] | Failed | Cancelled])
    assert_type(report.counts, dict[str, int])
    assert_type(report.total, int)
    assert_type(report.total_known, bool)
    assert_type(report.coverage, float)
    assert_type(report.unfinished, list[str])
    assert_type(report.seconds, float)
    assert_type(report.plan, Plan | None)
    assert_type([outcome for outcome in report if isinstance(outcome, Done)], list[Done[Score]])
    return str(report)
