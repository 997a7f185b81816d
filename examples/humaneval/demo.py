"""The same grading as a centre that brings its own shards, for `dispatch run`: recorded, interrupted, resumed.

``dispatch run examples.humaneval.demo:Demo --config examples/humaneval/run.toml --work-dir runs/humaneval``
"""

from collections.abc import Iterator
from typing import Any

from dispatch import Cancelled, Report, Shard
from examples.humaneval.candidates import KINDS, Candidate, load_problems, make_candidates
from examples.humaneval.grading import GradeCenter, Verdict
from examples.humaneval.report import Graded, ending


class Demo(GradeCenter):
    """Every kind of candidate for each problem, one in four of those that hang."""

    limit: int | None = None  # problems

    def iter_shards(self) -> Iterator[Shard[Candidate]]:
        """Each under an id that a person can read: `HumanEval/7: raises`."""
        for candidate in make_candidates(load_problems(self.limit), KINDS, every=4):
            yield Shard(candidate, id=f"{candidate.task_id}: {candidate.kind}")

    async def post_process(self, report: Report[Verdict]) -> None:
        """A table of what became of each kind. The report holds only what is not Done; the rest has passed."""
        graded = Graded(KINDS)
        rest: dict[str, Any] = {outcome.shard_id: outcome for outcome in report.outcomes}
        for index, shard in enumerate(self.iter_shards()):
            outcome = rest.get(shard.id)
            if index >= report.total or isinstance(outcome, Cancelled):
                continue  # the run was interrupted before it came to this one
            graded.note(shard.id, shard.payload.kind, ending(outcome) if outcome else "passed")
        print(graded.table())
        print(
            "\n".join(["NOT as it must be:", *graded.surprises]) if graded.surprises else "all as it must be"
        )
        print()
