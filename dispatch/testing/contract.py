"""Contract checks: `check_engine` and `check_center` prove what every engine and every centre promises.

    async def test_my_engine():
        await check_engine(MyEngine)


    async def test_my_center():
        await check_center(MyCenter)

A promise that is broken is an AssertionError that says which one, and what was seen. For a test per promise,
parametrize over ENGINE_PROMISES or CENTER_PROMISES and pass `promises=[promise]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from dispatch.testing.cast import Cast, CenterPromise, MakeCenter, new_directory
from dispatch.testing.center_promises import CONTAINMENT as CENTER_CONTAINMENT
from dispatch.testing.center_promises import SHARD_PROMISES
from dispatch.testing.door_promises import DOOR_PROMISES
from dispatch.testing.engine_promises import CONTAINMENT as ENGINE_CONTAINMENT
from dispatch.testing.engine_promises import ENGINE_PROMISES, EnginePromise
from dispatch.testing.script import ScriptedRunner
from dispatch.testing.stage import MakeEngine
from dispatch.testing.traces import leaves_nothing
from dispatch.worker.runner import Target

__all__ = ("CENTER_PROMISES", "ENGINE_PROMISES", "check_center", "check_engine")

CENTER_PROMISES: tuple[CenterPromise, ...] = (*SHARD_PROMISES, *DOOR_PROMISES)
PATIENCE = 45.0  # seconds for one promise, on a loaded machine


async def check_engine(
    make_engine: MakeEngine, *, promises: Sequence[EnginePromise] = ENGINE_PROMISES
) -> None:
    """Prove an engine's promises. `make_engine()` makes a new one, not open; its class will do.

    An engine with `contains_faults` must also end runners that hang, tell exactly how they died, and take their
    whole tree along. After each promise no process, socket or file may be left.
    Raises AssertionError, naming the promise, for the first that is broken.
    """
    contains = make_engine().contains_faults
    for promise in promises:
        if contains or promise not in ENGINE_CONTAINMENT:
            await _keep(promise, make_engine)


async def check_center(
    make_center: MakeCenter,
    *,
    runner: Target = ScriptedRunner,
    promises: Sequence[CenterPromise] = CENTER_PROMISES,
) -> None:
    """Prove the promises of a centre's doors. `make_center(runner, shards, config=...)` makes one; its class will do.

    The runner plays scripts: `ScriptedRunner` or `AsyncScriptedRunner`. `config.data_parallel` is 2; a centre may
    have fewer workers, not more. After each promise no process, socket or file may be left.
    Raises AssertionError, naming the promise, for the first that is broken.
    """
    with new_directory() as nowhere:
        contains = Cast(make_center, runner, nowhere).contains_faults
    for promise in promises:
        if contains or promise not in CENTER_CONTAINMENT:
            with new_directory() as directory:
                await _keep(promise, Cast(make_center, runner, directory))


async def _keep(promise: Callable[[Any], Awaitable[None]], subject: Any) -> None:
    """Try one promise; whatever goes wrong is its being broken."""
    says = (promise.__doc__ or promise.__name__).strip().splitlines()[0]
    try:
        with anyio.fail_after(PATIENCE):
            async with leaves_nothing():
                await promise(subject)
    except TimeoutError as error:
        raise AssertionError(f"broken promise: {says} Not over within {PATIENCE:g} s.") from error
    except Exception as error:
        raise AssertionError(f"broken promise: {says} {_detail(error)}") from error


def _detail(error: BaseException) -> str:
    """What was seen: the sentence of a check, or the error that a door raised."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if inner:
        return _detail(inner[0])
    return str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
