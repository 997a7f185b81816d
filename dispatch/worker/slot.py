"""A few bytes that a runner process and its nanny share: which attempt runs since when, and until when.

The runner writes the first group, the nanny the second. In both directions a late view is harmless: the nanny
looks again, with the runner stopped, before it kills for a deadline; and after raising the fence it waits
longer than a store takes to be seen before it reads which attempt was started last.
"""

from __future__ import annotations

import math
import mmap
import struct
from typing import Any

__all__ = ("Slot",)

# seq of the newest attempt, since (0.0: idle) and deadline (inf: none) in monotonic seconds, outcomes not yet sent
RUN = struct.Struct("<qddq")
FENCE = 4  # the word that the sync lane reads before each attempt
_HELD, _BLAME, _CUT, _PHASE, _SINCE, _OLDEST, _OLDEST_SINCE = 3, 5, 6, 7, 8, 9, 10
_SIZE = 88


class Slot:
    """`memory` is a shared map of at least 88 bytes; none where runner and watcher are one process."""

    def __init__(self, memory: Any = None) -> None:
        self.memory = bytearray(_SIZE) if memory is None else memory
        self.words = memoryview(self.memory)[:_SIZE].cast("q")
        self._times = memoryview(self.memory)[:_SIZE].cast("d")

    @classmethod
    def mapped(cls, fd: int) -> Slot:
        """The slot in a file that nanny and runner process both map."""
        return cls(mmap.mmap(fd, mmap.PAGESIZE))

    def keep_from_forks(self) -> None:
        """Leave the slot out of the memory of forks, which run what must not write to it (Linux)."""
        if isinstance(self.memory, mmap.mmap) and hasattr(mmap, "MADV_DONTFORK"):
            self.memory.madvise(mmap.MADV_DONTFORK)

    def reset(self, *, deadline: float = math.inf, since: float = 0.0) -> None:
        """A new life: nothing was started, and being ready is due at `deadline`."""
        RUN.pack_into(self.memory, 0, 0, since, deadline, 0)
        self.words[FENCE] = self.words[_BLAME] = self.words[_CUT] = self.words[_PHASE] = 0
        self.words[_OLDEST] = 0

    def enter(self, seq: int, since: float, deadline: float) -> None:
        """An attempt starts (the sync lane writes the same bytes by itself)."""
        RUN.pack_into(self.memory, 0, seq, since, deadline, 0)

    def leave(self, deadline: float = math.inf) -> None:
        """Nothing runs; an async lane still has a `deadline`."""
        self._times[1] = 0.0
        self._times[2] = deadline

    def read(self) -> tuple[int, float, float]:
        """The newest attempt, since when it runs (0.0: it does not), its deadline."""
        seq, since, deadline, _held = RUN.unpack_from(self.memory, 0)
        return seq, since, deadline

    @property
    def held(self) -> int:
        """Outcomes that the lane has not sent yet."""
        return self.words[_HELD]

    @property
    def running(self) -> int:
        """The attempt that runs, 0 for none."""
        seq, since, _ = self.read()
        return seq if since else 0

    @property
    def fence(self) -> int:
        """No attempt with a smaller seq may start."""
        return self.words[FENCE]

    @fence.setter
    def fence(self, upto: int) -> None:
        self.words[FENCE] = upto

    @property
    def shown(self) -> tuple[int, float]:
        """The attempt to tell people about, and since when it runs: of several the oldest; zeros for none."""
        if self.words[_OLDEST]:
            return self.words[_OLDEST], self._times[_OLDEST_SINCE]
        seq, since, _ = self.read()
        return (seq, since) if since else (0, 0.0)

    def show(self, seq: int, since: float) -> None:
        """Of the attempts that an async lane runs, this is the oldest (0: there is none)."""
        self._times[_OLDEST_SINCE] = since
        self.words[_OLDEST] = seq

    @property
    def blamed(self) -> int:
        """Whose deadline it is, where the attempt that holds the loop need not be the late one (0: the same)."""
        return self.words[_BLAME]

    @property
    def blamed_since(self) -> float:
        """When the attempt in `blamed` started."""
        return self._times[_SINCE]

    def blame(self, seq: int, since: float) -> None:
        """An attempt is late (0: no more) that started at `since` and need not hold the loop."""
        self._times[_SINCE] = since
        self.words[_BLAME] = seq

    @property
    def cut(self) -> int:
        """Bytes of output that the nanny has thrown away since the shard began to print."""
        return self.words[_CUT]

    @cut.setter
    def cut(self, number: int) -> None:
        self.words[_CUT] = number

    @property
    def serving(self) -> bool:
        """Whether `setup` is over."""
        return bool(self.words[_PHASE])

    @serving.setter
    def serving(self, yes: bool) -> None:
        self.words[_PHASE] = int(yes)
