"""What a run would do, as the dummy centre saw it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dispatch.record.progress import size_text
from dispatch.terms.report import Plan

__all__ = ("plan_lines",)

SHOWN = 10  # shards of each kind that are named


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan, for a person to read."""
    for name, number in Counter(plan.runners).items():
        yield f"workers       {number} x {name}"
    shared = plan.shared_param_bytes
    yield f"shared param  {'none' if shared is None else size_text(shared)}"
    sizes = [shard.size for shard in plan.shards]
    total = f", {size_text(sum(sizes))} encoded, the biggest {size_text(max(sizes))}" if sizes else ""
    yield f"shards        {len(sizes):,}{total}"
    for shard in plan.shards[:SHOWN]:
        yield f"  {shard.id:<24} {size_text(shard.size):>8}  {shard.digest}"
    if len(sizes) > SHOWN:
        yield f"  and {len(sizes) - SHOWN:,} more"
    problems = plan.problems
    if problems:
        yield f"undeliverable {len(problems):,}"
        for shard in problems[:SHOWN]:
            yield f"  {shard.id}: {shard.problem}"
        if len(problems) > SHOWN:
            yield f"  and {len(problems) - SHOWN:,} more"
