"""LocalDispatchCenter: one runner in this process, one shard at a time, in order."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dispatch.center.base import P, R
from dispatch.center.concrete import Concrete

if TYPE_CHECKING:
    from dispatch.engines.base import Engine

__all__ = ("LocalDispatchCenter",)


class LocalDispatchCenter(Concrete[P, R]):
    """Runs shards on a thread of this process, so that the event loop stays alive and breakpoints work.

    It cannot stop, isolate, limit or capture sync code: cancelling abandons the (daemon) thread.
    """

    needs_import = False

    def make_engine(self) -> Engine:
        """The inline engine; warns if the policy asks for what it cannot do."""
        from dispatch.engines.inline import InlineEngine

        policy = self.config.policy
        asked: dict[str, Any] = {
            "timeout": policy.timeout,
            "memory_limit": policy.memory_limit,
            "recycle_after": policy.recycle_after,
            "isolation": "fork" if policy.isolation == "fork" else None,
        }
        names = [name for name, value in asked.items() if value is not None]
        if names:
            message = (
                f"LocalDispatchCenter runs in this process and cannot enforce {', '.join(names)} on sync code"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return InlineEngine()
