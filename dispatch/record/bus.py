"""Events to listeners, in order. A failing listener is logged and dropped: it cannot hurt the run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

import anyio

from dispatch.terms.event import Closed, Event

__all__ = ("Bus", "Listener")

Listener = Callable[[Event], None]
_log = logging.getLogger("dispatch")
BACKLOG = 10_000  # events that a slow reader may be behind before the oldest are dropped


class Bus:
    """Tells every listener every event, at once and in order."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @property
    def heard(self) -> bool:
        """Whether anybody listens: what is costly to say need not be said otherwise."""
        return bool(self._listeners)

    def say(self, event: Event) -> None:
        """Tell all listeners."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001  (a failing listener cannot hurt the run)
                _log.exception("a listener to events failed, and hears no more")
                self.leave(listener)

    def join(self, listener: Listener) -> None:
        """Let `listener(event)` be called for every event from now on, in the event loop; it must not block."""
        self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """Call it no more."""
        with suppress(ValueError):
            self._listeners.remove(listener)

    def events(self) -> AsyncGenerator[Event]:
        """Events from this call on, to `Closed`. A reader that is more than BACKLOG behind loses the oldest."""
        waiting: deque[Event] = deque(maxlen=BACKLOG)
        arrived = anyio.Event()

        def hear(event: Event) -> None:
            waiting.append(event)
            arrived.set()

        async def heard() -> AsyncGenerator[Event]:
            nonlocal arrived
            try:
                while True:
                    await arrived.wait()
                    arrived = anyio.Event()
                    while waiting:
                        yield (event := waiting.popleft())
                        if isinstance(event, Closed):
                            return
            finally:
                self.leave(hear)

        self.join(hear)
        return heard()
