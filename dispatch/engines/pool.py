"""Worker processes of anyio's that stay out of its pool.

anyio keeps one pool for each event loop, shares it with the host, and kills it when the task that `asyncio.run`
was given ends. A centre that a fixture or a notebook cell opened stays open beyond that task. So each of our
calls finds an empty pool of its own: nobody kills our processes but we, and nobody else's calls get one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from contextlib import suppress
from typing import Any

import anyio
from anyio import CancelScope, current_time, to_process
from anyio.abc import Process

from dispatch.terms.outcome import Fault

__all__ = ("Apart", "bury", "late_fault", "startup_fault")

# A SIGINT to the process group ends a process that is too young to ignore it: worth another start.
_DIED_YOUNG = (
    KeyboardInterrupt,
    ProcessLookupError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
)

_WITHIN = 1.0  # seconds that a killed process gets to be gone

# Private names, for want of public ones; without them we share the pool, and a used process is refused.
_NAMES = ("_process_pool_workers", "_process_pool_idle_workers")
_variables: list[Any] = [found for name in _NAMES if (found := getattr(to_process, name, None)) is not None]


class Apart:
    """Given to `to_process.run_sync` as its limiter; it limits nothing, and is for one call.

    anyio looks up its pool, then enters the limiter, and does not give way in between: that is when the host's
    pool is put back. `begin` before the call, `end` after it whatever happens.
    """

    def __init__(self) -> None:
        self._hosts: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """Put an empty pool in the place of the host's."""
        if len(_variables) == len(_NAMES):
            pools: list[Any] = [set(), deque()]
            self._hosts = [(var, var.set(pool)) for var, pool in zip(_variables, pools, strict=True)]

    def end(self) -> None:
        """Put the host's pool back."""
        while self._hosts:
            variable, token = self._hosts.pop()
            variable.reset(token)

    async def __aenter__(self) -> None:
        self.end()

    async def __aexit__(self, *_: object) -> None:
        """Nothing was limited."""


async def bury(error: BaseException) -> None:
    """End and close the process whose start failed or was cancelled: anyio leaves its pipes, or all of it.

    The process is known only to the frame that raised `error`.
    """
    trace = error.__traceback__
    while trace is not None:
        process = trace.tb_frame.f_locals.get("process")
        if isinstance(process, Process):
            with CancelScope(shield=True, deadline=current_time() + _WITHIN):
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.kill(
                            process.pid, signal.SIGKILL
                        )  # not process.kill(): that may collect its exit status
                await process.aclose()
            return
        trace = trace.tb_next


def late_fault(patience: float) -> Fault:
    """No anyio worker process came up within so many seconds."""
    cure = "raise policy.startup_timeout if this machine needs longer"
    return Fault(cause="startup", message=f"no worker process within {patience:g} s; {cure}")


def startup_fault(error: BaseException) -> Fault:
    """Why an anyio worker process did not come up, with the cure where it is known."""
    cause = error.__cause__ or error
    name = type(cause).__name__
    if isinstance(cause, _DIED_YOUNG):
        return Fault(cause="crashed", message=f"a worker process died while it was starting ({name})")
    message = f"a worker process could not be started: {name}: {cause}"
    if name != "UnguardedMain":
        main = getattr(sys.modules["__main__"], "__file__", None)
        message += f"; every worker imports the main script ({main}): it must import cleanly "
        message += "under another name, without arguments"
    return Fault(cause="startup", type=name, message=message, final=True)
