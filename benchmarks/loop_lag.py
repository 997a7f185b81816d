"""How late a 5 ms ticker of the host is while 50,000 no-op shards run, ms.

Only ways of use that leave the host its event loop. A slow peer runs fewer shards, for a second or so.
`p99` and `max` are medians over the runs.
"""

from __future__ import annotations

import time
from typing import Any

import anyio

from benchmarks.contenders import find, is_installed
from benchmarks.contenders.base import Contender
from benchmarks.harness.measures import check, opened, timed
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal, quantile
from benchmarks.harness.work import items, noop, number_of, sum_below

UNIT = "ms late"
BETTER = "less"
REPEATS = 5
EXTRAS = ("p99", "max", "shards/s")
SHARDS = 50_000
SLOW = {
    "executor": 8_000,
    "to_process": 10_000,
    "trio_parallel": 8_000,
    "aiomultiprocess": 15_000,
    "dask": 1_000,
}
TICK = 0.005
TASKS = 100


def entries(tiny: bool) -> list[Entry]:
    own = [
        Entry(name="dispatch, stream", contender="ours", tiny=tiny),
        Entry(name="dispatch, submit", contender="ours", options={"door": "submit"}, tiny=tiny),
        Entry(name="bare socket, frames of 256", contender="bare", chunks=(256,), tiny=tiny),
        Entry(name="ProcessPoolExecutor, run_in_executor", contender="executor", tiny=tiny),
    ]
    if not tiny:
        own.append(Entry(name="dispatch, stream, uvloop", contender="ours", uvloop=True))
        keys = ("to_process", "trio_parallel", "aiomultiprocess", "dask")
        own += [Entry(name=find(key).title, contender=key) for key in keys if is_installed(key)]
    return own


async def measure(entry: Entry) -> Sample:
    number = 200 if entry.tiny else SLOW.get(entry.contender, SHARDS)
    payloads = items(number)
    lags: list[float] = []
    async with opened(entry, noop) as pool:
        calls = entry.contender == "executor" or entry.options.get("door") == "submit"
        warm = payloads[: number // 10]
        await timed(pool, entry, warm, expected=sum_below(len(warm)), weigh=number_of) if not calls else None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick, lags)
            await anyio.sleep(4 * TICK)
            lags.clear()
            begun = time.perf_counter()
            if calls:
                await by_calls(pool, payloads)
            else:
                await timed(pool, entry, payloads, expected=sum_below(number), weigh=number_of)
            seconds = time.perf_counter() - begun
            await anyio.sleep(2 * TICK)  # the tick that was due meanwhile
            tasks.cancel_scope.cancel()
    extra = {"p99": quantile(lags, 0.99), "max": max(lags), "shards/s": number / seconds}
    return Sample(n=number, values=lags, extra=extra)


async def tick(lags: list[float]) -> None:
    """Note how late each tick is."""
    while True:
        due = time.perf_counter() + TICK
        await anyio.sleep(TICK)
        lags.append((time.perf_counter() - due) * 1e3)


async def by_calls(pool: Contender, payloads: list[dict[str, Any]]) -> None:
    """Many at once, one by one."""
    left = iter(payloads)
    count, total = 0, 0.0

    async def ask() -> None:
        nonlocal count, total
        for payload in left:
            value = await pool.call(payload)
            count += 1
            total += number_of(value)

    async with anyio.create_task_group() as tasks:
        for _ in range(TASKS):
            tasks.start_soon(ask)
    check(count, total, number=len(payloads), expected=sum_below(len(payloads)))


def goals(table: Table) -> list[Goal]:
    own, bare = table.find("dispatch, stream"), table.find("bare socket, frames of 256")
    if own is None or bare is None:
        return []
    ratio = own.extra("p99") / bare.extra("p99")
    return [
        goal("p99: at most twice the bare socket's", ratio, at_most=2),
        goal("max: under 3 ms", own.extra("max"), at_most=3),
    ]
