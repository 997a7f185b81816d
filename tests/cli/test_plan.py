"""A plan as a person reads it."""

from dispatch import Plan, PlannedShard
from dispatch.cli.plan import plan_lines


def test_a_plan_in_lines() -> None:
    """Workers by runner, bytes, the first ten shards, the first ten problems, and how many more there are."""
    shards = [PlannedShard(id=f"q{n}", size=n, digest=f"{n:032x}") for n in range(20)]
    shards += [PlannedShard(id=f"bad{n}", size=0, digest="", problem="no") for n in range(12)]
    lines = list(plan_lines(Plan(runners=("A", "A", "B"), shared_param_bytes=45_000_000, shards=shards)))
    assert lines[:4] == [
        "workers       2 x A",
        "workers       1 x B",
        "shared param  45 MB",
        "shards        32, 190 B encoded, the biggest 19 B",
    ]
    assert lines[4].split() == ["q0", "0", "B", "0" * 32]
    assert lines[14:17] == ["  and 22 more", "undeliverable 12", "  bad0: no"]
    assert lines[-1] == "  and 2 more"


def test_an_empty_plan() -> None:
    """Nothing to run, and nothing shared."""
    lines = list(plan_lines(Plan(runners=("A",), shared_param_bytes=None)))
    assert lines == ["workers       1 x A", "shared param  none", "shards        0"]
