"""A centre's declarations come to something, and its doors open and close from anywhere."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pydantic
import pytest
import pytest_asyncio

from dispatch import (
    Cancelled,
    CenterClosed,
    CenterOpen,
    DataParallelDispatchCenter,
    DispatchCenter,
    DispatchConfig,
    Failed,
    LocalDispatchCenter,
    Report,
    Runner,
    Shard,
)
from tests.center.facts import Gate, descendants, on_both_loops, on_one_loop, until
from tests.center.runners import Actor, AsyncActor, Job, Lower, Marked, Upper, double, lines

ONE = DispatchConfig(data_parallel=1)


class TwoKinds(DispatchCenter[str, str]):
    """A centre written from the abstract one: two classes of runner."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reports: list[Report[str]] = []

    def init_runners(self) -> Sequence[type[Runner]]:
        """One worker of each."""
        return [Upper, Lower]

    def get_shared_param(self) -> None:
        """Nothing."""

    @staticmethod
    def restore_shared_param(param: None) -> None:
        """Nothing."""

    def iter_shards(self) -> list[Shard[str]]:
        """Ten for each."""
        return [Shard(f"Word {n}", runner=("Upper", "Lower")[n % 2]) for n in range(20)]

    async def post_process(self, report: Report[str]) -> None:
        """Keep it."""
        self.reports.append(report)


@on_both_loops
async def test_a_centre_may_be_written_from_the_abstract_one() -> None:
    """Its runner classes differ, each shard goes to the one it names, and post_process gets the run's report."""
    center = TwoKinds()
    report = await center.run()
    assert report.values() == [f"word {n}" if n % 2 else f"WORD {n}" for n in range(20)]
    assert {outcome.attempts[0].runner for outcome in report} == {"Upper", "Lower"}
    assert [each.counts for each in center.reports] == [{"done": 20}]


@on_one_loop
async def test_shards_that_name_no_runner_go_to_any() -> None:
    """Without a name a shard runs wherever there is room."""
    report = await TwoKinds().run(["Word"] * 50)
    assert {value.upper() for value in report.values()} == {"WORD"}


@pytest_asyncio.fixture(loop_scope="module")
async def opened() -> AsyncIterator[DataParallelDispatchCenter[Job]]:
    """Opened by a fixture: `open` and `aclose` run in tasks of their own, and both are over when the test runs."""
    center = DataParallelDispatchCenter(Actor, config=DispatchConfig(data_parallel=2))
    await center.open()
    yield center
    await center.aclose()


@on_both_loops
async def test_a_centre_is_opened_and_closed_in_different_tasks(opened: Any) -> None:
    """The task that opened it may end: both workers come up and stay, and it is closed from a third task."""
    await until(lambda: all(worker.state == "ready" for worker in opened.snapshot().workers))
    pids = {worker.pid for worker in opened.snapshot().workers}
    assert set((await opened.run([Job("pid")] * 200)).values()) <= pids
    assert {worker.pid for worker in opened.snapshot().workers} == pids


@on_both_loops
async def test_workers_stay_warm_between_doors(center: Any) -> None:
    """On an open centre runs, streams and submits are served by the same processes."""
    await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
    pids = {worker.pid for worker in center.snapshot().workers}
    assert set((await center.run([Job("pid")] * 50)).values()) <= pids
    async with center.stream([Job("pid")] * 50) as outcomes:
        assert {outcome.unwrap() async for outcome in outcomes} <= pids
    assert await center.submit(Job("pid")) in pids


@on_both_loops
async def test_opening_an_open_centre_is_refused(center: Any) -> None:
    """It would have two sets of workers and lose one."""
    with pytest.raises(CenterOpen, match="this centre is open"):
        await center.open()
    assert await center.submit(Job(arg=1)) == 1


@on_both_loops
async def test_closing_twice_is_once_and_a_centre_opens_again() -> None:
    """`aclose` on a closed centre does nothing; `open` after it starts new workers."""
    center = DataParallelDispatchCenter(Actor, config=ONE)
    await center.aclose()
    await center.open()
    first = await center.submit(Job("pid"))
    await center.aclose()
    await center.aclose()
    async with center:
        assert await center.submit(Job("pid")) != first


@on_both_loops
async def test_a_run_opens_and_closes_a_centre_that_is_not_open() -> None:
    """Its workers are there for this run only."""
    before = descendants()
    center = DataParallelDispatchCenter(double, range(10), config=ONE)
    assert (await center.run()).values() == [2 * n for n in range(10)]
    async with center.stream(ordered=True) as outcomes:
        assert descendants() > before
        assert [outcome.unwrap() async for outcome in outcomes] == [2 * n for n in range(10)]
    assert descendants() <= before
    with pytest.raises(CenterClosed):
        await center.submit(1)


@on_both_loops
async def test_closing_finishes_what_was_accepted(gate: Gate, tmp_path: Path) -> None:
    """Leaving `async with` normally waits for every accepted shard, then lets the workers tear down."""
    log = str(tmp_path / "log")
    async with DataParallelDispatchCenter(Marked, shared_param=log, config=ONE) as center:
        submits = [asyncio.create_task(center.submit(job)) for job in [gate.job, Job(arg=1), Job(arg=2)]]
        [pid] = await gate.entered()
        asyncio.get_running_loop().call_later(0.05, gate.open)
    assert await asyncio.gather(*submits) == [pid, 1, 2]
    assert lines(log) == [f"setup {pid}", f"teardown {pid}"]


async def then_silent() -> AsyncIterator[int]:
    """200 shards, and then no word."""
    for _ in range(200):
        yield 0
    await asyncio.get_running_loop().create_future()


@on_both_loops
@pytest.mark.parametrize("source", [partial(iter, int, 1), then_silent], ids=["endless", "silent"])
async def test_closing_ends_a_stream_that_would_not_end(source: Any) -> None:
    """A door whose source goes on reads no more; what it read is finished and handed on."""
    center = DataParallelDispatchCenter(double, config=ONE)
    await center.open()

    async def consume() -> int:
        async with center.stream(source()) as outcomes:
            return len([outcome.unwrap() async for outcome in outcomes])

    consuming = asyncio.create_task(consume())
    await until(lambda: center.snapshot().counts["done"] > 100)
    async with asyncio.timeout(20):
        await center.aclose()
        assert await consuming > 100


@on_both_loops
async def test_a_grace_bounds_closing(gate: Gate, tmp_path: Path) -> None:
    """`aclose(grace=s)` stops after s seconds what still runs: Cancelled, and no teardown after a kill."""
    log = str(tmp_path / "log")
    center = DataParallelDispatchCenter(Marked, shared_param=log, config=ONE)
    await center.open()
    submits = [asyncio.create_task(center.submit_outcome(job)) for job in [gate.job, Job(arg=1)]]
    [pid] = await gate.entered()
    async with asyncio.timeout(10):
        await center.aclose(grace=0.1)
    assert [type(outcome) for outcome in await asyncio.gather(*submits)] == [Cancelled, Cancelled]
    assert lines(log) == [f"setup {pid}"]
    assert not descendants() & {pid}


@on_both_loops
async def test_a_second_close_waits_for_the_first(gate: Gate) -> None:
    """Who closes a centre that is closing returns when it is closed; with a grace of its own it stops what remains."""
    center = DataParallelDispatchCenter(Actor, config=ONE)
    await center.open()
    submit = asyncio.create_task(center.submit_outcome(gate.job))
    [pid] = await gate.entered()
    first = asyncio.create_task(center.aclose())
    await asyncio.sleep(0)
    second = asyncio.create_task(center.aclose())
    done, _ = await asyncio.wait([first, second], timeout=0.05)
    assert not done
    await center.aclose(grace=0)
    assert isinstance(await submit, Cancelled)
    assert not descendants() & {pid}
    await asyncio.gather(first, second)


@on_both_loops
async def test_leaving_by_an_exception_stops_at_once(gate: Gate) -> None:
    """What runs is killed and settles as Cancelled; the exception comes out as it is."""
    with pytest.raises(LookupError, match="of the host"):
        async with DataParallelDispatchCenter(Actor, config=ONE) as center:
            submit = asyncio.create_task(center.submit_outcome(gate.job))
            [pid] = await gate.entered()
            raise LookupError("of the host")
    assert isinstance(await submit, Cancelled)
    assert not descendants() & {pid}


@on_both_loops
async def test_events_tell_what_happens(gate: Gate) -> None:
    """From the call of `events` to Closed: retries, settlements, the worker's coming and going."""
    told: list[Any] = []
    center = DataParallelDispatchCenter(Actor, config=ONE)
    with pytest.raises(CenterClosed):
        center.events()

    async def listen(events: AsyncIterator[Any]) -> None:
        async for event in events:
            told.append(event)  # noqa: PERF401  (one by one: the last one ends it)

    async with center:
        listening = asyncio.create_task(listen(center.events()))
        await center.submit(Job("progress", 7))
        await center.submit(Job("print", "hello"))
        await center.submit_outcome(Job("raise", "no"))
    await listening
    kinds = [type(event).__name__ for event in told]
    assert kinds == ["Progressed", "Settled", "Printed", "Settled", "Settled", "WorkerEnded", "Closed"]
    progressed, printed, ended = told[0], told[2], told[5]
    assert (progressed.shard_id, progressed.done, progressed.total) == ("0", 7, 7)
    assert (printed.shard_id, printed.text) == ("1", "hello\n")
    assert (ended.expected, ended.fault, ended.pid) == (True, None, progressed.pid)
    assert isinstance(told[4].outcomes[0], Failed)


@on_one_loop
async def test_a_snapshot_tells_what_each_worker_does(gate: Gate) -> None:
    """The running shard, for how long, in which process and memory; what waits; what is done."""
    async with DataParallelDispatchCenter(Actor, config=ONE) as center:
        await center.submit(Job())
        running = asyncio.create_task(center.submit(Shard(gate.job, id="the one")))
        [pid] = await gate.entered()
        await until(lambda: center.snapshot().workers[0].shard_id == "the one")
        snapshot = center.snapshot()
        [worker] = snapshot.workers
        assert (worker.pid, worker.runner, worker.state) == (pid, "Actor", "ready")
        assert 0 < worker.seconds < snapshot.seconds
        assert worker.rss > 1_000_000
        assert (snapshot.counts["done"], snapshot.in_flight, snapshot.draining) == (1, 1, False)
        assert snapshot.rate > 0
        gate.open()
        await running
    for door in (center.snapshot, center.drain):
        with pytest.raises(CenterClosed, match=f"{door.__name__} needs an open centre"):
            door()


@on_one_loop
@pytest.mark.parametrize("kind", [DataParallelDispatchCenter, LocalDispatchCenter])
async def test_a_snapshot_tells_the_oldest_of_several_shards(kind: Any, gate: Gate) -> None:
    """In the async lane the shard that has run longest is told, in this process and in others; then nobody."""
    async with kind(AsyncActor, config=ONE) as center:
        running = [asyncio.create_task(center.submit(Shard(gate.job, id=f"s{n}"))) for n in range(3)]
        await gate.entered(1 if kind is LocalDispatchCenter else 3)
        await until(lambda: center.snapshot().workers[0].shard_id == "s0")
        assert center.snapshot().workers[0].seconds > 0
        gate.open()
        await asyncio.gather(*running)
        await until(lambda: center.snapshot().workers[0].shard_id is None)


class Point(pydantic.BaseModel):
    """A pydantic model travels like a Struct."""

    x: int
    y: int = pydantic.Field(default=0, ge=0)


def mirror(point: Point) -> Point:
    """With x and y exchanged."""
    return Point(x=point.y, y=abs(point.x))


@on_one_loop
async def test_pydantic_models_travel() -> None:
    """Payloads and values may be pydantic models, validated on arrival."""
    async with DataParallelDispatchCenter(mirror, config=ONE) as center:
        assert await center.submit(Point(x=1, y=2)) == Point(x=2, y=1)
        outcome = await center.submit_outcome({"x": 1, "y": -1})
        assert outcome.fault.cause == "undeliverable"
        assert "greater than or equal to 0" in outcome.fault.message


@pytest.mark.parametrize(
    "center", [DataParallelDispatchCenter, LocalDispatchCenter, DispatchCenter, TwoKinds]
)
def test_centres_are_generic_with_defaults(center: Any) -> None:
    """One type argument stands for the payload, the second may be left out, as type checkers read it."""
    if center is TwoKinds:
        with pytest.raises(TypeError):
            center[int]
    else:
        assert center[int].__args__ == (int, Any)
        assert center[int, str].__args__ == (int, str)


@on_both_loops
async def test_on_event_hears_everything() -> None:
    """Set before the centre opens, it is told each event, the first and the last too; one that raises hurts nobody."""
    center = DataParallelDispatchCenter(double, range(3), config=ONE)
    heard: list[str] = []

    def hear(event: Any) -> None:
        heard.append(type(event).__name__)

    center.on_event = hear
    assert (await center.run()).values() == [0, 2, 4]
    assert heard[:2] == ["Opened", "WorkerReady"]
    assert "Settled" in heard
    assert heard[-1] == "Closed"
    center.on_event = lambda event: 1 / 0
    assert (await center.run()).values() == [0, 2, 4]
