"""What became of a run, as numbers and as a table that a person reads."""

from typing import Any

import pytest

from dispatch.terms.errors import WorkerDied
from dispatch.terms.outcome import Cancelled, Done, Failed, Fault, Outcome
from dispatch.terms.report import Plan, PlannedShard, Report, WorkerFigures
from dispatch.terms.shard import Entry, Origin

ORIGIN = Origin(1, bytes)


def done(index: int, value: Any = None) -> Done[Any]:
    """Return a shard that is done."""
    return Done(value, Entry(index, b"", ORIGIN))


def failed(index: int, cause: Any = "raised", kind: str = "ValueError", message: str = "no") -> Failed:
    """Return a shard that failed."""
    return Failed(fault=Fault(cause=cause, type=kind, message=message), entry=Entry(index, b"", ORIGIN))


def cancelled(index: int) -> Cancelled:
    """Return a shard that was cancelled."""
    return Cancelled(entry=Entry(index, b"", ORIGIN, id=f"c{index}"))


def report(*outcomes: Outcome[Any], **known: Any) -> Report[Any]:
    """Return the report of a run that ended with these outcomes after two seconds."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        for name in (
            type(outcome).__name__.lower(),
            *([outcome.fault.cause] if isinstance(outcome, Failed) else []),
        ):
            counts[name] = counts.get(name, 0) + 1
    about = {"counts": counts, "total": len(outcomes), "total_known": True, "seconds": 2.0, **known}
    return Report(outcomes=list(outcomes), **about)


MIXED = report(
    done(0, "a"),
    failed(1),
    done(2, "b"),
    failed(3, message="other"),
    failed(4),
    failed(5, "crashed", "", "worker 412 died of SIGKILL"),
    cancelled(6),
    done(7, "c"),
)


def test_a_report_counts_by_kind_and_cause() -> None:
    """Failures stay in the denominator of coverage, and whatever is not Done is unfinished, in input order."""
    assert MIXED.counts == {"done": 3, "failed": 4, "raised": 3, "crashed": 1, "cancelled": 1}
    assert MIXED.coverage == 3 / 8
    assert MIXED.unfinished == ["1", "3", "4", "5", "c6"]
    assert [failure.index for failure in MIXED.failures] == [1, 3, 4, 5]


def test_a_run_of_nothing_is_covered() -> None:
    """No shards: nothing is missing, and nothing is divided by zero."""
    assert report(seconds=0.0).coverage == 1.0
    assert "0 done of 0 shards" in str(report(seconds=0.0))


def test_values_come_in_input_order() -> None:
    """When all is done, the values are what the runners returned."""
    assert report(done(0, "a"), done(1, None), done(2, "c")).values() == ["a", None, "c"]


def test_values_raise_what_the_first_missing_one_raises() -> None:
    """A value that is not there is not silently left out."""
    with pytest.raises(WorkerDied, match="shard 1: gone"):
        report(done(0), failed(1, "crashed", "", "gone"), failed(2)).values()


def test_values_that_were_not_kept_are_an_error() -> None:
    """run(collect=False) has none to give, though nothing failed."""
    with pytest.raises(ValueError, match=r"collect=False"):
        report(collected=False).values()


def test_iterating_a_report_gives_its_outcomes() -> None:
    """In input order, as `outcomes` has them."""
    assert [outcome.index for outcome in MIXED] == list(range(8))


# ----------------------------------------------------------------------------------------- the table


def test_the_table_says_what_a_person_asks_first() -> None:
    """How many are done, of how many, how fast, how complete; then each kind and cause with its share."""
    lines = str(MIXED).splitlines()
    assert lines[0] == "3 done of 8 shards in 2.00 s (2/s), coverage 37.5%"
    assert lines[2].split() == ["outcome", "shards", "share"]
    rows = [line.split() for line in lines[3:7]]
    assert rows == [
        ["done", "3", "37.5%"],
        ["crashed", "1", "12.5%"],
        ["raised", "3", "37.5%"],
        ["cancelled", "1", "12.5%"],
    ]


def test_the_table_groups_failures_the_most_common_first() -> None:
    """Each kind once, with its number, an example and the first line of its message."""
    lines = str(MIXED).splitlines()
    at = lines.index("  failures, most common first")
    assert [" ".join(line.split()) for line in lines[at + 1 :]] == [
        "2 x raised ValueError: no (shard 1)",
        "1 x raised ValueError: other (shard 3)",
        "1 x crashed worker 412 died of SIGKILL (shard 5)",
    ]


def test_the_table_stays_short_and_narrow() -> None:
    """Five kinds of failure are shown and the others counted; a long message is cut, a later line is left out."""
    many = [failed(n, message=f"{n} " + "x" * 200 + "\nsecond line") for n in range(8)]
    text = str(report(*many))
    assert text.count(" x raised") == 5
    assert "and 3 more kinds" in text
    assert "second line" not in text
    assert max(map(len, text.splitlines())) < 140


def test_columns_stand_under_each_other() -> None:
    """Also with a million shards."""
    big = report(counts={"done": 1_234_567, "failed": 1, "raised": 1}, total=1_234_568)
    rows = str(big).splitlines()[2:5]
    assert len({len(row) for row in rows}) == 1
    assert "1,234,567" in rows[1]


def test_the_table_says_when_there_may_be_more() -> None:
    """A run that was interrupted, or whose source did not end, says so."""
    text = str(report(done(0), total_known=False, interrupted=True))
    assert "1 done of 1 shards known so far in 2.00 s" in text
    assert "interrupted" in text
    assert "interrupted" not in str(MIXED)


def test_the_table_shows_what_each_worker_did() -> None:
    """Shards, busy seconds and processes, one line a worker."""
    workers = (
        WorkerFigures(runner="Scorer", pids=(1, 2), shards=1200, busy=1.5),
        WorkerFigures(runner="Grader", pids=(3,), shards=1, busy=0.25),
    )
    lines = str(report(done(0), workers=workers)).splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["worker", "shards", "busy", "processes"],
        ["Scorer", "1,200", "1.50", "s", "2"],
        ["Grader", "1", "0.25", "s", "1"],
    ]
    assert len({len(line) for line in lines[-3:]}) == 1


# ------------------------------------------------------------------------------------------ the plan


def test_a_plan_knows_its_problems() -> None:
    """The shards that could not have been delivered."""
    good = PlannedShard(id="0", size=3, digest="ab")
    bad = PlannedShard(id="1", size=0, digest="", problem="payload is odd")
    plan = Plan(runners=("R",), shared_param_bytes=None, shards=[good, bad])
    assert plan.problems == [bad]
    assert Plan(runners=(), shared_param_bytes=7).shards == []
