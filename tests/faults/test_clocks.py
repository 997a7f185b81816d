"""Queue, start-up and run are three clocks, and a timeout reads only the third."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig, Policy, Shard, StartupFailed
from tests.faults.culprits import Culprit, HangsInSetup, SlowSetup, Task
from tests.faults.scene import Lateness, failed, run, uncharged
from tests.faults.slow_import import double

pytestmark = pytest.mark.asyncio


async def test_waiting_in_the_queue_is_not_running() -> None:
    """10 shards of 0.4 s on 2 workers with timeout=1.0 never time out, though the last waits 1.6 s."""
    report = await run(Culprit, [Task(n, "sleeps_for", 0.4) for n in range(10)], timeout=1.0)
    uncharged(report)
    queued = [outcome.attempts[0].queued for outcome in report.outcomes]
    seconds = [outcome.attempts[0].seconds for outcome in report.outcomes]
    assert max(queued) > 1.2
    assert max(seconds) < 1.0


async def test_waiting_behind_others_in_one_worker_is_not_running() -> None:
    """Shards that travelled in one frame with a slow one start their own clocks when they start."""
    shards = [Task(n) for n in range(400)] + [Task(n, "sleeps_for", 0.03) for n in range(400, 420)]
    uncharged(await run(Culprit, shards, workers=1, timeout=0.3))


async def test_a_slow_import_is_not_running() -> None:
    """A worker whose import takes 1.5 s does not eat its first shard's deadline of 0.3 s."""
    config = DispatchConfig(data_parallel=2, policy=Policy(timeout=0.3), env={"SLOW_IMPORT": "1.5"})
    report = await DataParallelDispatchCenter(double, range(20), config=config).run()
    uncharged(report)
    assert report.seconds < 1.5  # nor does it count as the run's: the centre was not open yet


async def test_a_slow_setup_is_not_running() -> None:
    """A `setup` of 0.6 s does not eat a deadline of 0.3 s, neither the first worker's nor a replacement's."""
    shards = [Task(0), Task(1, "exits"), *(Task(n) for n in range(2, 20))]
    report = await run(SlowSetup, shards, workers=1, timeout=0.3, crash_budget=1)
    uncharged(report, but=[1])


async def test_a_worker_that_is_not_ready_in_time(lateness: Lateness) -> None:
    """A `setup` that hangs ends the start within startup_timeout, with the stack that shows where."""
    center = DataParallelDispatchCenter(
        HangsInSetup, range(3), config=DispatchConfig(data_parallel=2, policy=Policy(startup_timeout=3.0))
    )
    with pytest.raises(StartupFailed, match="startup_timeout") as raised:
        await center.run()
    assert "in setup" in raised.value.fault.stack


async def test_a_worker_process_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not even say hello within startup_timeout is told so, and is not left behind."""
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = DispatchConfig(data_parallel=2, policy=Policy(startup_timeout=1.0))
    with pytest.raises(StartupFailed, match="no worker process within 1 s"):
        await DataParallelDispatchCenter(Culprit, config=config).run([Task(1)])


async def test_the_shards_own_timeout(lateness: Lateness) -> None:
    """A Shard's timeout stands before the policy's, whichever is shorter."""
    shards = [
        Shard(Task(0, "sleeps_for", 0.5), timeout=5.0),
        Shard(Task(1, "sleeps"), timeout=0.2),
        *(Task(n) for n in range(2, 50)),
    ]
    report = await run(Culprit, shards, timeout=0.3)
    outcome = failed(report, 1)
    assert outcome.fault.cause == "timed_out"
    assert 0.2 <= outcome.attempts[0].seconds < 0.4 + lateness.slack
    uncharged(report, but=[1])


async def test_who_returns_at_the_last_moment_costs_nobody() -> None:
    """A shard that ends between its deadline and its death is Done, and the next one is not killed for it."""
    shards = [Task(0, "returns_at_the_last_moment"), Task(1, "works", 0.2)]
    report = await run(Culprit, shards, workers=1, timeout=0.4, crash_budget=1)
    assert report.counts == {"done": 2}
    assert len(report.workers[0].pids) == 1
