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
    """CPUs that this process may use: by affinity and by cgroup (v2) quotas, not what the machine has."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        usable = os.cpu_count() or 1
    for group in _cgroups():
        try:
            with open(f"/sys/fs/cgroup{group}/cpu.max") as file:
                quota, period = file.read().split()
            if quota != "max":
                usable = min(usable, max(1, int(quota) // int(period)))
        except (OSError, ValueError):
            pass  # it does not say
    return usable


def _cgroups() -> list[str]:
    """The cgroup (v2) of this process, and all above it: each may have a quota. "" is the root."""
    try:
        with open("/proc/self/cgroup") as file:
            path = next((line[3:].strip("/\n") for line in file if line.startswith("0::")), "")
    except OSError:
        path = ""
    groups = [""]
    for part in filter(None, path.split("/")):
        groups.append(f"{groups[-1]}/{part}")
    return groups
