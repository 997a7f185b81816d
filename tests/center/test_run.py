"""A door reads lazily, hands on what it gets, and tells what became of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dispatch import (
    Cancelled,
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    DuplicateShard,
    Failed,
    Policy,
    Report,
    Shard,
)
from tests.center.facts import Gate, NewGate, on_both_loops, until
from tests.center.runners import Actor, Job, double, endless


class Counted:
    """An endless source that says how far it was read."""

    def __init__(self, size: int = 0) -> None:
        self.read, self._size = 0, size

    def __iter__(self) -> Iterator[Job]:
        for n in endless():
            self.read += 1
            yield Job(arg="x" * self._size if self._size else n)


async def numbers(n: int) -> AsyncIterator[Job]:
    """Jobs from an async source, which lets others run between."""
    for k in range(n):
        await asyncio.sleep(0)
        yield Job(arg=k)


@on_both_loops
async def test_values_come_back_in_input_order(center: Any) -> None:
    """A run's values stand in the order of its shards, whichever worker was first."""
    report = await center.run([Job(arg=n) for n in range(500)])
    assert report.values() == list(range(500))
    assert [outcome.index for outcome in report] == list(range(500))
    assert (report.total, report.total_known, report.coverage) == (500, True, 1.0)


@on_both_loops
async def test_an_ordered_stream_keeps_the_order(center: Any, gate: Gate) -> None:
    """With `ordered=True` outcomes wait for the shard before them."""
    async with center.stream([gate.job, *(Job(arg=n) for n in range(50))], ordered=True) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        await until(lambda: center.snapshot().in_flight == 1 and gate.pids)
        assert not first.done()
        gate.open()
        assert (await first).index == 0
        assert [outcome.index async for outcome in outcomes] == list(range(1, 51))


@on_both_loops
async def test_an_unordered_stream_gives_what_is_done(center: Any, gate: Gate) -> None:
    """Without it a shard that takes long holds up nobody."""
    async with center.stream([gate.job, *(Job(arg=n) for n in range(50))]) as outcomes:
        early = [(await anext(outcomes)).index for _ in range(50)]
        assert sorted(early) == list(range(1, 51))
        gate.open()
        assert [outcome.index async for outcome in outcomes] == [0]


@on_both_loops
async def test_async_sources_are_read(center: Any) -> None:
    """An async iterable of shards serves as well as a sync one."""
    assert (await center.run(numbers(300))).values() == list(range(300))


@on_both_loops
@pytest.mark.parametrize("waits", [False, True])
async def test_leaving_early_ends_an_async_generator(center: Any, waits: bool) -> None:
    """Its `finally` has run when the stream is left, whether it was waiting for something or stood at a `yield`."""
    ended = []

    async def numbers() -> AsyncIterator[Job]:
        try:
            for n in itertools.count():
                yield Job(arg=n)
                if waits and n == 3:
                    await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    async with center.stream(numbers()) as outcomes:
        await anext(aiter(outcomes))
        assert not ended
    assert ended


@on_both_loops
async def test_a_consumer_that_stops_reading_stops_the_reading_of_shards() -> None:
    """An endless source is read no further than `max_pending` beyond what the consumer took."""
    config = DispatchConfig(data_parallel=1, max_pending=100)
    source = Counted()
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        async with center.stream(source) as outcomes:
            await anext(outcomes)
            await until(lambda: center.snapshot().in_flight == center.snapshot().ready == 0)
            settled = center.snapshot().counts["done"]
            assert settled == source.read <= 200
            for _ in range(1000):
                await anext(outcomes)
            assert 1000 < source.read <= 1201
        assert (await center.run([Job(arg=1)])).values() == [1]


@on_both_loops
async def test_read_ahead_is_bounded_in_bytes() -> None:
    """Large shards are read ahead up to `max_pending_bytes`, not up to `max_pending`."""
    config = DispatchConfig(data_parallel=1, max_pending_bytes=1_000_000)
    source = Counted(size=100_000)
    async with DataParallelDispatchCenter(Actor, config=config) as center, center.stream(source) as outcomes:
        await anext(outcomes)
        await until(lambda: center.snapshot().in_flight == center.snapshot().ready == 0)
        assert source.read <= 30
        for _ in range(100):
            await anext(outcomes)
        assert source.read <= 130


@on_both_loops
async def test_a_run_holds_a_bounded_part_of_its_source(gate: Gate) -> None:
    """A run too reads only `max_pending` beyond what is settled."""
    config = DispatchConfig(data_parallel=1, max_pending=10)
    source = Counted()

    def shards() -> Iterator[Job]:
        yield gate.job
        yield from source

    async with DataParallelDispatchCenter(Actor, config=config) as center:
        running = asyncio.create_task(center.run(shards()))
        await gate.entered()
        assert source.read <= 10
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


class Kept(DataParallelDispatchCenter[Job, Any]):
    """Keeps the reports that post_process gets."""

    runner = Actor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reports: list[Report[Any]] = []

    async def post_process(self, report: Report[Any]) -> None:
        """Keep it."""
        await asyncio.sleep(0)
        self.reports.append(report)


def raises_after(n: int) -> Iterator[Job]:
    """A sync source that fails half-way."""
    yield from (Job(arg=k) for k in range(n))
    raise OSError("the disk is gone")


async def raises_later(n: int) -> AsyncIterator[Job]:
    """An async source that does."""
    async for job in numbers(n):
        yield job
    raise OSError("the disk is gone")


@on_both_loops
@pytest.mark.parametrize("source", [raises_after, raises_later])
async def test_a_source_that_raises_is_told_after_the_shards_before_it(source: Any) -> None:
    """What a source raises comes out of `run` as it is, says where, and what was read is done and reported."""
    async with Kept(config=DispatchConfig(data_parallel=1)) as center:
        with pytest.raises(OSError, match="the disk is gone") as caught:
            await center.run(source(300))
        assert "while reading shards, after 300" in caught.value.__notes__[0]
        [report] = center.reports
        assert report.values() == list(range(300))
        assert (report.total, report.total_known) == (300, False)

        got = []
        with pytest.raises(OSError, match="the disk is gone"):
            async with center.stream(source(300), ordered=True) as outcomes:
                async for outcome in outcomes:
                    got.append(outcome.unwrap())  # noqa: PERF401  (what came before the error counts)
        assert got == list(range(300))
        assert center.reports[1].counts == {"done": 300}


@on_both_loops
async def test_a_duplicate_id_is_an_error_that_names_it(center: Any, gate: Gate) -> None:
    """Two unfinished shards of one run with one id end it, after the shards before."""
    jobs = [Shard(gate.job, id="q17"), Shard(Job(arg=2), id="q18"), Shard(Job(arg=3), id="q17")]
    running = asyncio.create_task(center.run(jobs))
    await gate.entered()
    gate.open()
    with pytest.raises(DuplicateShard, match="two shards of this run have the id 'q17'; give each its own"):
        await running


@on_both_loops
async def test_ids_are_free_again_for_the_next_run(center: Any) -> None:
    """Uniqueness is asked within a run: the next one, and one beside it, may use the same ids."""
    jobs = [Shard(Job(arg=n), id=f"q{n}") for n in range(20)]
    first, second = await asyncio.gather(center.run(jobs), center.run(jobs))
    assert [outcome.shard_id for outcome in first] == [job.id for job in jobs]
    assert second.values() == (await center.run(jobs)).values() == list(range(20))


@on_both_loops
async def test_a_payload_that_cannot_be_encoded_fails_alone(center: Any) -> None:
    """It is `undeliverable`, with the shard, the type and the path to it; its neighbours are done."""
    bad = Job(arg={"deep": [1, object()]})
    report = await center.run([Job(arg=0), bad, Job(arg=2)])
    assert report.counts == {"done": 2, "failed": 1, "undeliverable": 1}
    failed = report.outcomes[1]
    assert isinstance(failed, Failed)
    assert failed.payload is bad
    assert "shard 1" in failed.fault.message
    assert "object at $.arg['deep'][1]" in failed.fault.message


@on_both_loops
@pytest.mark.parametrize("bad", [{"do": 17}, "no job", None])
async def test_a_payload_that_does_not_fit_the_annotation_fails_alone(center: Any, bad: Any) -> None:
    """The worker refuses it by naming what it wants and where; its neighbours are done."""
    report = await center.run([Job(arg=0), bad, Job(arg=2)])
    assert report.counts == {"done": 2, "failed": 1, "undeliverable": 1}
    assert "payload does not fit Job" in report.failures[0].fault.message


@on_both_loops
@pytest.mark.parametrize(
    ("field", "value", "cure"),
    [
        ("timeout", -1.0, "it must be more than 0 seconds"),
        ("timeout", 0, "it must be more than 0 seconds"),
        ("timeout", float("nan"), "it must be more than 0 seconds"),
        ("runner", "Nobody", "this centre's init_runners gives: Actor"),
        ("id", 17, "it must be a string"),
    ],
)
async def test_a_shard_that_makes_no_sense_ends_the_run(
    center: Any, field: str, value: Any, cure: str
) -> None:
    """The error names the shard, the field and what it may be; shards before it are done first."""
    shards = [Job(arg=0), Shard(Job(arg=1), **{field: value})]
    with pytest.raises(ValueError, match=rf"{field} is .*: {cure}"):
        await center.run(shards)


@on_both_loops
async def test_a_run_that_collects_nothing_keeps_counts_and_failures(center: Any) -> None:
    """`collect=False` keeps no value, and says so when it is asked for them."""
    report = await center.run([Job(arg=1), Job("raise", "no"), Job(arg=3)], collect=False)
    assert report.counts == {"done": 2, "failed": 1, "raised": 1}
    assert [outcome.index for outcome in report] == [1]
    with pytest.raises(ValueError, match="collect=False"):
        report.values()


@on_both_loops
async def test_leaving_a_stream_early_stops_what_was_read(center: Any, new_gate: NewGate) -> None:
    """Running shards are stopped, waiting ones never start, and the centre serves on."""
    gates = [new_gate() for _ in range(3)]
    await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
    async with center.stream([Job(arg=0), *(gate.job for gate in gates)]) as outcomes:
        assert (await anext(outcomes)).index == 0
        await gates[0].entered()
        await gates[1].entered()
    assert center.snapshot().in_flight == center.snapshot().ready == 0
    assert await center.submit(Job(arg="still here")) == "still here"
    assert [len(gate.pids) for gate in gates] == [1, 1, 0]


@on_both_loops
async def test_a_run_stops_at_its_failures() -> None:
    """After `max_failures` failures the rest of the run is Cancelled, and an endless source is left."""
    config = DispatchConfig(data_parallel=1, policy=Policy(max_failures=3))
    async with Kept(config=config) as center:
        report = await center.run(Job("raise", str(n)) for n in endless())
        assert report.counts["failed"] >= 3
        assert {type(outcome) for outcome in report} <= {Failed, Cancelled}
        assert not report.total_known


@on_both_loops
async def test_a_source_that_waits_is_left_when_the_run_ends() -> None:
    """A drain ends a run whose async source has nothing to give; the source is closed."""
    closed = asyncio.Event()

    async def silent() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    async with DataParallelDispatchCenter(double, config=DispatchConfig(data_parallel=1)) as center:
        running = asyncio.create_task(center.run(silent()))
        await until(lambda: center.snapshot().counts["done"] == 1)
        center.drain()
        async with asyncio.timeout(10):
            report = await running
            await closed.wait()
        assert (report.values(), report.interrupted, report.total_known) == ([2], True, False)


@on_both_loops
async def test_a_report_names_its_workers(center: Any) -> None:
    """Figures per worker add up to the run: shards, failed ones too, seconds, and the processes that did it."""
    report = await center.run([Job("pid") for _ in range(200)])
    assert sum(worker.shards for worker in report.workers) == 200
    failed = await center.run([Job("raise", "no") for _ in range(20)])
    assert sum(worker.shards for worker in failed.workers) == 20
    assert sum(worker.busy for worker in failed.workers) > 0
    assert {pid for worker in report.workers for pid in worker.pids} >= set(report.values())
    assert all(worker.runner == "Actor" for worker in report.workers)
    assert "200 done of 200 shards" in str(report)


@on_both_loops
async def test_outcomes_know_their_shard(center: Any) -> None:
    """An outcome has its shard's id, index, payload and attempts with who ran it and when."""
    [outcome] = (await center.run([Shard(Job("pid"), id="who")])).outcomes
    assert isinstance(outcome, Done)
    assert (outcome.shard_id, outcome.index, outcome.payload) == ("who", 0, Job("pid"))
    [attempt] = outcome.attempts
    assert (attempt.runner, attempt.pid, attempt.fault) == ("Actor", outcome.value, None)
    assert attempt.seconds >= 0 <= attempt.queued
    assert not outcome.reused
