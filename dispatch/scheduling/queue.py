"""Ready and delayed shards of several doors, fairly: doors take turns, a frame each.

A lane holds what one door has ready for one runner class ("" is any). Shards that must run alone wait apart,
because they need a worker with nothing else in it. `due(now)` is the only question about time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from dispatch.scheduling.batching import Pace
from dispatch.terms.shard import Batch, Entry

__all__ = ("Lane", "ReadyQueue")


class Lane:
    """The ready shards of one door for one runner class, first in first out."""

    __slots__ = ("door", "items", "pace", "ready", "runner", "special")

    def __init__(self, door: int, runner: str, pace: Pace) -> None:
        self.door, self.runner, self.pace = door, runner, pace
        self.items: deque[Entry | Batch] = deque()
        self.ready = 0  # shards in it
        self.special = False  # some of its shards may travel with more than index and payload

    def take(self, number: int) -> list[Entry] | Batch:
        """The next shards, at most `number`: of one batch, or as far as there are entries."""
        items = self.items
        first = items.popleft()
        if isinstance(first, Batch):
            if number < len(first):
                items.appendleft(first)
                first = first.cut(number)
            self.ready -= len(first)
            return first
        taken = [first]
        while len(taken) < number and items and isinstance(item := items[0], Entry):
            taken.append(item)
            items.popleft()
        self.ready -= len(taken)
        return taken

    def entries(self) -> list[Entry]:
        """All shards in it, each by itself."""
        return [
            entry for item in self.items for entry in (item.entries() if isinstance(item, Batch) else [item])
        ]


class ReadyQueue:
    """What could run now, and what may run later."""

    def __init__(self) -> None:
        self.ready = 0
        self.alone: deque[Entry] = deque()
        self._lanes: dict[tuple[int, str], Lane] = {}
        self._paces: dict[int, Pace] = {}
        self._turns: deque[Lane] = deque()
        self._delayed: list[tuple[float, int, Entry]] = []
        self._tie = 0

    @property
    def delayed(self) -> int:
        """How many shards wait for their time."""
        return len(self._delayed)

    def pace(self, door: int) -> Pace:
        """What the shards of a door take, learnt as they run."""
        pace = self._paces.get(door)
        if pace is None:
            pace = self._paces[door] = Pace()
        return pace

    def push(self, shards: list[Entry] | Batch, *, special: bool = False) -> None:
        """Make new shards of one door and one runner class ready, behind those that wait. `special`: some are."""
        if isinstance(shards, Batch):
            lane = self._lane(shards.origin.door, "")
            lane.items.append(shards)
        else:
            lane = self._lane(shards[0].origin.door, shards[0].runner or "")
            lane.items.extend(shards)
            lane.special = lane.special or special
        lane.ready += len(shards)
        self.ready += len(shards)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Make shards ready again, before those that wait: they were here first."""
        for entry in sorted(entries, key=_index, reverse=True):
            if entry.alone:
                self.alone.appendleft(entry)
            else:
                lane = self._lane(entry.origin.door, entry.runner or "")
                lane.items.appendleft(entry)
                lane.special = lane.special or entry.special
                lane.ready += 1
                self.ready += 1

    def delay(self, entry: Entry, due: float) -> None:
        """Keep a shard until the time `due`."""
        self._tie += 1
        heappush(self._delayed, (due, self._tie, entry))

    def due(self, now: float) -> float | None:
        """Make ready what is due at `now`; the time when the next one is, None if none waits."""
        while self._delayed and self._delayed[0][0] <= now:
            entry = heappop(self._delayed)[2]
            entry.ready_at = now
            self.put_back([entry])
        return self._delayed[0][0] if self._delayed else None

    def lanes_for(self, runner: str) -> Iterator[Lane]:
        """The lanes that have a shard for a worker of class `runner`, in the order of their turns.

        A turn ends when something is taken: a worker without room must not cost a door its turn.
        """
        return (lane for lane in self._turns if lane.ready and lane.runner in ("", runner))

    def take(self, lane: Lane, number: int) -> list[Entry] | Batch:
        """The next shards of a lane, at most `number`; then it is another lane's turn."""
        taken = lane.take(number)
        self.ready -= len(taken)
        self._turns.remove(lane)  # among the first: only lanes of other runner classes stand before it
        if lane.ready:
            self._turns.append(lane)
        else:
            del self._lanes[lane.door, lane.runner]
        return taken

    def has_alone(self, runner: str) -> bool:
        """Whether a shard that must run alone waits for a worker of class `runner`."""
        return any(not entry.runner or entry.runner == runner for entry in self.alone)

    def take_alone(self, runner: str) -> Entry | None:
        """The next shard that must run alone, for a worker of class `runner`."""
        for position, entry in enumerate(self.alone):
            if not entry.runner or entry.runner == runner:
                del self.alone[position]
                return entry
        return None

    def withdraw(self, entry: Entry) -> bool:
        """Take one waiting shard out again; False if it does not wait here."""
        if entry in self.alone:
            self.alone.remove(entry)
            return True
        lane = self._lanes.get((entry.origin.door, entry.runner or ""))
        if lane is not None and entry in lane.items:
            lane.items.remove(entry)
            lane.ready -= 1
            self.ready -= 1
            if not lane.ready:
                self._turns.remove(lane)
                del self._lanes[lane.door, lane.runner]
            return True
        kept = [item for item in self._delayed if item[2] is not entry]
        found = len(kept) < len(self._delayed)
        self._keep_delayed(kept)
        return found

    def drop_door(self, door: int) -> list[Entry]:
        """Forget a door; everything of it that waited."""
        dropped: list[Entry] = []
        for key in [key for key in self._lanes if key[0] == door]:
            lane = self._lanes.pop(key)
            self._turns.remove(lane)
            self.ready -= lane.ready
            dropped.extend(lane.entries())
        dropped.extend(entry for entry in self.alone if entry.origin.door == door)
        self.alone = deque(entry for entry in self.alone if entry.origin.door != door)
        dropped.extend(item[2] for item in self._delayed if item[2].origin.door == door)
        self._keep_delayed([item for item in self._delayed if item[2].origin.door != door])
        self._paces.pop(door, None)
        return dropped

    def _keep_delayed(self, kept: list[tuple[float, int, Entry]]) -> None:
        kept.sort(key=lambda item: item[:2])
        self._delayed = kept

    def _lane(self, door: int, runner: str) -> Lane:
        key = (door, runner)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(*key, self.pace(key[0]))
            self._turns.append(lane)
        return lane


def _index(entry: Entry) -> int:
    return entry.index
