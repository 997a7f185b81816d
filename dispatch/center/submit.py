"""The door of `submit`: each shard has its own waiter, and none waits behind another door's shards."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Any

import anyio

from dispatch.center.intake import Intake
from dispatch.center.session import Session
from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import CenterClosed, ConfigError, QueueFull
from dispatch.terms.outcome import Failed
from dispatch.terms.shard import Entry
from dispatch.wire.codec import Codec

__all__ = ("CallDoor",)

STOPPED_WITHIN = 0.4  # seconds that a cancelled submit waits for its shard to be gone


class CallDoor:
    """All submits of one opening."""

    recorder = None  # a submit is not journaled

    def __init__(
        self, session: Session, key: int, codecs: dict[str, Codec], *, config: DispatchConfig
    ) -> None:
        self.stopping = False
        self._session, self._key, self._config = session, key, config
        self._intake = Intake(key, codecs)
        self._waiters: dict[int, asyncio.Future[Any]] = {}
        self._held_bytes = 0
        self._places: deque[asyncio.Future[None]] = deque()
        session.books.doors[key] = self

    @property
    def _full(self) -> bool:
        return (
            len(self._waiters) >= self._config.max_pending
            or self._held_bytes >= self._config.max_pending_bytes
        )

    async def submit(self, payload: Any, *, timeout: float | None, nowait: bool) -> Any:
        """The outcome of one shard. Cancelling withdraws it, or stops it where it runs."""
        while self._full:
            if nowait:
                raise QueueFull(len(self._waiters))
            await self._place()
        try:
            return await self._submitted(payload, timeout)
        finally:
            self._offer_place()  # ours, or the one we were given and did not need

    async def _submitted(self, payload: Any, timeout: float | None) -> Any:
        if self._session.closing or self._session.draining:
            raise CenterClosed("submit", "comes too late: the centre is draining, or closing")
        if timeout is not None and not timeout > 0:
            raise ConfigError("submit: timeout", timeout, "it must be more than 0 seconds")
        entry, failed, size = self._intake.one(payload, monotonic(), timeout=timeout)
        if failed is not None:
            return failed
        if self._session.startup_fault is not None:
            return Failed(fault=self._session.startup_fault, entry=entry)
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters[entry.index] = waiter
        self._held_bytes += size
        self._session.push([entry], special=entry.special)
        self._offer_place()  # the shard before may have made room for several
        try:
            return await waiter
        except asyncio.CancelledError:
            await self._withdrawn(entry)
            raise
        finally:
            self._waiters.pop(entry.index, None)
            self._held_bytes -= size

    async def _withdrawn(self, entry: Entry) -> None:
        """Stop a shard, and wait (not for long) until it is."""
        if entry.index not in self._waiters:
            return  # its outcome came in the same turn
        settled = self._waiters[entry.index] = asyncio.get_running_loop().create_future()
        self._session.withdraw(entry)
        with anyio.move_on_after(STOPPED_WITHIN, shield=True):
            await settled

    async def _place(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._places.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._offer_place()
            raise

    def _offer_place(self) -> None:
        while self._places and not self._full:
            place = self._places.popleft()
            if not place.done():
                place.set_result(None)
                return

    def halt(self) -> None:
        """Nothing is read ahead here."""

    def take(self, outcomes: list[Any], *, size: int, slot: int, seconds: float) -> None:
        """Called by the session with outcomes of this door."""
        self._intake.forget(outcomes)
        for outcome in outcomes:
            waiter = self._waiters.pop(outcome.entry.index, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(outcome)
