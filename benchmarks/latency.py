"""The round trip of one call at idle, in µs: one `submit` after another on a warm pool.

A peer that can wait without an event loop is asked in that way too, which suits most of them better.
`all on one processor`: parent and workers share it, so that no message has to wake another one.
"""

from __future__ import annotations

import os
import time

from benchmarks.contenders import find, peers
from benchmarks.harness.measures import check, opened
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal, median
from benchmarks.harness.work import items, noop, number_of, sum_below

UNIT = "µs"
BETTER = "less"
REPEATS = 3
CALLS = 2000
SECONDS = 1.0
WARM = 50
TOGETHER = ", all on one processor"


def entries(tiny: bool) -> list[Entry]:
    own: list[Entry] = []
    for uvloop in (False,) if tiny else (False, True):
        said = ", uvloop" if uvloop else ""
        for key, name in (
            ("ours", "dispatch, submit"),
            ("bare", "bare socket"),
            ("to_process", "raw to_process"),
        ):
            own.append(Entry(name=name + said, contender=key, uvloop=uvloop, tiny=tiny))
    pinned = (
        (("ours", "dispatch, submit"), ("bare", "bare socket")) if hasattr(os, "sched_setaffinity") else ()
    )
    for key, name in pinned:
        own.append(Entry(name=f"{name}{TOGETHER}", contender=key, tiny=tiny))
    for key in peers(tiny, but=("to_process",)):
        kind = find(key)
        if kind.ask is not None:
            blocking = {"name": f"{kind.title}, blocking", "chunks": (0,)}  # a chunk of 0: `ask`, not `call`
            own.append(Entry(contender=key, tiny=tiny, **blocking))
        if kind.ask is None or key == "executor":
            own.append(Entry(name=kind.title, contender=key, tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    warm = 5 if entry.tiny else WARM
    payloads = items(20 if entry.tiny else warm + CALLS)
    values: list[float] = []
    total, clock = 0.0, time.perf_counter
    pool = opened(entry, noop)
    if entry.name.endswith(TOGETHER):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    async with pool:
        ask, call = pool.ask, pool.call
        until = clock() + SECONDS
        for payload in payloads:
            begun = clock()
            value = await call(payload) if entry.chunk else ask(payload)
            ended = clock()
            total += number_of(value)
            values.append((ended - begun) * 1e6)
            if ended > until and len(values) > 2 * warm:
                break
    check(len(values), total, number=len(values), expected=sum_below(len(values)))
    measured = values[warm:]
    return Sample(n=len(measured), values=measured, extra={"p50": median(measured)})


def goals(table: Table) -> list[Goal]:
    own, bare, raw = (table.middle(name) for name in ("dispatch, submit", "bare socket", "raw to_process"))
    fast, bare_fast = table.middle("dispatch, submit, uvloop"), table.middle("bare socket, uvloop")
    return [
        goal("p50: at most 1.3 times a bare asyncio socket round trip", own / bare, at_most=1.3),
        goal("the same, both on uvloop", fast / bare_fast, at_most=1.3),
        goal(
            "the same, all on one processor, for comparison",
            table.middle(f"dispatch, submit{TOGETHER}") / table.middle(f"bare socket{TOGETHER}"),
        ),
        goal("p50: below raw to_process (times)", own / raw, at_most=1.0),
    ]
