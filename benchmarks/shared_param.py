"""A shared param of 64 MiB and 2,000 shards that look into it, seconds; the start of the workers included.

A blob, and a dict of small strings. Peers hand it to an initializer, or inherit it by fork. A fork has it for
nothing, by copy-on-write; its price is a fork of a parent that has threads (a Python with an event loop, BLAS or
gRPC has): a lock that another thread holds stays locked in the child for ever, and Python 3.12 warns of it.
"""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.contenders import find, peers
from benchmarks.harness.measures import opened, timed
from benchmarks.harness.processes import children, descendants, pss
from benchmarks.harness.row import Entry, Goal, Line, Sample, Table, goal, least
from benchmarks.harness.work import PIECE, kept_length, kept_piece, length_of, piece_of

UNIT = "s"
BETTER = "less"
REPEATS = 3
EXTRAS = ("PSS MB", "nannies PSS MB")
SIZE = 64 * 1024 * 1024
SHARDS = 2000
CHUNK = 64  # for peers: no row to tune chunks in
STRING = "a small string, as it stands in many tables, " * 4 + "{:07d}"


def entries(tiny: bool) -> list[Entry]:
    own: list[Entry] = []
    for kind in ("blob", "dict"):
        for key in ("ours", "bare", *peers(tiny)):
            for start in ("spawn",) if tiny else find(key).starts:
                options = {"start": start}
                name = f"{kind}: {find(key).title}, {start}"
                chunks = (1,) if key == "ours" else (CHUNK,)
                if key == "to_process":
                    own.append(Entry(name=f"{name}, one by one", contender=key, options=options))
                if find(key).by_hand:
                    name += ", chunks by hand"
                own.append(Entry(name=name, contender=key, options=options, chunks=chunks, tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    size, number = (4 * PIECE, 8) if entry.tiny else (SIZE, SHARDS)
    indexes = list(range(number))
    param: Any
    if entry.name.startswith("blob"):
        param, fn, look = os.urandom(PIECE) * (size // PIECE), kept_piece, piece_of
    else:
        param, fn, look = table_of(size), kept_length, length_of
    expected = sum(look(param, index) for index in indexes)
    begun = time.perf_counter()
    async with opened(entry, fn, shared=param) as pool:
        await timed(pool, entry, indexes, expected=expected)
        seconds = time.perf_counter() - begun
        extra = memory(with_nannies=entry.contender == "ours")
    return Sample(n=number, values=[seconds], extra=extra)


def table_of(size: int) -> dict[str, str]:
    """A dict whose strings come to `size` bytes."""
    number = size // (len("key 0000000") + len(STRING.format(0)))
    return {f"key {index:07d}": STRING.format(index) for index in range(number)}


def memory(*, with_nannies: bool) -> dict[str, float]:
    """Proportional memory now, in MB: of parent and workers, and (ours only) of the nannies beside."""
    nannies = children(os.getpid()) if with_nannies else set()
    counted = descendants(os.getpid()) - nannies
    return {
        "PSS MB": (pss(os.getpid()) + sum(map(pss, counted))) / 1e6,
        "nannies PSS MB": sum(map(pss, nannies)) / 1e6,
    }


def goals(table: Table) -> list[Goal]:
    def spawned(kind: str, *, by_hand: bool) -> list[Line]:
        lines = [line for line in table.peers(by_hand=by_hand) if line.entry.options["start"] == "spawn"]
        return [line for line in lines if line.entry.name.startswith(kind)]

    found = []
    for kind, most in (("blob", 0.5), ("dict", 0.8)):
        own = table.middle(f"{kind}: dispatch, spawn")
        best, by_hand = least(spawned(kind, by_hand=False)), least(spawned(kind, by_hand=True))
        found.append(goal(f"{kind}: at most {most} of the best spawning peer", own / best, at_most=most))
        text = f"{kind}: the same, against peers chunked by hand too (to_process with a file)"
        found.append(goal(text, own / by_hand, at_most=most))
    own, bare = table.find("blob: dispatch, spawn"), table.find("blob: bare socket, spawn")
    if own and bare:
        ratio = own.extra("PSS MB") / bare.extra("PSS MB")
        found.append(goal("blob: PSS of parent and workers at most 1.15 times bare", ratio, at_most=1.15))
    return found
