"""What is seen of a run, and written of it, while it goes on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import msgspec

from dispatch.center.base import DispatchCenter
from dispatch.cli import rows
from dispatch.cli.console import console as new_console
from dispatch.cli.ending import warn
from dispatch.record.progress import Progress, view
from dispatch.terms.errors import CenterClosed
from dispatch.terms.event import Event, Settled

__all__ = ("Watcher",)

LOOK = 0.2  # seconds between two looks of the live view
FIRST_LINE, LINES = 2.0, 10.0  # seconds until the first plain line, and between two of them


class Watcher:
    """Sees every outcome before the run goes on: writes it, counts it, and shows the whole now and then."""

    def __init__(self, progress: Progress, *, out: rows.Rows | None, as_json: bool, title: str = "") -> None:
        self.progress, self.title = progress, title
        self.error: Exception | None = None
        self._out, self._json = out, as_json
        self.center: DispatchCenter[Any, Any] | None = None  # known once it is watched
        on_terminal = sys.stderr.isatty() and not (as_json and sys.stdout.isatty())
        self._show = self._live if on_terminal else self._lines

    def hear(self, event: Event) -> None:
        """Called for every event. What goes wrong here ends the run: outcomes must not be lost unseen."""
        self.progress.hear(event)
        if self.error is not None:
            return
        try:
            if isinstance(event, Settled):
                self._settled(event.outcomes)
            elif self._json and (line := _told(event)):
                sys.stdout.buffer.write(line)
            if self._json:
                sys.stdout.flush()  # who reads this may act on it
        except Exception as error:  # noqa: BLE001  (a full disk, a closed pipe: told by `run`)
            self.error = error
            if self.center is not None:
                with suppress(CenterClosed):
                    self.center.drain()

    def _settled(self, outcomes: list[Any]) -> None:
        if self._out is None and not self._json:
            return
        for outcome in outcomes:
            line = rows.encode(rows.row(outcome))
            if self._out is not None:
                self._out.add(outcome.index, line)
            if self._json:
                sys.stdout.buffer.write(line)

    async def watch(self, center: DispatchCenter[Any, Any]) -> None:
        """Show the run until cancelled. What fails in showing it ends the showing, and not the run."""
        self.center = center
        screen = Screen(self._show())
        try:
            while True:
                with suppress(CenterClosed):
                    self.progress.see(center.snapshot())
                self.progress.tick(time.monotonic())
                screen.draw()
                if self.error is not None:
                    with suppress(CenterClosed):
                        center.drain()
                await asyncio.sleep(LOOK)
        finally:
            self.progress.tick(time.monotonic())
            screen.draw()
            screen.close()

    @contextmanager
    def _live(self) -> Generator[Callable[[], None]]:
        from rich.live import Live

        console = new_console(stderr=True)
        with Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty()
        ) as live:

            def show() -> None:
                width, height = console.size
                live.update(view(self.progress, width=width, height=height, title=self.title), refresh=True)

            yield show

    @contextmanager
    def _lines(self) -> Generator[Callable[[], None]]:
        due = time.monotonic() + FIRST_LINE

        def show() -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + LINES
                warn(f"{time.strftime('%H:%M:%S')}  {self.progress.line()}")

        yield show


class Screen:
    """Where the run is shown, until that fails: then nothing is shown any more."""

    def __init__(self, showing: AbstractContextManager[Callable[[], None]]) -> None:
        self._stack = ExitStack()
        self._draw: Callable[[], None] | None = None
        with suppress(Exception):
            self._draw = self._stack.enter_context(showing)

    def draw(self) -> None:
        """Show how it stands."""
        if self._draw is None:
            return
        try:
            self._draw()
        except Exception:  # noqa: BLE001  (a terminal that is gone, or what rich makes of a size of nothing)
            self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._draw = None
        with suppress(Exception):
            self._stack.close()


def _told(event: Event) -> bytes:
    """A rare event as a line of JSON, in UTF-8; nothing for what is too frequent to be told."""
    plain: dict[str, Any] = msgspec.to_builtins(event)
    kind = plain.pop("type")
    if kind in ("printed", "progressed"):
        return b""
    return msgspec.json.encode({"event": kind, **plain}) + b"\n"
