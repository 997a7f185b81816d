"""anyio.to_process, raw: one call per shard. It has no initializer, so a shared param goes through a file."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from anyio import CapacityLimiter, to_process

from benchmarks.contenders.byhand import ByHand
from benchmarks.harness import work


class ToProcess(ByHand):
    """Workers by anyio's own spawn."""

    title = "raw to_process"
    starts = ("spawn",)

    async def __aenter__(self) -> ToProcess:
        self._limiter = CapacityLimiter(self.workers)
        if self.shared is not None:
            self._directory = tempfile.TemporaryDirectory(dir="/dev/shm")
            path = Path(self._directory.name) / "shared"
            with path.open("wb") as file:
                pickle.dump(self.shared, file, protocol=5)
            self.fn = partial(with_file, self.fn, str(path))
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.shared is not None:
            self._directory.cleanup()

    async def call_with(self, fn: Callable[..., Any], *args: Any) -> Any:
        return await to_process.run_sync(fn, *args, limiter=self._limiter)

    def call(self, payload: Any) -> Awaitable[Any]:
        return to_process.run_sync(self.fn, payload, limiter=self._limiter)


def with_file(fn: Callable[[Any], Any], path: str, payload: Any) -> Any:
    """Load what is shared when it is first asked for."""
    if work.KEPT is None:
        with Path(path).open("rb") as file:
            work.keep(pickle.load(file))
    return fn(payload)
