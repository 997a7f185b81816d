"""Every exception we raise. An error takes facts, writes its own sentence, and never logs.

DispatchError
├── ConfigError (ValueError)        a field of a configuration, a runner or a shard is wrong
│   ├── RunnerError                 a runner or a function that workers could not use
│   └── DuplicateShard              two shards of one run have the same id
├── CenterClosed (RuntimeError)     a door of a centre that is not open
├── CenterOpen (RuntimeError)       open() on a centre that is open
├── QueueFull (RuntimeError)        submit(nowait=True) with max_pending shards waiting
├── JournalError                    the record of a run cannot be read or written
├── RunDrifted                      the record in a work_dir was made with another runner or shared param
├── WorkDirOccupied                 another run goes on in a work_dir
├── UnguardedMain (RuntimeError)    a worker imports a script that starts a centre
└── ShardError                      what `unwrap` raises for an outcome that is not Done
    ├── RemoteError                 the runner raised, and its type cannot or must not be rebuilt here
    ├── ShardTimeout (TimeoutError)
    ├── WorkerDied
    │   └── OutOfMemory
    ├── Undeliverable
    ├── StartupFailed               a worker could not be made ready
    └── ShardCancelled

GiveUp and RetryLater are not errors of ours: a runner raises them to steer its own shard.
"""

from __future__ import annotations

import time
from functools import partial

__all__ = (
    "CenterClosed",
    "CenterOpen",
    "ConfigError",
    "DispatchError",
    "DuplicateShard",
    "GiveUp",
    "JournalError",
    "OutOfMemory",
    "QueueFull",
    "RemoteError",
    "RemoteTraceback",
    "RetryLater",
    "RunDrifted",
    "RunnerError",
    "ShardCancelled",
    "ShardError",
    "ShardTimeout",
    "StartupFailed",
    "Undeliverable",
    "UnguardedMain",
    "WorkDirOccupied",
    "WorkerDied",
)


class DispatchError(Exception):
    """The root of every error that dispatch raises."""


class ConfigError(DispatchError, ValueError):
    """A field is wrong: says which, what it is, and what it may be."""

    def __init__(self, field: str, got: object, cure: str) -> None:
        self.field, self.got, self.cure = field, got, cure
        super().__init__(field, got, cure)

    def __str__(self) -> str:
        return f"{self.field} is {self.got!r}: {self.cure}"


class RunnerError(ConfigError):
    """A runner, or a function in its place, that workers could not use."""

    def __init__(self, runner: str, problem: str, cure: str) -> None:
        self.runner, self.problem = runner, problem
        super().__init__("runner", runner, cure)

    def __str__(self) -> str:
        return f"runner {self.runner}: {self.problem}; {self.cure}"


class DuplicateShard(ConfigError):
    """Two shards of one run carry the same id."""

    def __init__(self, shard: str) -> None:
        self.shard = shard
        super().__init__("Shard.id", shard, "ids must be unique within a run")
        self.args = (shard,)  # so that it can be pickled and copied

    def __str__(self) -> str:
        return f"two shards of this run have the id {self.shard!r}; give each its own, or leave the id out"


class CenterClosed(DispatchError, RuntimeError):
    """The centre is not open, or is closing."""

    def __init__(
        self, door: str, why: str = "needs an open centre; use 'async with center:' or 'await center.open()'"
    ) -> None:
        self.door, self.why = door, why
        super().__init__(door, why)

    def __str__(self) -> str:
        return f"{self.door} {self.why}"


class CenterOpen(DispatchError, RuntimeError):
    """The centre is open already."""

    def __str__(self) -> str:
        return "this centre is open, or is being opened; close it first, or use the doors that it has"


class QueueFull(DispatchError, RuntimeError):
    """As many shards wait as `max_pending` or `max_pending_bytes` allows."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(limit)

    def __str__(self) -> str:
        return f"{self.limit} shards are pending already; await, or raise max_pending"


class JournalError(DispatchError):
    """The record of a run cannot be read or written. What had been reported before stands in it."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(path, problem)

    def __str__(self) -> str:
        return f"journal {self.path}: {self.problem}"


class RunDrifted(DispatchError):
    """A run was to go on, but not with what began it: `changes` says for each thing what it was and what it is."""

    def __init__(self, work_dir: str, changes: dict[str, tuple[str, str]]) -> None:
        self.work_dir, self.changes = work_dir, changes
        super().__init__(work_dir, changes)

    def __str__(self) -> str:
        differs = "; ".join(f"{what} was {old}, now {new}" for what, (old, new) in self.changes.items())
        return (
            f"the run recorded in {self.work_dir} cannot go on: {differs}; its outcomes may not fit. Use another "
            'work_dir, or resume="none" to start afresh beside them, or allow_drift=True to reuse them'
        )


class WorkDirOccupied(DispatchError):
    """Another run goes on in this work_dir. `started_at` is wall time in seconds."""

    def __init__(self, work_dir: str, *, pid: int, host: str, started_at: float) -> None:
        self.work_dir, self.pid, self.host, self.started_at = work_dir, pid, host, started_at
        super().__init__(work_dir, pid, host, started_at)

    def __reduce__(self) -> tuple[object, ...]:
        """By keyword, as it was made."""
        made = partial(WorkDirOccupied, pid=self.pid, host=self.host, started_at=self.started_at)
        return made, (self.work_dir,)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started_at))
        return (
            f"{self.work_dir} is in use by process {self.pid} on {self.host}, since {since}; "
            "wait for it, stop it, or use another work_dir"
        )


class UnguardedMain(DispatchError, RuntimeError):
    """A worker re-imports the main script, and the script starts a centre while it is imported."""

    def __str__(self) -> str:
        return (
            "this script starts a dispatch centre while it is being imported, and every worker imports it; "
            "put the start under: if __name__ == '__main__':"
        )


class RemoteTraceback(Exception):  # a carrier of text, after concurrent.futures
    """Shows the traceback of another process; the `__cause__` of what `unwrap` raises."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ShardError(DispatchError):
    """An outcome that is not Done, as an exception. `shard` is the shard's id, `fault` the evidence."""

    def __init__(self, shard: str, message: str, *, fault: object = None) -> None:
        self.shard, self.message, self.fault = shard, message, fault
        super().__init__(shard, message)

    def __str__(self) -> str:
        return f"shard {self.shard}: {self.message}" if self.shard else self.message


class RemoteError(ShardError):
    """The runner raised an exception whose type cannot, or must not, be rebuilt in this process."""


class ShardTimeout(ShardError, TimeoutError):
    """The last attempt ran longer than its timeout."""


class WorkerDied(ShardError):
    """The worker died while it ran the shard."""


class OutOfMemory(WorkerDied):
    """The worker was killed because its private memory passed `memory_limit`."""


class Undeliverable(ShardError):
    """A payload or a value would not encode, would not fit its annotation, or is too big."""


class StartupFailed(ShardError):
    """A worker could not be made ready: an import, `restore_shared_param` or `setup` failed."""


class ShardCancelled(ShardError):
    """The run was interrupted before the shard was done."""


class GiveUp(Exception):  # an order, not an error
    """Raised in a runner: fail this shard now, without another attempt."""


class RetryLater(Exception):  # an order, not an error
    """Raised in a runner: another attempt, `after` seconds from now, within the retry budget."""

    def __init__(self, after: float = 0.0, message: str = "") -> None:
        self.after = float(after)
        super().__init__(self.after, message)

    def __str__(self) -> str:
        return f"again after {self.after:g} s" + (f": {self.args[1]}" if self.args[1] else "")
