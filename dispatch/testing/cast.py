"""What the promises of centres are tried on: centres of one make, whose workers play scripts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

from dispatch.center.base import DispatchCenter
from dispatch.terms.config import DispatchConfig, Policy
from dispatch.testing.proof import require, until
from dispatch.testing.script import Script, Succeed, Touch, WaitFor, play
from dispatch.worker.runner import Target

__all__ = ("Cast", "CenterPromise", "MakeCenter", "new_directory")

MakeCenter = Callable[..., DispatchCenter[Any, Any]]


class Cast:
    """Centres of one make, with two workers that play scripts, and a directory for the files of these scripts."""

    def __init__(self, make_center: MakeCenter, runner: Target, directory: str) -> None:
        self._make, self._runner, self.directory = make_center, runner, directory

    def center(
        self, shards: Any = (), *, policy: Policy | None = None, **config: Any
    ) -> DispatchCenter[Any, Any]:
        """A new centre, not open."""
        settings = DispatchConfig(data_parallel=2, policy=policy or Policy(), **config)
        return self._make(self._runner, shards, config=settings)

    @property
    def contains_faults(self) -> bool:
        """Whether the centre's engine promises that a shard which hangs or crashes costs itself only."""
        return self.center().make_engine().contains_faults

    def path(self, name: str) -> str:
        """Where a file of this name is, or will be."""
        return os.path.join(self.directory, name)

    def waiting(self, name: str) -> Script:
        """A script that says that it has begun, and waits until its gate is opened."""
        return play(Touch(self.path(name)), WaitFor(self.gate(name)), Succeed(name))

    def gate(self, name: str) -> str:
        """The file that such a script waits for."""
        return self.path(f"{name}.gate")

    async def began(self, name: str) -> None:
        """Wait until such a script has begun."""
        require(await until(lambda: os.path.exists(self.path(name))), f"the shard {name} was never run")

    def open_gate(self, name: str) -> None:
        """Let such a script go on; a thread that was abandoned ends by it."""
        with open(self.gate(name), "w"):
            pass


CenterPromise = Callable[[Cast], Awaitable[None]]


def new_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory for a cast."""
    return tempfile.TemporaryDirectory(prefix="contract-", ignore_cleanup_errors=True)
