"""No-op shards per second: what a shard costs when its work costs nothing.

A payload is a dict of an int and a string of 40 characters, the value is the same again. Workers are warm.
"""

from __future__ import annotations

from benchmarks.contenders import find, peers
from benchmarks.harness.measures import grown, opened
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal, most
from benchmarks.harness.work import items, noop, number_of, sum_below

UNIT = "shards/s"
BETTER = "more"
REPEATS = 3
MOST = 200_000
AUTO = 4096  # about what Pool.map and mpire choose by themselves for this many


def entries(tiny: bool) -> list[Entry]:
    own = [
        Entry(name="dispatch, stream", contender="ours", tiny=tiny),
        Entry(name="dispatch, run", contender="ours", options={"door": "run"}, tiny=tiny),
        Entry(name="bare socket, frames of 256", contender="bare", chunks=(256,), tiny=tiny),
    ]
    if not tiny:
        own += [
            Entry(name="dispatch, stream, uvloop", contender="ours", uvloop=True),
            Entry(name="bare socket, frames of 256, uvloop", contender="bare", chunks=(256,), uvloop=True),
        ]
    for key in peers(tiny):
        kind = find(key)
        chunks = (16,) if tiny else (*kind.chunks, AUTO)
        own.append(Entry(name=kind.title, contender=key, chunks=chunks, tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    payloads = items(300 if entry.tiny else MOST)
    async with opened(entry, noop) as pool:
        number, seconds = await grown(pool, entry, payloads, expects=sum_below, weigh=number_of)
    return Sample(n=number, values=[number / seconds])


def goals(table: Table) -> list[Goal]:
    limit = table.middle("bare socket, frames of 256")
    best, by_hand = most(table.peers(by_hand=False)), most(table.peers())
    streamed, ran = table.middle("dispatch, stream"), table.middle("dispatch, run")
    return [
        goal("stream: at least 0.5 of the bare limit", streamed / limit, at_least=0.5),
        goal("run: at least 0.5 of the bare limit", ran / limit, at_least=0.5),
        goal("stream: clearly above the best chunk of every peer (times)", streamed / best, at_least=1.1),
        goal("run: clearly above the best chunk of every peer (times)", ran / best, at_least=1.1),
        goal(
            "stream: and above chunks made by hand around single calls (times)",
            streamed / by_hand,
            at_least=1.1,
        ),
    ]
