"""`dispatch.map` and `dispatch.stream`: plain functions, without writing a class."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from dispatch.center.base import DispatchCenter
from dispatch.center.run import Outcomes
from dispatch.terms.config import DispatchConfig
from dispatch.terms.outcome import Done
from dispatch.worker.runner import Target

__all__ = ("map", "stream")


async def map(
    fn: Target,
    payloads: Iterable[Any] | AsyncIterable[Any],
    *,
    shared_param: Any = None,
    config: DispatchConfig | None = None,
    return_outcomes: bool = False,
) -> list[Any]:  # noqa: A001
    """Values in input order.

    `fn(payload)`, or `fn(payload, shared_param)`, is an importable function or a Runner class. Raises an
    ExceptionGroup of what every shard that is not Done raises; with `return_outcomes`, gives outcomes instead.
    Cancelling stops the workers (SIGKILL).
    """
    report = await DispatchCenter.init(config, fn, payloads, shared_param=shared_param).run()
    if return_outcomes:
        return report.outcomes
    errors = [_raised(outcome) for outcome in report.outcomes if not isinstance(outcome, Done)]
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {report.total} shards have no value", errors)
    return report.values()


@asynccontextmanager
async def stream(
    fn: Target,
    payloads: Iterable[Any] | AsyncIterable[Any],
    *,
    shared_param: Any = None,
    ordered: bool = False,
    config: DispatchConfig | None = None,
) -> AsyncIterator[Outcomes[Any]]:
    """Outcomes as they come, or in input order. Leaving early stops the rest."""
    async with DispatchCenter.init(config, fn, payloads, shared_param=shared_param).stream(
        ordered=ordered
    ) as outcomes:
        yield outcomes


def _raised(outcome: Any) -> Exception:
    try:
        outcome.unwrap()
    except Exception as error:  # noqa: BLE001  (that is what it is for)
        return error
    raise AssertionError("an outcome that is not Done raises")
