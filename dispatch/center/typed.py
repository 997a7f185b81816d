"""What type checkers are told of runners and of an opening. Nothing here runs.

A call that names a runner is overloaded twice: `Async` stands first, because a coroutine function is also a
plain function that returns a coroutine. Where a type variable stands, it is read from the annotations of
`do_run` or of the function.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

from dispatch.terms.event import Event, Snapshot
from dispatch.terms.outcome import Outcome
from dispatch.terms.report import Report
from dispatch.terms.shard import Shard, Shards

__all__ = ("Async", "AsyncSharing", "Caller", "Opened", "Runs", "RunsAsync", "Sharing", "Steered", "Sync")

P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)


class Runs(Protocol[P, R_co]):
    """A runner with `def do_run`."""

    def do_run(self, shard: Shard[P]) -> R_co: ...


class RunsAsync(Protocol[P, R_co]):
    """A runner with `async def do_run`."""

    def do_run(self, shard: Shard[P]) -> Coroutine[Any, Any, R_co]: ...


Async: TypeAlias = type[RunsAsync[P, R]] | Callable[[P], Awaitable[R]]
Sync: TypeAlias = type[Runs[P, R]] | Callable[[P], R]
AsyncSharing: TypeAlias = Callable[[P, S], Awaitable[R]]
Sharing: TypeAlias = Callable[[P, S], R]


class Caller(Protocol):
    """The door of `submit`."""

    async def submit(self, payload: Any, *, timeout: float | None, nowait: bool) -> Outcome[Any]: ...


class Steered(Protocol):
    """A session, as far as its centre steers it."""

    def drain(self) -> None: ...

    def snapshot(self) -> Snapshot: ...


class Opened(Protocol):
    """What a centre has while it is open."""

    @property
    def calls(self) -> Caller: ...

    @property
    def session(self) -> Steered: ...

    async def run(
        self, shards: Shards[Any] | None, *, collect: bool, doors: list[Any] | None = None
    ) -> Report[Any]: ...

    def stream(
        self, shards: Shards[Any] | None, *, ordered: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[Outcome[Any]]]: ...

    def events(self) -> AsyncIterator[Event]: ...

    async def close(self, *, now: bool = False, grace: float | None = None) -> None: ...
