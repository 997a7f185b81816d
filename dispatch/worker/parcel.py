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

    __slots__ = ("_body", "_codec", "_raws", "seed")

    def __init__(self, codec: Codec, body: bytes | bytearray, seed: int) -> None:
        self._codec, self._body, self.seed = codec, body, seed
        self._raws: list[Raw] | None = None

    def raw_payload(self, offset: int) -> bytes:
        """The payload of the frame's n-th shard, as it was sent."""
        if self._raws is None:
            self._raws = self._codec.work_raw(self._body).payloads
        return bytes(self._raws[offset])


def unpack(work: Work[Any], parcel: Parcel) -> list[tuple[int, float | None, Shard[Any]]]:
    """The attempts of a frame: seq, timeout in seconds, shard."""
    found: list[tuple[int, float | None, Shard[Any]]] = []
    for offset, (index, payload) in enumerate(zip(work.indexes, work.payloads, strict=True)):
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
