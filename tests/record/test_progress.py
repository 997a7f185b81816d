"""What a person sees of a run: the right numbers, in the room that there is."""

import io
from typing import Any

import pytest
from rich.console import Console

from dispatch import (
    Cancelled,
    Done,
    Draining,
    Failed,
    Fault,
    Opened,
    Progressed,
    Retrying,
    Settled,
    Snapshot,
    WorkerEnded,
    WorkerReady,
)
from dispatch.record.progress import Progress, clock, rate_text, size_text, view
from dispatch.terms.event import WorkerState
from dispatch.terms.shard import Entry, Origin

ORIGIN = Origin(0, bytes)


def done(number: int, *, reused: bool = False) -> Settled:
    """So many shards are done."""
    entries = [Entry(index, b"", ORIGIN, reused=reused) for index in range(number)]
    return Settled(at=0.0, outcomes=[Done(value=1, entry=entry) for entry in entries])


def failed(*causes: Any) -> Settled:
    """Shards failed for these causes."""
    return Settled(
        at=0.0,
        outcomes=[Failed(fault=Fault(cause=cause), entry=Entry(0, b"", ORIGIN)) for cause in causes],
    )


def worker(number: int, **fields: Any) -> WorkerState:
    """A worker that runs a shard."""
    given = {
        "state": "ready",
        "shard_id": f"q{number}",
        "seconds": float(number),
        "rss": 45_000_000,
        "in_flight": 1,
    }
    return WorkerState(**{"runner": "Grader", "pid": 1000 + number, **given, **fields})


def snapshot(*workers: WorkerState, rate: float = 0.0) -> Snapshot:
    """A centre with these workers."""
    return Snapshot(
        counts={}, ready=0, delayed=0, in_flight=0, seconds=1.0, rate=rate, draining=False, workers=workers
    )


def drawn(progress: Progress, width: int = 80, height: int = 24) -> list[str]:
    """The live view as lines of text."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as captured:
        console.print(view(progress, width=width, height=height, title="grading:Grader  data.jsonl"))
    return captured.get().splitlines()


def test_events_are_counted() -> None:
    """By kind and cause, with retries and lost workers; what was cancelled is not progress."""
    progress = Progress(20)
    fault = Fault(cause="raised")
    for event in (
        done(5),
        done(2, reused=True),
        failed("raised", "timed_out", "raised"),
        Settled(at=0.0, outcomes=[Cancelled(entry=Entry(0, b"", ORIGIN))]),
        Retrying(at=0.0, shard_id="1", attempt=1, fault=fault, wait=0.0),
        WorkerEnded(at=0.0, worker=0, runner="R", pid=1, expected=False, fault=fault),
        WorkerEnded(at=0.0, worker=0, runner="R", pid=1, expected=True),
        Draining(at=0.0),
    ):
        progress.hear(event)
    assert progress.counts == {"done": 7, "failed": 3, "raised": 2, "timed_out": 1, "cancelled": 1}
    assert progress.causes == {"raised": 2, "timed_out": 1}
    assert (progress.finished, progress.reused, progress.retried, progress.died) == (10, 2, 1, 1)
    assert progress.coverage == 0.35
    assert progress.line() == (
        "10 of 20, 7 done (2 reused), 3 failed (raised 2, timed_out 1), 1 cancelled, draining"
    )


def test_rate_and_time_left() -> None:
    """They rest on the last half minute, and on what was run and not on what was reused."""
    progress = Progress(1000)
    progress.tick(0.0)
    assert (progress.rate, progress.left) == (None, None)
    progress.hear(done(300, reused=True))
    progress.hear(done(100))
    progress.tick(10.0)
    assert progress.rate == 10.0
    assert progress.left == 60.0
    for second in range(20, 100, 10):
        progress.tick(float(second))
    assert progress.rate == 0.0
    assert progress.left is None
    assert progress.line() == "400 of 1,000, 400 done (300 reused), 0.0/s"


def test_nobody_knows_how_much_is_left() -> None:
    """Without a total there is a count and a rate, and no time left."""
    progress = Progress()
    progress.tick(0.0)
    progress.hear(done(1500))
    progress.tick(1.0)
    assert (progress.left, progress.coverage) == (None, 1.0)
    assert progress.line() == "1,500 finished, 1,500 done, 1,500/s"
    assert "1,500/s" in "\n".join(drawn(progress))


def test_another_process_tells_its_counts() -> None:
    """With a snapshot and counts of a journal the same view stands without events."""
    progress = Progress(10)
    progress.see(snapshot(worker(1), rate=2.0), {"done": 4})
    assert (progress.finished, progress.rate, progress.left) == (4, 2.0, 3.0)
    progress.total_known = False
    assert progress.left is None
    assert "4/10+" in drawn(progress)[1]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (40, 10)])
def test_the_view_fits_its_terminal(width: int, height: int) -> None:
    """However many workers and however long their names: so many columns, so many lines, and the rest is counted."""
    progress = Progress(1_000_000)
    progress.hear(done(500_000 // 1000))
    progress.hear(failed("raised", "crashed", "out_of_memory", "timed_out", "undeliverable"))
    progress.hear(Draining(at=0.0))
    progress.see(snapshot(*(worker(n, runner="Grader" * 20, shard_id="q" * 300) for n in range(100))))
    lines = drawn(progress, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("and ")
    assert "draining" in "\n".join(lines)


def test_when_there_are_many_workers_the_slowest_are_shown() -> None:
    """Those whose shard runs for the longest time; what they say of their progress stands beside."""
    progress = Progress(10)
    progress.hear(Progressed(at=0.0, shard_id="q99", done=30, total=100, pid=1))
    progress.see(snapshot(*map(worker, range(100))))
    lines = drawn(progress)
    assert "1:39" in lines[4]
    assert "q99  30/100" in lines[4]
    assert "45 MB" in lines[4]


def test_until_a_worker_is_ready() -> None:
    """It is said how many are starting, and no rate."""
    progress = Progress(10)
    progress.tick(0.0)
    progress.hear(Opened(at=0.0, workers=30))
    progress.tick(1.0)
    assert drawn(progress)[2] == "starting 30 workers"
    assert progress.line() == "0 of 10, 0 done, starting 30 workers"
    progress.hear(WorkerReady(at=0.0, worker=1, runner="R", pid=1, seconds=1.0))
    assert drawn(progress)[2] == "done 0  coverage 0.0%"


def test_a_name_is_never_markup() -> None:
    """Ids and names stand there as they are; a control character is escaped."""
    progress = Progress(10)
    progress.see(snapshot(worker(1, runner="[bold]R", shard_id="[/f1]\x1b[2J")))
    assert drawn(progress)[4].split()[::2][:2] == ["[bold]R", "[/f1]\\x1b[2J"]


def test_what_a_worker_does() -> None:
    """Starts, is idle, or runs shards that are too short to be named."""
    progress = Progress(10)
    progress.see(
        snapshot(
            worker(1, shard_id=None, in_flight=0, seconds=3.0),
            worker(2, shard_id=None, in_flight=9, seconds=0.0),
            worker(3, shard_id=None, state="starting", seconds=0.0, pid=0, rss=0),
        )
    )
    idle, short, starting = drawn(progress)[4:7]
    assert idle.split() == ["Grader", "1001", "idle", "3.0", "s", "45", "MB"]
    assert short.split() == ["Grader", "1002", "busy", "45", "MB"]
    assert starting.split() == ["Grader", "starting"]


def test_numbers_for_people() -> None:
    """Times, rates and sizes in the unit that says most."""
    assert [clock(s) for s in (0, 59.94, 187, 7387, 180_000)] == [
        "0.0 s",
        "59.9 s",
        "3:07",
        "2:03:07",
        "2 d 2 h",
    ]
    assert [rate_text(r) for r in (0, 0.25, 3.14, 1234)] == ["0.0/s", "15.0/min", "3.1/s", "1,234/s"]
    assert [size_text(s) for s in (812, 45_200, 45e6, 1.234e9)] == ["812 B", "45 kB", "45 MB", "1.2 GB"]
