"""From a centre to its opening. Worker processes boot while the rest is imported and the shared param is encoded."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from dispatch.terms.errors import ConfigError, UnguardedMain

if TYPE_CHECKING:
    from dispatch.center.base import DispatchCenter
    from dispatch.center.opening import Opening

__all__ = ("boot", "need_asyncio", "own")


async def boot(center: DispatchCenter[Any, Any], *, for_a_run: bool = False) -> Opening:
    """Open a centre. `for_a_run`: for a run or a stream, which comes next.

    Raises ConfigError or RunnerError for what could never work, UnguardedMain where a worker imports it, StartupFailed
    if no worker can be made ready. Cancelling, or an error, leaves nothing behind.
    """
    if sys.orig_argv[-2:] == ["-m", "anyio.to_process"]:
        raise UnguardedMain
    targets, config = center.check(), center.config
    engine, begun = None, False
    try:
        if not (for_a_run and config.work_dir):  # who may not write there starts no workers
            engine = center.make_engine()
            begun = await engine.foresee(
                range(len(targets)), env=config.env, startup_timeout=config.policy.startup_timeout
            )
        from dispatch.center.opening import Opening

        opening = Opening(center, targets, engine, for_a_run=for_a_run)
        await opening.prepare()
        await opening.open()
    except BaseException:
        if engine is not None and begun:
            with CancelScope(shield=True):
                await engine.aclose()
        raise
    return opening


@asynccontextmanager
async def own(center: DispatchCenter[Any, Any]) -> AsyncGenerator[Opening]:
    """An opening for one run or stream, beside another's."""
    opening = await boot(center, for_a_run=True)
    try:
        yield opening
    except BaseException:
        await opening.close(now=True)
        raise
    await opening.close()


def need_asyncio() -> None:
    """Raise ConfigError if asyncio runs no loop here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        cure = "dispatch runs on asyncio's loops, uvloop's included, and on no other"
        raise ConfigError("event loop", None, cure) from None
