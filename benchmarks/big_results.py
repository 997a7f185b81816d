"""Results of 1 MiB: megabytes per second that reach the caller."""

from __future__ import annotations

from benchmarks.contenders import find, peers
from benchmarks.harness.measures import opened, timed
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal, most
from benchmarks.harness.work import big

UNIT = "MB/s"
BETTER = "more"
REPEATS = 3
SIZE = 1024 * 1024
SHARDS = 300


def entries(tiny: bool) -> list[Entry]:
    own = [
        Entry(name="dispatch, stream", contender="ours", tiny=tiny),
        Entry(name="bare socket", contender="bare", tiny=tiny),
    ]
    if not tiny:
        own.append(Entry(name="dispatch, stream, uvloop", contender="ours", uvloop=True))
        own.append(Entry(name="bare socket, uvloop", contender="bare", uvloop=True))
    return own + [Entry(name=find(key).title, contender=key, tiny=tiny) for key in peers(tiny)]


async def measure(entry: Entry) -> Sample:
    sizes = [SIZE] * (4 if entry.tiny else SHARDS)
    async with opened(entry, big) as pool:
        warm = sizes[:16]
        await timed(pool, entry, warm, expected=sum(warm), weigh=len)
        seconds = await timed(pool, entry, sizes, expected=sum(sizes), weigh=len)
    return Sample(n=len(sizes), values=[sum(sizes) / seconds / 1e6])


def goals(table: Table) -> list[Goal]:
    own = table.middle("dispatch, stream")
    return [
        goal("at least 1,000 MB/s", own, at_least=1000),
        goal("of the bare socket (ratio, for comparison)", own / table.middle("bare socket")),
        goal("no peer ahead (times the best)", own / most(table.peers()), at_least=1.0),
    ]
