"""A centre of one's own: brings its shards and a shared param, and answers its runners' questions.

State lives here, in one event loop, so that two workers are never given the same key twice in a row.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator

from dispatch import DataParallelDispatchCenter, DispatchConfig, Done, Report, remote
from examples.custom_runner import Sample, Score, ScoreRunner

SQUARES = {f"{n} squared": str(n * n) for n in range(100)}


class ScoreCenter(DataParallelDispatchCenter):
    """Scores a table of squares, with keys that take turns."""

    runner = ScoreRunner
    _keys = itertools.cycle(["key-a", "key-b", "key-c", "key-d"])

    def iter_shards(self) -> Iterator[Sample]:
        """Every tenth question has a wrong answer in the key."""
        for n, (question, answer) in enumerate(SQUARES.items()):
            yield Sample(question, answer if n % 10 else "-1")

    def get_shared_param(self) -> dict[str, str]:
        """What the "model" knows; encoded once, decoded once in each worker."""
        return SQUARES

    @remote
    async def next_key(self, model: str) -> str:
        """Runs in the parent's event loop, whichever worker asks."""
        return f"{next(self._keys)} for {model}"

    async def post_process(self, report: Report[Score]) -> None:
        """Once, when the run is over; also when some shards failed, or it was interrupted."""
        scores = [outcome.value for outcome in report if isinstance(outcome, Done)]
        print(f"correct: {sum(score.correct for score in scores)} of {report.total}")
        for key, uses in sorted(Counter(score.key for score in scores).items()):
            print(f"{key}: {uses} calls")


if __name__ == "__main__":
    asyncio.run(ScoreCenter(config=DispatchConfig(data_parallel=2)).run())
