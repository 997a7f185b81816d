"""The door of `stream`: outcomes to a consumer, as they come or in input order. The consumer's pace is the brake."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic

from dispatch.center.run import R, SourceDoor
from dispatch.terms.outcome import Cancelled, Done, Failed

__all__ = ("Outcomes", "StreamDoor")


KEPT = 1000  # outcomes that are not Done, for the report that `post_process` gets


class StreamDoor(SourceDoor[R]):
    """Hands outcomes to a consumer, as they come or in input order."""

    def __init__(self, *args: Any, ordered: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ordered = ordered
        self._early: dict[int, Any] = {}
        self._next = 0
        self._buffer: deque[tuple[list[Any], int]] = deque()
        self._waiting_bytes = 0.0

    def keep(self, outcomes: list[Any], size: int) -> None:
        if not isinstance(outcomes[0], Done):
            self._kept.extend(outcomes[: KEPT - len(self._kept)])  # not all: a stream may never end
        if self._ordered:
            outcomes = self._in_order(outcomes)
        self._waiting_bytes += size
        self._held_bytes += size
        if outcomes:
            self._buffer.append((outcomes, size))
        elif self._buffer:
            bunch, before = self._buffer.pop()
            self._buffer.append((bunch, before + size))

    def _in_order(self, outcomes: list[Any]) -> list[Any]:
        early = self._early
        for outcome in outcomes:
            early[outcome.index] = outcome
        ready: list[Any] = []
        while self._next in early:
            ready.append(early.pop(self._next))
            self._next += 1
        return ready

    def _buffered_bytes(self) -> float:
        return self._waiting_bytes

    @property
    def has_more(self) -> bool:
        """Whether the next bunch is there."""
        return bool(self._buffer)

    async def bunch(self) -> list[Any] | None:
        """The next outcomes, None after the last. Raises what the source raised, after the last."""
        while not self._buffer:
            if self.settled:
                if self.error is not None:
                    raise self.error
                return None
            await self._progress.wait()
        outcomes, size = self._buffer.popleft()
        if not self._buffer:
            size = int(self._waiting_bytes)
        self._waiting_bytes -= size
        self._held_bytes = max(0.0, self._held_bytes - size)
        self._handed += len(outcomes)
        self._tell()
        return outcomes


class Outcomes(Generic[R]):
    """What `center.stream` gives: iterate it with `async for`. Iterating again goes on where it stopped."""

    def __init__(self, door: StreamDoor[R]) -> None:
        self._door = door
        self._bunches: deque[Iterator[Any]] = deque()  # begun, and shared by all who iterate

    async def __aiter__(self) -> AsyncIterator[Done[R] | Failed | Cancelled]:
        while True:
            while self._bunches:
                bunch = self._bunches[0]
                for outcome in bunch:
                    yield outcome
                if self._bunches and self._bunches[0] is bunch:
                    self._bunches.popleft()
            found = await self._door.bunch()
            if found is None:
                return
            self._bunches.append(iter(found))
            if self._door.has_more:
                await asyncio.sleep(0)  # a bunch per turn of the loop: the host's other tasks run between

    async def __anext__(self) -> Done[R] | Failed | Cancelled:
        async for outcome in self:
            return outcome
        raise StopAsyncIteration
