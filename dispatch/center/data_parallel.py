"""DataParallelDispatchCenter: `config.data_parallel` workers in a process pool."""

from __future__ import annotations

import os

from dispatch.center.base import P, R
from dispatch.center.concrete import Concrete

__all__ = ("DataParallelDispatchCenter", "usable_cpus")


class DataParallelDispatchCenter(Concrete[P, R]):
    """Runs shards in worker processes (`anyio.to_process`), each killable, each replaced when it dies."""

    def _workers(self) -> int:
        return self.config.data_parallel or usable_cpus()


def usable_cpus() -> int:
    """CPUs that this process may use: by affinity and by cgroup quota, not what the machine has."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        usable = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            usable = min(usable, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or one that does not say: affinity is all there is
    return usable
