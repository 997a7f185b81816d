"""Workers in processes: how many, with what environment, and apart from what the host does with processes."""

import asyncio
import io
import os
from pathlib import Path
from typing import Any

import pytest
from anyio import to_process

from dispatch import DataParallelDispatchCenter, DispatchConfig
from dispatch.center import data_parallel
from dispatch.center.data_parallel import usable_cpus
from tests.center.facts import Gate, descendants, is_alive, on_both_loops, on_one_loop, until
from tests.center.runners import Actor, Job, double, work
from tests.hosts_pool import closes_the_hosts_pool


@on_one_loop
async def test_each_worker_is_a_process_of_its_own() -> None:
    """`data_parallel=3` runs three shards at once, in three processes that are not this one."""
    async with DataParallelDispatchCenter(Actor, config=DispatchConfig(data_parallel=3)) as center:
        await until(lambda: all(worker.state == "ready" for worker in center.snapshot().workers))
        pids = {worker.pid for worker in center.snapshot().workers}
        assert len(pids) == 3
        assert os.getpid() not in pids
        assert pids <= descendants()
    assert not any(map(is_alive, pids))


def test_without_a_number_there_is_a_worker_for_each_usable_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By affinity and quota; an own number counts more."""
    monkeypatch.setattr(data_parallel, "usable_cpus", lambda: 7)
    assert len(DataParallelDispatchCenter(double).init_runners()) == 7
    assert len(DataParallelDispatchCenter(double, config=DispatchConfig(data_parallel=2)).init_runners()) == 2


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("nonsense", 8), (None, 8)],
)
def test_usable_cpus_are_bounded_by_the_cgroup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, cpus: int
) -> None:
    """Whole CPUs of the quota, at least one; without a cgroup that says so, the affinity."""
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    real = open
    monkeypatch.setattr(
        data_parallel, "open", lambda name: real(path if name.endswith("cpu.max") else name), raising=False
    )
    assert usable_cpus() == cpus


def test_a_quota_above_this_process_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's quota stands in a cgroup above the process's own; the least of all counts."""
    files = {
        "/proc/self/cgroup": "12:cpu:/elsewhere\n0::/system.slice/app.service\n",
        "/sys/fs/cgroup/cpu.max": "max 100000",
        "/sys/fs/cgroup/system.slice/cpu.max": "300000 100000",
        "/sys/fs/cgroup/system.slice/app.service/cpu.max": "500000 100000",
    }
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(data_parallel, "open", lambda name: io.StringIO(files[name]), raising=False)
    assert usable_cpus() == 3


def test_usable_cpus_of_this_process() -> None:
    """At least one, and no more than the machine has."""
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@on_one_loop
async def test_workers_have_the_environment_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """`env` is theirs alone; BLAS has one thread unless the user says otherwise."""
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    config = DispatchConfig(data_parallel=1, env={"MODEL": "tiny", "OMP_NUM_THREADS": "2"})
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        names = ["MODEL", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
        assert [await center.submit(Job("env", name)) for name in names] == ["tiny", "2", "1", "4"]
    assert "MODEL" not in os.environ


@on_both_loops
@closes_the_hosts_pool
async def test_the_hosts_own_processes_are_undisturbed(gate: Gate) -> None:
    """`to_process` calls before, during and after are served by processes that the centre never gets, and the
    centre's workers take no place in the host's limiter.
    """
    hosts = await to_process.run_sync(os.getpid)
    config = DispatchConfig(data_parallel=2)
    async with DataParallelDispatchCenter(Actor, config=config) as center:
        running = asyncio.create_task(center.run([gate.job, gate.job]))
        await gate.entered(2)
        async with asyncio.timeout(20):
            assert await to_process.run_sync(os.getpid) == hosts
            own = {hosts, await to_process.run_sync(work, Job("pid"))}
        gate.open()
        assert not {*(await running).values()} & own
    assert await to_process.run_sync(os.getpid) == hosts
    assert is_alive(hosts)


@on_both_loops
async def test_several_centres_live_in_one_loop(gate: Gate) -> None:
    """Each with its own workers; closing one leaves the other alone."""
    one, two = (DataParallelDispatchCenter(Actor, config=DispatchConfig(data_parallel=1)) for _ in range(2))
    async with one:
        async with two:
            first, second = await asyncio.gather(one.submit(Job("pid")), two.submit(Job("pid")))
            assert first != second
        assert await one.submit(Job("pid")) == first
        assert not is_alive(second)


def test_several_threads_have_a_centre_each() -> None:
    """One event loop per thread, a centre in each, at the same time."""
    before = descendants()

    def run(start: int) -> list[Any]:
        center = DataParallelDispatchCenter(
            double, range(start, start + 100), config=DispatchConfig(data_parallel=1)
        )
        return asyncio.run(center.run()).values()

    async def both() -> list[list[Any]]:
        return await asyncio.gather(*(asyncio.to_thread(run, start) for start in (0, 1000)))

    assert asyncio.run(both()) == [[2 * n for n in range(start, start + 100)] for start in (0, 1000)]
    assert descendants() <= before
