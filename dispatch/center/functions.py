"""`dispatch.map` and `dispatch.stream`: plain functions, without writing a class."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, TypeVar, overload

from dispatch.center.base import DispatchCenter
from dispatch.center.typed import Async, AsyncSharing, Sharing, Sync
from dispatch.terms.config import DispatchConfig
from dispatch.terms.outcome import Done, Outcome
from dispatch.terms.shard import Shards
from dispatch.worker.runner import Target

__all__ = ("map", "stream")

P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S")


@overload
async def map(
    fn: Async[P, R],
    payloads: Shards[P],
    *,
    shared_param: Any = None,
    config: DispatchConfig | None = None,
    return_outcomes: Literal[False] = False,
) -> list[R]: ...


@overload
async def map(
    fn: Sync[P, R],
    payloads: Shards[P],
    *,
    shared_param: Any = None,
    config: DispatchConfig | None = None,
    return_outcomes: Literal[False] = False,
) -> list[R]: ...


@overload
async def map(
    fn: AsyncSharing[P, S, R],
    payloads: Shards[P],
    *,
    shared_param: S,
    config: DispatchConfig | None = None,
    return_outcomes: Literal[False] = False,
) -> list[R]: ...


@overload
async def map(
    fn: Sharing[P, S, R],
    payloads: Shards[P],
    *,
    shared_param: S,
    config: DispatchConfig | None = None,
    return_outcomes: Literal[False] = False,
) -> list[R]: ...


@overload
async def map(
    fn: Async[P, R] | AsyncSharing[P, Any, R],
    payloads: Shards[P],
    *,
    shared_param: Any = None,
    config: DispatchConfig | None = None,
    return_outcomes: Literal[True],
) -> list[Outcome[R]]: ...


@overload
async def map(
    fn: Sync[P, R] | Sharing[P, Any, R],
    payloads: Shards[P],
    *,
    shared_param: Any = None,
    config: DispatchConfig | None = None,
    return_outcomes: Literal[True],
) -> list[Outcome[R]]: ...


async def map(
    fn: Target,
    payloads: Shards[Any],
    *,
    shared_param: Any = None,
    config: DispatchConfig | None = None,
    return_outcomes: bool = False,
) -> list[Any]:
    """Values in input order.

    `fn(payload)`, or `fn(payload, shared_param)`, is an importable function or a Runner class. Raises an
    ExceptionGroup of what every shard that is not Done raises; with `return_outcomes`, gives outcomes instead.
    Cancelling stops the workers (SIGKILL).
    """
    report = await DispatchCenter[Any, Any].init(config, fn, payloads, shared_param=shared_param).run()
    if return_outcomes:
        return report.outcomes
    errors = [_raised(outcome) for outcome in report.outcomes if not isinstance(outcome, Done)]
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {report.total} shards have no value", errors)
    return report.values()


@overload
def stream(
    fn: Async[P, R],
    payloads: Shards[P],
    *,
    shared_param: Any = None,
    ordered: bool = False,
    config: DispatchConfig | None = None,
) -> AbstractAsyncContextManager[AsyncIterator[Outcome[R]]]: ...


@overload
def stream(
    fn: Sync[P, R],
    payloads: Shards[P],
    *,
    shared_param: Any = None,
    ordered: bool = False,
    config: DispatchConfig | None = None,
) -> AbstractAsyncContextManager[AsyncIterator[Outcome[R]]]: ...


@overload
def stream(
    fn: AsyncSharing[P, S, R],
    payloads: Shards[P],
    *,
    shared_param: S,
    ordered: bool = False,
    config: DispatchConfig | None = None,
) -> AbstractAsyncContextManager[AsyncIterator[Outcome[R]]]: ...


@overload
def stream(
    fn: Sharing[P, S, R],
    payloads: Shards[P],
    *,
    shared_param: S,
    ordered: bool = False,
    config: DispatchConfig | None = None,
) -> AbstractAsyncContextManager[AsyncIterator[Outcome[R]]]: ...


@asynccontextmanager
async def stream(
    fn: Target,
    payloads: Shards[Any],
    *,
    shared_param: Any = None,
    ordered: bool = False,
    config: DispatchConfig | None = None,
) -> AsyncGenerator[AsyncIterator[Outcome[Any]]]:
    """Outcomes as they come, or in input order. Leaving early stops the rest."""
    center = DispatchCenter[Any, Any].init(config, fn, payloads, shared_param=shared_param)
    async with center.stream(ordered=ordered) as outcomes:
        yield outcomes


def _raised(outcome: Any) -> Exception:
    try:
        outcome.unwrap()
    except Exception as error:  # noqa: BLE001  (that is what it is for)
        return error
    raise AssertionError("an outcome that is not Done raises")
