"""dispatch: an asyncio-native dispatch centre for warm, killable workers. The front door: names, resolved lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch.center.base import DispatchCenter as DispatchCenter
    from dispatch.center.data_parallel import DataParallelDispatchCenter as DataParallelDispatchCenter
    from dispatch.center.dummy import DummyDispatchCenter as DummyDispatchCenter
    from dispatch.center.functions import map as map
    from dispatch.center.functions import stream as stream
    from dispatch.center.local import LocalDispatchCenter as LocalDispatchCenter
    from dispatch.center.registry import RunnerType as RunnerType
    from dispatch.center.registry import register as register
    from dispatch.terms.config import *  # noqa: F403  (all of it is public)
    from dispatch.terms.errors import *  # noqa: F403  (the error tree is public as a whole)
    from dispatch.terms.event import *  # noqa: F403  (so are the events)
    from dispatch.terms.outcome import *  # noqa: F403  (and the outcomes)
    from dispatch.terms.report import *  # noqa: F403  (and what becomes of a run)
    from dispatch.terms.shard import Shard as Shard
    from dispatch.wire.calls import remote as remote
    from dispatch.worker.runner import Runner as Runner

_HOMES = {
    "center.base": "DispatchCenter",
    "center.data_parallel": "DataParallelDispatchCenter",
    "center.dummy": "DummyDispatchCenter",
    "center.functions": "map stream",
    "center.local": "LocalDispatchCenter",
    "center.registry": "RunnerType register",
    "terms.config": "DispatchConfig Policy Retry",
    "terms.errors": "CenterClosed CenterOpen ConfigError DispatchError DuplicateShard GiveUp JournalError OutOfMemory"
    " QueueFull RemoteError RemoteTraceback RetryLater RunDrifted RunnerError ShardCancelled ShardError ShardTimeout"
    " StartupFailed Undeliverable UnguardedMain WorkDirOccupied WorkerDied",
    "terms.event": "Closed Draining Event Opened Printed Progressed Retrying Settled Snapshot WorkerEnded WorkerReady"
    " WorkerState",
    "terms.outcome": "Attempt Cancelled Cause Done Failed Fault Outcome",
    "terms.report": "Plan PlannedShard Report WorkerFigures",
    "terms.shard": "Shard",
    "wire.calls": "remote",
    "worker.runner": "Runner",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = tuple(sorted(_HOME_OF))  # pyright: ignore[reportUnsupportedDunderAll]  (the table above is the list)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'dispatch' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"dispatch.{home}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
