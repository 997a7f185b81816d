"""What a shard does to its process, the next one in that process does not meet."""

from __future__ import annotations

import pytest

from dispatch import Done
from tests.faults import culprits
from tests.faults.culprits import LooksAround, Task
from tests.faults.scene import run

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    "act",
    [
        culprits.sets_an_alarm,
        culprits.changes_directory,
        culprits.changes_the_locale,
        culprits.changes_the_umask,
        culprits.sets_a_trace_function,
        culprits.reads_stdin,
        culprits.leaves_a_thread,
        culprits.raises_two_arguments,
        culprits.changes_and_raises,
    ],
)
async def test_the_next_shard_finds_the_process_as_setup_left_it(act) -> None:
    """Timers, directory, umask, locale and trace functions are as `setup` left them, whoever came before."""
    shards = [Task(0), Task(1, act.__name__), *(Task(n) for n in range(2, 20))]
    report = await run(LooksAround, shards, workers=1)
    seen = [outcome.value for outcome in report.outcomes if isinstance(outcome, Done) and outcome.index != 1]
    assert len(seen) == 19
    assert all(view == seen[0] for view in seen)
    assert len(report.workers[0].pids) == 1


async def test_an_alarm_that_a_shard_left_does_not_ring_in_the_next() -> None:
    """An interval timer that a shard leaves running cannot kill the shard after it."""
    shards = [Task(0, "sets_an_alarm"), *(Task(n, "works", 0.02) for n in range(1, 6))]
    report = await run(LooksAround, shards, workers=1)
    assert report.counts == {"done": 6}
    assert len(report.workers[0].pids) == 1
