"""Ready and delayed shards of several doors, fairly: doors take turns, a frame each.

A lane holds what one door has ready for one runner class ("" is any). Shards that must run alone wait apart,
because they need a worker with nothing else in it. `due(now)` is the only question about time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from dispatch.scheduling.batching import Pace
from dispatch.terms.shard import Entry

__all__ = ("Lane", "ReadyQueue")


class Lane:
    """The ready shards of one door for one runner class, first in first out."""

    __slots__ = ("door", "entries", "pace", "runner", "special")

    def __init__(self, door: int, runner: str, pace: Pace) -> None:
        self.door, self.runner, self.pace = door, runner, pace
        self.entries: deque[Entry] = deque()
        self.special = False  # some of its shards may travel with more than index and payload

    def take(self, number: int) -> list[Entry]:
        """The next `number` shards, fewer if there are fewer."""
        entries = self.entries
        if number >= len(entries):
            taken = list(entries)
            entries.clear()
            return taken
        popleft = entries.popleft
        return [popleft() for _ in range(number)]


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

    def push(self, entries: list[Entry], *, special: bool) -> None:
        """Make new shards of one door and one runner class ready, behind those that wait. `special`: some are."""
        lane = self._lane(entries[0])
        lane.entries.extend(entries)
        lane.special = lane.special or special
        self.ready += len(entries)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Make shards ready again, before those that wait: they were here first."""
        for entry in sorted(entries, key=_index, reverse=True):
            if entry.alone:
                self.alone.appendleft(entry)
            else:
                lane = self._lane(entry)
                lane.entries.appendleft(entry)
                lane.special = lane.special or entry.special
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
        return (lane for lane in self._turns if lane.entries and lane.runner in ("", runner))

    def take(self, lane: Lane, number: int) -> list[Entry]:
        """The next shards of a lane, at most `number`; then it is another lane's turn."""
        taken = lane.take(number)
        self.ready -= len(taken)
        self._turns.remove(lane)  # among the first: only lanes of other runner classes stand before it
        if lane.entries:
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
        if lane is not None and entry in lane.entries:
            lane.entries.remove(entry)
            self.ready -= 1
            if not lane.entries:
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
            self.ready -= len(lane.entries)
            dropped.extend(lane.entries)
        dropped.extend(entry for entry in self.alone if entry.origin.door == door)
        self.alone = deque(entry for entry in self.alone if entry.origin.door != door)
        dropped.extend(item[2] for item in self._delayed if item[2].origin.door == door)
        self._keep_delayed([item for item in self._delayed if item[2].origin.door != door])
        self._paces.pop(door, None)
        return dropped

    def _keep_delayed(self, kept: list[tuple[float, int, Entry]]) -> None:
        kept.sort(key=lambda item: item[:2])
        self._delayed = kept

    def _lane(self, entry: Entry) -> Lane:
        key = (entry.origin.door, entry.runner or "")
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(*key, self.pace(key[0]))
            self._turns.append(lane)
        return lane


def _index(entry: Entry) -> int:
    return entry.index
