"""What each kind of safety costs: no-op shards per second with it and without; and what a fork costs at the least.

The bare fork: `os.fork`, `_exit` and `waitpid` in a worker of the same kind, nothing else.
"""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from typing import Any

from benchmarks.harness.measures import grown, opened
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal
from benchmarks.harness.work import items, noop, number_of, sum_below

UNIT = "shards/s"
BETTER = "more"
REPEATS = 3
MOST = 200_000


def entries(tiny: bool) -> list[Entry]:
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "timeout of 10 s": {"timeout": 10.0},
        "memory limit of 1 GiB": {"memory_limit": 2**30},
        'isolation="fork"': {"isolation": "fork"},
    }
    own = [Entry(name=name, contender="ours", options=options, tiny=tiny) for name, options in kinds.items()]
    own.append(Entry(name="bare fork in a worker", contender="ours", chunks=(0,), tiny=tiny))
    if find_spec("dispatch.record.journal"):
        own.insert(1, Entry(name="journal", contender="ours", options={"work_dir": ""}, tiny=tiny))
    return own


def forked(item: dict[str, Any]) -> dict[str, Any]:
    """A fork that does nothing, and its end."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return item


async def measure(entry: Entry) -> Sample:
    payloads = items(20 if entry.tiny else MOST)
    fn = noop if entry.chunk else forked
    with tempfile.TemporaryDirectory() as directory:
        more = {"work_dir": directory, "resume": "none"} if "work_dir" in entry.options else {}
        options = {key: value for key, value in entry.options.items() if key != "work_dir"}
        plain = Entry(name=entry.name, contender="ours", options=options, tiny=entry.tiny)
        async with opened(plain, fn, **more) as pool:
            number, seconds = await grown(pool, plain, payloads, expects=sum_below, weigh=number_of)
    return Sample(n=number, values=[number / seconds])


def goals(table: Table) -> list[Goal]:
    plain, bare = table.middle("plain"), table.middle("bare fork in a worker")
    return [
        goal("journal (share of plain)", table.middle("journal") / plain),
        goal("timeout (share of plain)", table.middle("timeout of 10 s") / plain),
        goal("memory limit (share of plain)", table.middle("memory limit of 1 GiB") / plain),
        goal("fork: at most 1.5 times a bare fork", bare / table.middle('isolation="fork"'), at_most=1.5),
    ]
