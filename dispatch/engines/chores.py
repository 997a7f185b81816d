"""Tasks that callbacks of the event loop begin: an answer to a runner, a worker's call.

Not tasks of an anyio group: with sniffio installed, a group wants to be asked from within a running task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ("Chores",)


class Chores:
    """Tasks that run beside each other until they end or `aclose` ends them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> asyncio.Task[None]:
        """Begin a task. What it raises goes to the event loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work(*args))
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            told = {"message": "a task of dispatch failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(told)

    async def aclose(self, *, within: float) -> None:
        """Cancel what still runs, and wait for it, so many seconds at most."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within)
