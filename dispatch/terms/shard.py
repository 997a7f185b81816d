"""The unit of work: `Shard` as users and runners see it, `Entry` and `Batch` as the parent keeps it on its books.

An Entry's payload is encoded once and stays bytes: a retry, the journal and `outcome.payload` reuse them.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeGuard

from msgspec import Struct

if TYPE_CHECKING:
    import random

    from typing_extensions import TypeVar

    P = TypeVar("P", default=Any)
else:
    from typing import TypeVar

    P = TypeVar("P")

__all__ = ("Batch", "Entry", "Origin", "Shard", "Shards", "WorkerInfo", "is_shard", "shard_rng")


class Frame(Protocol):
    """The frame that a shard travelled in: knows the run's seed, and what identifies the shard."""

    seed: int

    def identity(self, offset: int) -> tuple[str, bytes]: ...


class Shard(Struct, Generic[P], eq=False):
    """One unit of work.

    A user makes one to say more than a payload: `Shard(payload, id="q17", timeout=5.0, runner="Scorer")`.
    A runner gets one with all fields set: `attempt` counts from 1, `timeout` is in seconds.
    A supplied id must be unique within a run; without one the id is the position.
    """

    payload: P
    id: str = ""
    timeout: float | None = None
    runner: str | None = None
    index: int = 0
    attempt: int = 1
    _frame: Any = None
    _offset: int = 0
    _rng: Any = None

    def __init_subclass__(cls) -> None:
        """Refused: what a subclass adds would not reach the runner."""
        raise TypeError(f"{cls.__qualname__}: a Shard cannot be subclassed; put what it has into the payload")

    @property
    def rng(self) -> random.Random:
        """Random numbers of this shard: from the run's seed and its supplied id, else its content."""
        if self._rng is None:
            frame: Frame | None = self._frame
            if frame is None:
                self._rng = shard_rng(0, self.id or str(self.index), b"")
            else:
                self._rng = shard_rng(frame.seed, *frame.identity(self._offset))
        return self._rng  # type: ignore[no-any-return]  # private, set two lines up


Shards: TypeAlias = Iterable[P | Shard[P]] | AsyncIterable[P | Shard[P]]  # what a door reads


def is_shard(payload: object) -> TypeGuard[Shard[Any]]:
    """Whether a payload came as a Shard."""
    return isinstance(payload, Shard)


def shard_rng(seed: int, supplied_id: str, payload: bytes) -> random.Random:
    """A generator that depends on nothing but the seed and what identifies the shard."""
    import random  # 4 ms, of which only runners that want random numbers pay

    identity = b"i" + supplied_id.encode() if supplied_id else b"p" + payload
    return random.Random(b"%d:%b" % (seed, identity))  # seeds from the SHA-512 of these bytes


class WorkerInfo(Struct, frozen=True, gc=False):
    """Who ran an attempt. `epoch` is wall clock minus monotonic clock, in seconds."""

    runner: str
    pid: int
    epoch: float


class Origin(Struct, frozen=True):
    """What all shards of one door share: the door's key, and how to read a payload back."""

    door: int
    decode: Callable[[bytes], Any]


class Entry(Struct, eq=False, gc=False):
    """One shard on the parent's books. `ready_at` is a monotonic time.

    Not tracked by the garbage collector: it must never refer to what may refer to it.
    """

    index: int
    payload: bytes  # encoded
    origin: Origin
    ready_at: float = 0.0
    id: str = ""
    timeout: float | None = None
    runner: str | None = None
    special: bool = False  # travels with more than its index and payload: an id, a timeout, a later attempt
    alone: bool = False  # runs with nothing else in its worker, to see whether it is what kills workers
    unseen: bool = False  # was in a worker whose end nobody saw
    reused: bool = False
    withdrawn: bool = False  # its submitter has gone: it must not run again
    charged: int = 0  # attempts charged to the retry budget
    deaths: int = 0  # attempts charged to the crash budget
    history: tuple[Any, ...] = ()
    row: int = 0  # the shard's id in the journal, where there is one
    unencoded: Any = None  # the payload itself, where it could not be encoded

    @property
    def shard_id(self) -> str:
        """The supplied id, else the position."""
        return self.id or str(self.index)


class Batch(Struct, eq=False, gc=False):
    """Plain shards of one door that follow each other: no ids, no timeouts, no history, and any worker may run them.

    What most shards are all their life. One to which anything happens but its end is made an Entry.
    """

    id: ClassVar[str] = ""

    start: int  # the index of the first
    payloads: list[bytes]
    origin: Origin
    ready_at: float

    def __len__(self) -> int:
        return len(self.payloads)

    def entry(self, offset: int) -> Entry:
        """The shard at `offset`, from 0."""
        return Entry(self.start + offset, self.payloads[offset], self.origin, self.ready_at)

    def entries(self, offset: int = 0) -> list[Entry]:
        """The shards from `offset` on."""
        return [self.entry(number) for number in range(offset, len(self.payloads))]

    def cut(self, number: int) -> Batch:
        """Take off the first so many shards."""
        head = Batch(self.start, self.payloads[:number], self.origin, self.ready_at)
        del self.payloads[:number]
        self.start += number
        return head
