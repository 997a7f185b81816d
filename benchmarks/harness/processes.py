"""The processes of a contender, and what they use. Linux: it is all in /proc."""

from __future__ import annotations

from pathlib import Path

__all__ = ("children", "descendants", "processor_seconds", "pss")


def children(pid: int) -> set[int]:
    """The processes that `pid` has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text(encoding="ascii").split()}


def descendants(pid: int) -> set[int]:
    """All processes that come from `pid`."""
    mine = children(pid)
    return mine.union(*map(descendants, mine))


def pss(pid: int) -> int:
    """Bytes of a process's memory, shared pages divided among those who share them; 0 if it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def processor_seconds(pid: int) -> float:
    """What the threads of a process have used of the processors."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9
