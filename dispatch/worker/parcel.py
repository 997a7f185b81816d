"""The shards of one frame, as a worker unpacks them."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from dispatch.terms.shard import Shard
from dispatch.wire.codec import Codec
from dispatch.wire.frames import Work

__all__ = ("Parcel", "unpack")


class Parcel:
    """What the shards of one frame share: the run's seed, and their bytes where somebody asks for them."""

    __slots__ = ("_body", "_codec", "_raw", "seed")

    def __init__(self, codec: Codec, body: bytes | bytearray, seed: int) -> None:
        self._codec, self._body, self.seed = codec, body, seed
        self._raw: Work[Raw] | None = None

    def identity(self, offset: int) -> tuple[str, bytes]:
        """The id that the frame's n-th shard was given ("" for none), and its payload as it was sent."""
        if self._raw is None:
            self._raw = self._codec.work_raw(self._body)
        return self._raw.ids.get(offset, ""), bytes(self._raw.payloads[offset])


def unpack(work: Work[Any], parcel: Parcel) -> list[tuple[int, float | None, Shard[Any]]]:
    """The attempts of a frame: seq, timeout in seconds, shard."""
    found: list[tuple[int, float | None, Shard[Any]]] = []
    indexes = work.indexes or range(work.start, work.start + len(work.payloads))
    for offset, (index, payload) in enumerate(zip(indexes, work.payloads, strict=True)):
        limit = work.timeouts.get(offset, work.timeout)
        shard = Shard(
            payload,
            work.ids.get(offset, str(index)),
            limit,
            None,
            index,
            work.attempts.get(offset, 1),
            parcel,
            offset,
        )
        found.append((work.first + offset, limit, shard))
    return found
