"""What a journal knows of the shards that come in: which have outcomes to be reused, which must run.

A shard is known by its content: the digest of its payload, encoded with the keys of dicts and the members of sets in
order, with the id and the runner that were supplied for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from operator import add, attrgetter
from typing import Any

import anyio
import anyio.to_thread
from anyio import CancelScope
from msgspec import Struct, field

from dispatch.record.journal import Journal
from dispatch.record.recall import Known, Row
from dispatch.record.schema import INLINE
from dispatch.record.writer import Act
from dispatch.terms.errors import DuplicateShard
from dispatch.terms.outcome import Done, Failed
from dispatch.terms.shard import Entry, WorkerInfo, is_shard
from dispatch.wire.codec import Codec, NotDeliverable, canonical

__all__ = ("Admitted", "Reuse", "digests")

SMALL = 10_000  # recorded shards whose index is made in 10 ms, without a thread
LOST_OFTEN = 5  # times that its run was killed while it ran, after which a shard runs alone
WORKERS = 1000  # recorded workers that are remembered


class Admitted(Struct):
    """What became of the first `number` shards that were asked about."""

    number: int
    fresh: list[Entry] = field(default_factory=list[Entry])  # to be run
    done: list[Done[Any]] = field(default_factory=list[Done[Any]])
    failed: list[Failed] = field(default_factory=list[Failed])
    size: int = 0  # bytes of the values
    duplicate: DuplicateShard | None = None  # the shard behind them


class Reuse:
    """The record as one run meets it. `kinds` of outcomes are reused; what is new is posted, to be written."""

    def __init__(
        self,
        journal: Journal,
        codecs: dict[str, Codec],
        *,
        kinds: frozenset[str],
        post: Callable[[Act], None],
    ) -> None:
        self.reused = 0
        self._journal, self._recall = journal, journal.recall
        self._codecs, self._default = codecs, next(iter(codecs.values()))
        self._kinds, self._post = kinds, post
        self._workers: dict[tuple[str, int], WorkerInfo] = {}
        self._epoch = 0.0
        self._twins = journal.book.twins

    async def admit(self, entries: list[Entry], digests: list[bytes], unfit: Mapping[int, Any]) -> Admitted:
        """What becomes of the first of these shards: of all, unless recorded values are large.

        `unfit` holds, by their indexes, those that could not be encoded; they get a row, and nothing else. Raises
        JournalError if the record cannot be read. Cancelling leaves the shards as they were.
        """
        number = self._recall.ready(len(entries))
        entries, digests = entries[:number], digests[:number]
        if not self._recall.in_step(digests):
            await self._index()
        found = self._recall.match(digests)
        admitted = Admitted(number)
        if any(map(_id, entries)):
            self._refuse_duplicates(entries, found, admitted)
            number = admitted.number
            entries, digests, found = entries[:number], digests[:number], found[:number]
        if not found or None in found or not self._take_all(entries, found, admitted):
            self._take_some(entries, found, admitted, digests=digests, unfit=unfit)
        self.reused += len(admitted.done) + len(admitted.failed)
        return admitted

    def _take_all(self, entries: list[Entry], found: Sequence[Any], admitted: Admitted) -> bool:
        """The happy path of a resume, column by column: all are Done at their first attempt, and fit."""
        ids, _, kinds, values, numbers, runners, pids, starts, ran, waits = zip(*found, strict=True)
        plain = set(kinds) == {"done"} and set(numbers) == {1} and None not in values
        if not plain or "done" not in self._kinds or len(self._codecs) > 1:
            return False
        try:
            decoded = self._default.decode_values(values)
        except NotDeliverable:
            return False
        epoch = self._epoch = self._epoch or starts[0]
        pairs = list(zip(runners, pids, strict=True))
        workers = {who: self._worker(*who) for who in set(pairs)}
        begun = [at - epoch for at in starts]
        for entry, row, at, waited in zip(entries, ids, begun, waits, strict=True):
            entry.row = row
            entry.reused = True
            entry.ready_at = at - waited
        admitted.done = list(
            map(Done, decoded, entries, begun, map(add, begun, ran), map(workers.__getitem__, pairs))
        )
        admitted.size = sum(map(len, values))
        return True

    def _worker(self, runner: str, pid: int) -> WorkerInfo:
        """Who ran a recorded attempt. Times are counted from the first, so that their differences are exact."""
        worker = self._workers.get((runner, pid))
        if worker is None:
            if len(self._workers) >= WORKERS:
                self._workers.clear()
            worker = self._workers[runner, pid] = WorkerInfo(runner, pid, self._epoch)
        return worker

    def _take_some(
        self,
        entries: list[Entry],
        found: Sequence[Row | None],
        admitted: Admitted,
        *,
        digests: list[bytes],
        unfit: Mapping[int, Any],
    ) -> None:
        new: list[tuple[Entry, bytes]] = []
        for entry, row, digest in zip(entries, found, digests, strict=True):
            known = None if row is None else Known(*row)
            if known is None:
                new.append((entry, digest))
            elif (
                known.kind not in self._kinds
                or entry.index in unfit
                or not self._take(entry, known, admitted)
            ):
                self._run_again(entry, known)
                admitted.fresh.append(entry)
        self._write_new(new, unfit)
        admitted.fresh.extend(entry for entry, _ in new)
        admitted.fresh = sorted((entry for entry in admitted.fresh if entry.index not in unfit), key=_index)

    async def _index(self) -> None:
        if self._recall.left <= SMALL:
            self._recall.index()
            return
        limiter = anyio.CapacityLimiter(1)
        task = asyncio.ensure_future(anyio.to_thread.run_sync(self._recall.index, limiter=limiter))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._recall.interrupt()
            with CancelScope(shield=True):
                await asyncio.wait([task])
            task.exception()  # it was interrupted: that is all it can say
            raise

    def _refuse_duplicates(
        self, entries: list[Entry], found: Sequence[Row | None], admitted: Admitted
    ) -> None:
        """Find the first shard whose id this run has met already: `admitted` ends before it."""
        asked = {
            entry.id: (position, row[0] if row is not None else 0)
            for position, (entry, row) in enumerate(zip(entries, found, strict=True))
            if entry.id and (row is None or self._twins)
        }
        if not asked:
            return
        ends = len(entries)
        for label, number, met in self._recall.labelled(list(asked)):
            position, own = asked[label]
            if number == own:
                continue
            if met:
                ends = min(ends, position)
            elif not self._twins:  # the content under this id has changed: there will be two of them
                self._twins = True
                self._post(self._journal.twins())
        if ends < len(entries):
            admitted.number = ends
            admitted.duplicate = DuplicateShard(entries[ends].id)

    def _run_again(self, entry: Entry, known: Known) -> None:
        """A recorded shard that has no outcome to be reused: its attempts count on, its budgets begin anew."""
        entry.row = known.id
        entry.history = self._recall.history(known.id)
        entry.special = entry.special or bool(entry.history)
        entry.alone = self._recall.lost(known.id) >= LOST_OFTEN

    def _take(self, entry: Entry, known: Known, admitted: Admitted) -> bool:
        """Reuse one outcome; False if its value cannot be read, so that it must run again.

        Its file is gone or damaged, or the annotation has changed, and no version.
        """
        if known.kind == "failed":
            fault = self._recall.fault(known.id)
            assert fault is not None
            entry.history = self._recall.history(known.id)
            admitted.failed.append(Failed(fault=fault, entry=entry))
        else:
            raw = known.value if known.value is not None else self._recall.value(known.id)
            if raw is None:
                return False
            codec = self._codecs.get(entry.runner or known.runner, self._default)
            try:
                value = codec.decode_value(raw)
            except NotDeliverable:
                return False
            admitted.done.append(self._done(entry, known, value))
            admitted.size += len(raw)
        entry.row, entry.reused = known.id, True
        return True

    def _done(self, entry: Entry, known: Known, value: Any) -> Done[Any]:
        if known.number is None:
            return Done(value, entry)
        if known.number > 1:
            entry.history = self._recall.history(known.id)[:-1]
        self._epoch = self._epoch or known.started_at
        started = known.started_at - self._epoch
        entry.ready_at = started - known.queued
        worker = self._worker(known.runner, known.pid)
        return Done(value, entry, started, started + known.seconds, worker)

    def _write_new(self, new: list[tuple[Entry, bytes]], unfit: Mapping[int, Any]) -> None:
        if not new:
            return
        book, run = self._journal.book.number, self._journal.run
        number = self._journal.new_rows(len(new))
        rows: list[tuple[Any, ...]] = []
        for entry, digest in new:
            entry.row = number
            payload = None if entry.index in unfit else entry.payload
            rows.append((number, book, run, entry.index, entry.id, 0, digest, payload, None))
            number += 1
        large = any(len(entry.payload) > INLINE for entry, _ in new)
        self._post(Act(shards=rows, large=large))


def digests(entries: list[Entry], payloads: list[Any], *, start: int, special: bool) -> list[bytes]:
    """What identifies these shards. `payloads` is the bunch that they came in, its first at the index `start`.

    `special`: some are Shards, or could not be encoded.
    """
    if special:
        return [_digest(entry, payloads[entry.index - start]) for entry in entries]
    datas = canonical(payloads, [entry.payload for entry in entries])
    return [blake2b(data, digest_size=16).digest() for data in datas]


def _digest(entry: Entry, payload: Any) -> bytes:
    """What identifies one shard."""
    if entry.unencoded is not None:
        data = b"\xc1%d" % entry.index  # no encoding begins like this: by its position then
    elif is_shard(payload):
        data = canonical([payload.payload], [entry.payload])[0]
    else:
        data = canonical([payload], [entry.payload])[0]
    if entry.id or entry.runner:
        data += b"\0%b\0%b" % ((entry.runner or "").encode(), entry.id.encode())
    return blake2b(data, digest_size=16).digest()


def _index(entry: Entry) -> int:
    return entry.index


_id = attrgetter("id")
