"""Where each shard stands. Nothing here awaits or reads a clock. Touch TRANSITIONS and its table together.

A shard stands in exactly one place: WAITING (in the queue), ASSIGNED (in `in_flight` of one worker) or SETTLED
(nowhere: it has its outcome). An attempt is known by its `seq`, which is never used again, so a late reply
finds nothing and is dropped.

    from       event       to         charged
    WAITING    assign      ASSIGNED
    ASSIGNED   done        SETTLED                       happy path: a batch at a time (`ended`)
    ASSIGNED   fault       WAITING    its cause's budget (`judge`: budget left, after a wait)
    ASSIGNED   fault       SETTLED    its cause's budget (`judge`: budget spent)
    ASSIGNED   back        WAITING                       given back, fenced, or its worker died of another
    ASSIGNED   suspect     WAITING                       may have killed its worker: it runs alone
    any        cancel      SETTLED
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from dispatch.terms.config import Policy, Retry
from dispatch.terms.outcome import Attempt, Cause, Fault
from dispatch.terms.shard import Batch, Entry, WorkerInfo

__all__ = ("TRANSITIONS", "Again", "Blame", "Hand", "Ledger", "Settle", "blame", "judge")

Place = Literal["WAITING", "ASSIGNED", "SETTLED"]

TRANSITIONS: dict[tuple[Place, str], tuple[Place, ...]] = {
    ("WAITING", "assign"): ("ASSIGNED",),
    ("ASSIGNED", "done"): ("SETTLED",),
    ("ASSIGNED", "fault"): ("WAITING", "SETTLED"),
    ("ASSIGNED", "back"): ("WAITING",),
    ("ASSIGNED", "suspect"): ("WAITING",),
    ("WAITING", "cancel"): ("SETTLED",),
    ("ASSIGNED", "cancel"): ("SETTLED",),
}

DEATHS: frozenset[Cause] = frozenset({"crashed", "out_of_memory"})


class Settle(Struct, frozen=True):
    """The shard is out of attempts: `fault` is its outcome."""

    entry: Entry
    fault: Fault


class Again(Struct, frozen=True):
    """The shard has another attempt, `wait` seconds from now."""

    entry: Entry
    fault: Fault
    wait: float


class Blame(Struct, frozen=True):
    """Who answers for a worker's death: `charged` alone, if anybody; `suspects` run alone; the rest go back."""

    charged: Entry | None
    suspects: list[Entry]
    innocent: list[Entry]


class Hand:
    """What one worker holds, by seq. Batches stay whole while their shards end one after the other."""

    __slots__ = ("_batches", "_entries", "door")

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._batches: deque[tuple[int, Batch, int]] = deque()  # seq of the first, and how many have ended
        self.door = 0  # whose shards it was given last

    def __len__(self) -> int:
        own = len(self._entries)
        return own + sum(len(batch) - ended for _, batch, ended in self._batches) if self._batches else own

    def __bool__(self) -> bool:
        return bool(self._entries or self._batches)

    @property
    def oldest(self) -> int | None:
        """The smallest seq that is held, None for none."""
        found = next(iter(self._entries), None)
        if self._batches:
            first, _, ended = self._batches[0]
            return first + ended if found is None else min(found, first + ended)
        return found

    def give(self, first: int, shards: list[Entry] | Batch) -> None:
        """Take these in, with seqs from `first` on."""
        if isinstance(shards, Batch):
            self._batches.append((first, shards, 0))
            self.door = shards.origin.door
        else:
            self._entries.update(zip(range(first, first + len(shards)), shards, strict=True))
            self.door = shards[-1].origin.door

    def ended(self, first: int, number: int) -> tuple[Batch, int] | None:
        """The attempts from `first` on have ended: their batch, and where in it; None if it is not so simple."""
        if self._batches:
            begun, batch, ended = self._batches[0]
            left = len(batch) - ended - number
            if begun + ended == first and left >= 0:
                if left:
                    self._batches[0] = begun, batch, ended + number
                else:
                    self._batches.popleft()
                return batch, ended
        return None

    def entries(self) -> dict[int, Entry]:
        """Everything by seq, oldest first; batches are taken apart for it."""
        if self._batches:
            for begun, batch, ended in self._batches:
                seqs = range(begun + ended, begun + len(batch))
                self._entries.update(zip(seqs, batch.entries(ended), strict=True))
            self._batches.clear()
            self._entries = dict(sorted(self._entries.items()))
        return self._entries


class Ledger:
    """Which worker holds which shards."""

    def __init__(self) -> None:
        self._hands: dict[int, Hand] = {}
        self._next = 1

    @property
    def next_seq(self) -> int:
        """The seq that the next attempt will get; every attempt before has a smaller one."""
        return self._next

    @property
    def in_flight(self) -> int:
        """How many attempts are assigned."""
        return sum(map(len, self._hands.values()))

    @property
    def workers(self) -> list[int]:
        """Who has been given shards."""
        return list(self._hands)

    def hand(self, worker: int) -> Hand:
        """What a worker holds."""
        hand = self._hands.get(worker)
        if hand is None:
            hand = self._hands[worker] = Hand()
        return hand

    def assign(self, worker: int, shards: list[Entry] | Batch) -> int:
        """Give shards to a worker, in this order; the seq of the first, the others count up from it."""
        first = self._next
        self._next += len(shards)
        self.hand(worker).give(first, shards)
        return first

    def ended(self, worker: int, first: int, number: int) -> tuple[Batch, int] | None:
        """Settle so many attempts of a batch, if they are its next ones; the batch, and where in it they are."""
        return self.hand(worker).ended(first, number)

    def done(self, worker: int, seqs: Iterable[int]) -> list[Entry | None]:
        """Settle a frame of attempts; None stands for one that is not held any more."""
        pop = self.hand(worker).entries().pop
        return [pop(seq, None) for seq in seqs]

    def take(self, worker: int, seq: int) -> Entry | None:
        """Take one attempt off a worker; None if it is not held any more."""
        return self.hand(worker).entries().pop(seq, None)

    def take_unstarted(self, worker: int, last_started: int, fence: int) -> list[Entry]:
        """Take off a worker what it was given before `fence` and had not started."""
        held = self.hand(worker).entries()
        return [held.pop(seq) for seq in list(held) if last_started < seq < fence]

    def take_all(self, worker: int) -> dict[int, Entry]:
        """Take everything off a worker."""
        hand = self._hands.pop(worker, None)
        return {} if hand is None else hand.entries()

    def find(self, entry: Entry) -> tuple[int, int] | None:
        """The worker and the seq of a shard that is assigned, and was an Entry when it was."""
        for worker, hand in self._hands.items():
            for seq, candidate in hand.entries().items():
                if candidate is entry:
                    return worker, seq
        return None

    def holders(self, door: int) -> dict[int, list[int]]:
        """The attempts of one door, by worker."""
        found: dict[int, list[int]] = {}
        for worker, hand in self._hands.items():
            seqs = [seq for seq, entry in hand.entries().items() if entry.origin.door == door]
            if seqs:
                found[worker] = seqs
        return found


def judge(
    entry: Entry,
    fault: Fault,
    policy: Policy,
    *,
    worker: WorkerInfo,
    started: float,
    seconds: float,
    roll: float,
) -> Settle | Again:
    """Enter a failed attempt on a shard's books, and say whether it has another. `roll` is in [0, 1)."""
    attempt = Attempt(
        runner=worker.runner,
        pid=worker.pid,
        started_at=started + worker.epoch,
        seconds=seconds,
        queued=max(0.0, started - entry.ready_at),
        fault=fault,
    )
    entry.history = (*entry.history, attempt)
    entry.special = True
    if fault.cause in DEATHS:
        entry.deaths += 1
        if entry.deaths < policy.crash_budget:
            return Again(entry, fault, 0.0)
        return Settle(entry, fault)
    retry = policy.retry
    asked = fault.after is not None
    if fault.final or not (asked or fault.cause in retry.on):
        return Settle(entry, fault)
    entry.charged += 1
    if entry.charged >= retry.attempts:
        return Settle(entry, fault)
    if fault.after is not None:
        return Again(entry, fault, max(0.0, fault.after))
    return Again(entry, fault, _wait(retry, entry.charged) + retry.jitter * roll)


def _wait(retry: Retry, charged: int) -> float:
    try:
        return min(retry.max_wait, retry.wait * retry.factor ** (charged - 1))
    except OverflowError:  # a factor to the thousandth power
        return retry.max_wait if retry.wait else 0.0


def blame(held: dict[int, Entry], *, running: int, several: bool, exact: bool) -> Blame:
    """Who answers for the death of a worker that held these attempts.

    `running` is the attempt in the worker's slot, 0 for none. `several` says that the worker ran many at
    once; then only a sole candidate is charged, unless the evidence is `exact` (a deadline names its shard).
    """
    charged = held.get(running)
    rest = [entry for entry in held.values() if entry is not charged]
    if not several or exact:
        return Blame(charged, [], rest)
    if len(held) == 1:
        return Blame(next(iter(held.values())), [], [])
    return Blame(None, list(held.values()), [])
