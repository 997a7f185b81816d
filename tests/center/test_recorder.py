"""A run with a work_dir goes on where the record ends, through every door, and refuses what would be wrong."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dispatch import (
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    DuplicateShard,
    Failed,
    JournalError,
    LocalDispatchCenter,
    Policy,
    Report,
    Retry,
    RunDrifted,
    Runner,
    Shard,
    WorkDirOccupied,
)
from dispatch.record.archive import Archive
from tests.center.facts import Gate, NewGate, on_both_loops, on_one_loop, until
from tests.center.runners import Actor, Job, add_shared, double

RAN: list[Any] = []  # what was executed in this process, by LocalDispatchCenter


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Each test counts from none."""
    RAN.clear()


@pytest.fixture
def config(tmp_path: Path) -> DispatchConfig:
    """A work_dir of its own."""
    return DispatchConfig(data_parallel=2, work_dir=str(tmp_path / "record"))


def traced(x: Any) -> Any:
    """Itself; leaves a trace."""
    RAN.append(x)
    return x


def odd_fails(x: int) -> int:
    """Refuses odd numbers."""
    RAN.append(x)
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


class Versioned(Runner):
    """Traced, with a version."""

    def do_run(self, shard: Shard[Any]) -> Any:
        """Itself."""
        return traced(shard.payload)


async def local(shards: Any, config: DispatchConfig, runner: Any = traced, **more: Any) -> Report[Any]:
    """One run in this process."""
    return await LocalDispatchCenter(runner, shards, config=config, **more).run()


def archive(config: DispatchConfig) -> Archive:
    """The record."""
    assert config.work_dir is not None
    return Archive.open(config.work_dir)


@on_both_loops
async def test_done_shards_are_not_run_again(config: DispatchConfig) -> None:
    """The same command again finishes the run: what is Done comes back in order, as reused, with its attempts."""
    center = DataParallelDispatchCenter(double, range(300), config=config)
    first = await center.run(range(200))
    second = await center.run()
    assert second.values() == [2 * n for n in range(300)]
    assert [outcome.reused for outcome in second] == [True] * 200 + [False] * 100
    assert (second.reused, second.counts) == (200, {"done": 300})
    assert "200 of them reused from the journal, 100 run" in str(second)
    for before, after in zip(first, second, strict=False):
        [old], [new] = before.attempts, after.attempts
        assert (old.runner, old.pid) == (new.runner, new.pid)
        assert old.started_at == pytest.approx(new.started_at, abs=1e-3)
        assert (old.seconds, old.queued) == pytest.approx((new.seconds, new.queued), abs=1e-6)


@on_one_loop
async def test_every_door_goes_on(config: DispatchConfig) -> None:
    """Streams, ordered or not, runs that collect nothing, an open centre: each goes on from what another recorded."""
    await local(range(50), config)
    async with LocalDispatchCenter(traced, config=config) as center:
        async with center.stream(range(60), ordered=True) as outcomes:
            assert [outcome.unwrap() async for outcome in outcomes] == list(range(60))
        async with center.stream(range(70)) as outcomes:
            assert sorted([outcome.unwrap() async for outcome in outcomes]) == list(range(70))
        report = await center.run(range(80), collect=False)
    assert (report.counts, report.reused, report.outcomes) == ({"done": 80}, 70, [])
    assert [*range(80)] == RAN


@on_one_loop
async def test_order_does_not_matter(config: DispatchConfig) -> None:
    """Shards are known by their content, in whatever order and between whatever others they come."""
    await local(range(100), config)
    RAN.clear()
    for shards in (
        [*range(99, -1, -1)],
        [*range(50, 100), *range(50)],
        ["new", *range(100)],
        [*range(0, 100, 3)],
    ):
        report = await local(shards, config)
        assert report.values() == shards
    assert RAN == ["new"]


@on_one_loop
async def test_equal_shards_are_counted(config: DispatchConfig) -> None:
    """Of n equal shards as many are reused as were recorded: the rest runs."""
    await local([7] * 30 + ["x"], config)
    RAN.clear()
    report = await local(["x"] + [7] * 40 + ["x"], config)
    assert report.values() == ["x"] + [7] * 40 + ["x"]
    assert RAN == [7] * 10 + ["x"]


@on_one_loop
async def test_the_order_of_sets_and_keys_does_not_matter(config: DispatchConfig) -> None:
    """A payload is the same shard in every process, although sets of strings are in another order there."""
    await local([{"b": 1, "a": {"x", "y"}}, {2: 1, 1: 2}], config)
    report = await local([{"a": ["x", "y"], "b": 1}, {2: 1, 1: 2}], config)
    assert report.reused == 2


@on_one_loop
async def test_failures_run_again(config: DispatchConfig) -> None:
    """By default Failed shards run again, and their attempts are counted on; with resume="all" they are reused too."""
    await local(range(4), config, odd_fails)
    again = await local(range(4), config, odd_fails)
    assert RAN == [0, 1, 2, 3, 1, 3]
    assert [(outcome.reused, len(outcome.attempts)) for outcome in again] == [
        (True, 1),
        (False, 2),
        (True, 1),
        (False, 2),
    ]
    every = await local(range(4), replace(config, resume="all"), odd_fails)
    assert len(RAN) == 6
    assert (every.reused, every.counts) == (4, {"done": 2, "failed": 2, "raised": 2})
    failed = every.outcomes[1]
    assert isinstance(failed, Failed)
    assert failed.fault.message == "1 is odd"
    assert len(failed.attempts) == 2
    with pytest.raises(ValueError, match="1 is odd"):
        failed.unwrap()


@on_one_loop
async def test_a_fresh_start_stands_beside_the_old_record(config: DispatchConfig) -> None:
    """With resume="none" everything runs, the old outcomes stay, and the next run goes on from the new ones."""
    await local(range(5), config)
    await local(range(3), replace(config, resume="none"))
    assert (await local(range(5), config)).reused == 3
    with archive(config) as record:
        assert (record.total(book=1), record.total(book=2), record.total()) == (5, 5, 5)
        assert [run.book for run in record.runs()] == [1, 2, 2]
        assert {shard.book for shard in record.outcomes(book=1)} == {1}


@on_one_loop
async def test_supplied_ids_belong_to_the_content(config: DispatchConfig) -> None:
    """A shard with an id is the recorded one if id and content are the same."""
    await local([Shard(1, id="a"), Shard(2, id="b")], config)
    report = await local([Shard(2, id="b"), Shard(3, id="a"), Shard(1, id="c")], config)
    assert [outcome.reused for outcome in report] == [True, False, False]


@on_one_loop
async def test_duplicate_ids_are_found_in_the_whole_run(config: DispatchConfig) -> None:
    """An id is refused a second time however long ago its shard was settled, in this run or by reuse."""
    few = replace(config, max_pending=4)
    shards = [Shard(n, id=f"q{n}") for n in range(100)]
    for twin in (Shard(3, id="q3"), Shard("other", id="q3")):
        with pytest.raises(DuplicateShard, match="q3"):
            await local([*shards, twin, Shard(0, id="later")], few)
    assert (await local(shards, few)).reused == 100
    changed = [Shard("changed", id="q7"), *shards[8:], *shards[:7]]
    assert (await local(changed, few)).reused == 99
    with pytest.raises(DuplicateShard, match="q7"):
        await local([*changed, shards[7]], few)


@on_one_loop
async def test_what_cannot_be_encoded_is_recorded_once(config: DispatchConfig) -> None:
    """A payload that cannot travel fails in every run, stands in the record once, and harms no other."""
    for _ in range(2):
        report = await local([1, object(), None, Shard(object(), id="x")], config)
        assert report.counts == {"done": 2, "failed": 2, "undeliverable": 2}
    with archive(config) as record:
        assert record.total() == 4
        assert record.counts() == {"done": 2, "failed": 2, "undeliverable": 2}
        assert record.find("x")[0].payload is None


@on_one_loop
async def test_a_changed_version_is_refused(config: DispatchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version, runner or shared param is refused, by name; allow_drift goes on, and that is recorded."""
    await local([1], config, Versioned)
    monkeypatch.setattr(Versioned, "version", "2")
    with pytest.raises(RunDrifted, match=r"Versioned\.version was '1', now '2'"):
        await local([1], config, Versioned)
    with pytest.raises(RunDrifted, match=r"the runner was Versioned, now traced"):
        await local([1], config)
    with pytest.raises(RunDrifted, match=r"the shared param was none, now [0-9a-f]{12}"):
        await local([1], config, Versioned, shared_param={"x"})
    assert (await local([1], replace(config, allow_drift=True), Versioned)).reused == 1
    assert (await local([1], config, Versioned)).reused == 1
    assert (await local([1], replace(config, resume="none"))).reused == 0
    with archive(config) as record:
        assert [run.drift for run in record.runs()] == ["", "Versioned.version was '1', now '2'", "", ""]
        assert record.runs()[-1].runners == {"traced": "1"}


@on_one_loop
async def test_a_refused_run_starts_no_worker(config: DispatchConfig, tmp_path: Path) -> None:
    """What has drifted is refused before a worker is started, and post_process hears nothing of it."""
    await local([1], config, add_shared, shared_param=1)

    class Watched(DataParallelDispatchCenter[Any, Any]):
        def make_engine(self) -> Any:
            raise AssertionError("no engine is needed")

        async def post_process(self, report: Report[Any]) -> None:
            raise AssertionError("there was no run")

    with pytest.raises(RunDrifted):
        await Watched(add_shared, [1], shared_param=2, config=config).run()


@on_one_loop
async def test_one_owner(config: DispatchConfig, gate: Gate) -> None:
    """A second run on the same work_dir is refused, on the same centre too, and names the first; then it is free."""
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        first = asyncio.create_task(center.run([gate.job]))
        await gate.entered()
        with archive(config) as record:
            owner = record.owner()
            assert owner is not None
            assert record.state == "running"
        for second in (center, DataParallelDispatchCenter(Actor, config=config)):
            with pytest.raises(WorkDirOccupied) as refused:
                await second.run([Job()])
            assert (refused.value.pid, refused.value.host) == (owner.pid, owner.host)
        gate.open()
        assert (await first).coverage == 1
        assert (await center.run([gate.job])).reused == 1
    with archive(config) as record:
        assert (record.owner(), record.state) == (None, "finished")


@on_one_loop
async def test_a_submit_is_not_recorded(config: DispatchConfig) -> None:
    """A service with a work_dir records its runs only, and owns the work_dir only while one goes on."""
    async with LocalDispatchCenter(traced, config=config) as center:
        assert await center.submit(1) == 1
        assert config.work_dir is not None
        assert not Path(config.work_dir).exists()
        await center.run([2])
        assert await center.submit(3) == 3
    with archive(config) as record:
        assert [shard.value for shard in record.outcomes()] == [2]


@on_one_loop
async def test_without_a_work_dir_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No work_dir, no file."""
    monkeypatch.chdir(tmp_path)
    await local([1], DispatchConfig())
    assert list(tmp_path.iterdir()) == []


@on_both_loops
async def test_an_interrupted_run_ends_in_the_same_tables(config: DispatchConfig, gate: Gate) -> None:
    """A stream that is left early is recorded to its last shard, as interrupted, and the next run goes on there."""
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        shards = [*(Job(arg=n) for n in range(20)), *[gate.job] * 5, *(Job(arg=n) for n in range(20, 40))]
        async with center.stream(shards) as outcomes:
            seen = [await anext(outcomes) for _ in range(20)]
            await gate.entered()
        with archive(config) as record:
            assert record.state == "interrupted"
            counts = record.counts()
            assert sum(counts.values()) == record.total() == 45
            assert counts["done"] >= len(seen)
        gate.open()
        report = await center.run(shards)
    assert report.reused == counts["done"]
    assert {outcome.index for outcome in report if outcome.reused} >= {outcome.index for outcome in seen}
    assert report.coverage == 1


@on_one_loop
async def test_cancelling_a_run_frees_the_work_dir(config: DispatchConfig, gate: Gate) -> None:
    """A cancelled run leaves its outcomes in the record, and nobody as the owner."""
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        run = asyncio.create_task(center.run([Job(arg=1), gate.job, gate.job]))
        await gate.entered()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        with archive(config) as record:
            assert (record.owner(), record.state) == (None, "interrupted")
            assert {record.find("1")[0].kind, record.find("2")[0].kind} == {"cancelled"}


@on_one_loop
async def test_every_attempt_stands_in_the_record(config: DispatchConfig, tmp_path: Path) -> None:
    """Attempts are recorded one by one, those that failed before the last one with why."""
    job = Job("raise until", (str(tmp_path / "tries"), 3))
    retrying = replace(config, data_parallel=1, policy=Policy(retry=Retry(attempts=3)))
    report = await DataParallelDispatchCenter(
        Actor, [job, Job("give up", str(tmp_path / "no"))], config=retrying
    ).run()
    assert isinstance(report.outcomes[0], Done)
    with archive(config) as record:
        done, failed = record.outcomes()
        assert [attempt.fault and attempt.fault.message for attempt in done.attempts] == [
            "attempt 1",
            "attempt 2",
            None,
        ]
        assert [attempt.seconds for attempt in done.attempts] == pytest.approx(
            [attempt.seconds for attempt in report.outcomes[0].attempts], abs=1e-6
        )
        assert (failed.kind, failed.cause, len(failed.attempts)) == ("failed", "raised", 1)
        assert failed.fault is not None
        assert failed.fault.type == "GiveUp"
    again = await DataParallelDispatchCenter(Actor, [job], config=retrying).run()
    assert len(again.outcomes[0].attempts) == 3


@on_one_loop
async def test_nobody_hears_before_it_is_written(config: DispatchConfig) -> None:
    """When a caller or a listener has an outcome, another connection can read it in the database."""
    assert config.work_dir is not None
    async with LocalDispatchCenter(traced, config=config) as center, center.stream(range(200)) as outcomes:
        with sqlite3.connect(Path(config.work_dir, "journal.db")) as other:
            async for outcome in outcomes:
                question = "SELECT name FROM outcomes WHERE kind = 'done' AND position = ?"
                assert other.execute(question, (outcome.index,)).fetchall() == [(outcome.shard_id,)]
        other.close()


@on_one_loop
async def test_large_values_have_files_of_their_own(config: DispatchConfig) -> None:
    """Payloads and values over 1 MiB stand in files named by their content, equal ones once, and come back."""
    large, small = b"x" * (3 << 20), b"y" * (1 << 20)
    assert config.work_dir is not None
    shards = [large, small[:-100], large, small]
    await local(shards, config)
    names = sorted(path.name for path in Path(config.work_dir, "values").iterdir())
    assert len(names) == 2
    report = await local([*shards, small], replace(config, max_pending_bytes=4 << 20))
    assert (report.values(), report.reused) == ([*shards, small], 4)
    with archive(config) as record:
        assert record.find("0")[0].value == record.find("0")[0].payload == large


@on_one_loop
@pytest.mark.parametrize(
    "harm", [Path.unlink, partial(os.truncate, length=1000), partial(os.truncate, length=0)]
)
async def test_a_large_value_whose_file_is_damaged_runs_again_and_heals(
    config: DispatchConfig, harm: Callable[[Path], None]
) -> None:
    """Gone, cut off or empty: its shard runs again, the others are reused, and then the record is whole again."""
    large, small = b"x" * (3 << 20), b"y" * (1 << 20)
    assert config.work_dir is not None
    await local([large, small, b""], config)
    for path in Path(config.work_dir, "values").iterdir():
        harm(path)
    report = await local([large, small, b""], config)
    assert (report.values(), report.reused) == ([large, small, b""], 1)
    report = await local([large, small, b""], config)
    assert (report.values(), report.reused) == ([large, small, b""], 3)


@on_one_loop
async def test_a_value_that_does_not_fit_any_more_runs_again(config: DispatchConfig) -> None:
    """Where the annotation has changed and the version has not, the shard runs again: its old value is of no use."""

    def now_text(x: int) -> str:
        RAN.append(x)
        return str(x)

    def now_number(x: int) -> int:
        return x

    now_number.__qualname__ = now_text.__qualname__ = "subject"
    await local(range(3), config, now_number)
    report = await local(range(4), config, now_text)
    assert (report.values(), report.reused, RAN) == (["0", "1", "2", "3"], 0, [0, 1, 2, 3])


@on_one_loop
async def test_it_says_how_far_it_is(config: DispatchConfig, new_gate: NewGate) -> None:
    """While a run goes on, its record says what each worker does, and which workers came and went."""
    gate = new_gate()
    async with DataParallelDispatchCenter(Actor, config=replace(config, data_parallel=1)) as center:
        run = asyncio.create_task(center.run([Job(arg=1), gate.job, Job("die", (f"{gate.job.arg}.die", 2))]))
        await gate.entered()
        with archive(config) as record:
            live = await until(lambda: (live := record.live()) and live.snapshot.workers[0].shard_id and live)
            assert (live.counts, live.total, live.unsettled) == ({"done": 1}, 3, 2)
            assert live.snapshot.workers[0].shard_id == "1"
        gate.open()
        await run
    with archive(config) as record:
        last = record.live()
        assert last is not None
        assert (last.counts, last.total_known, last.unsettled) == ({"done": 3}, True, 0)
        assert [event.kind for event in record.events()] == ["workerended", "workerready"]


@on_one_loop
async def test_a_shard_lost_five_times_runs_alone(config: DispatchConfig, gate: Gate) -> None:
    """A shard whose run was killed five times while it ran has its worker for itself; no budget was charged."""
    assert config.work_dir is not None
    one = replace(config, data_parallel=1)
    jobs = [gate.job, *(Job(arg=n) for n in range(50))]
    async with DataParallelDispatchCenter(Actor, config=one) as center:
        async with center.stream(jobs):
            await gate.entered()
        with sqlite3.connect(Path(config.work_dir, "journal.db")) as record:
            record.execute("UPDATE shard SET lost = 5 WHERE position = 0")
        record.close()
        run = asyncio.create_task(center.run(jobs))
        await gate.entered(2)
        assert center.snapshot().in_flight == 1
        gate.open()
        assert (await run).coverage == 1


@on_one_loop
@pytest.mark.parametrize("damage", ["foreign", "garbage", "newer", "a file"])
async def test_what_is_not_ours_is_refused(config: DispatchConfig, damage: str) -> None:
    """A database of somebody else's, of a newer dispatch, no database at all, no directory: an error that says so."""
    assert config.work_dir is not None
    path = Path(config.work_dir, "journal.db")
    path.parent.mkdir() if damage != "a file" else path.parent.touch()
    says = {
        "foreign": "not a journal",
        "garbage": "not a database",
        "newer": "newer dispatch",
        "a file": "File exists",
    }
    if damage == "garbage":
        path.write_bytes(b"no database" * 1000)
    elif damage != "a file":
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (x)")
            if damage == "newer":
                other.execute(f"PRAGMA application_id = {0x44535043}")
                other.execute("PRAGMA user_version = 99")
        other.close()
    before = path.read_bytes() if damage != "a file" else b""
    with pytest.raises(JournalError, match=says[damage]):
        await local([1], config)
    assert RAN == []
    assert damage == "a file" or path.read_bytes() == before


@on_one_loop
async def test_leaving_a_run_that_was_never_begun(config: DispatchConfig) -> None:
    """When workers cannot be started, the work_dir is free again, and the run stands there as interrupted."""

    class Hopeless(LocalDispatchCenter[Any, Any]):
        def make_engine(self) -> Any:
            raise OSError("no engine")

    with pytest.raises(OSError, match="no engine"):
        await Hopeless(traced, [1], config=config).run()
    with archive(config) as record:
        assert (record.owner(), record.state) == (None, "interrupted")
    assert isinstance((await local([1], config)).outcomes[0], Done)
