"""What a worker is told: through anyio's private pipe where its centre listens, and then what to run."""

from __future__ import annotations

from msgspec import Struct

__all__ = ("Lease", "Place")


class Lease(Struct, frozen=True, kw_only=True):
    """What to run. References are "module:qualname"; sizes in bytes, times in seconds."""

    runner: str
    center: str = ""  # whose `restore_shared_param` to call; "": none
    shared: tuple[str, int] | None = None  # the shared param's file and size
    shared_type: str = ""  # where neither a centre's nor a function's annotation names the type
    limit: int = 256 * 1024 * 1024
    seed: int = 0
    cancel_grace: float = 0.1
    isolation: str = "worker"
    memory_limit: int | None = None  # private bytes, of the worker, or under "fork" of a shard
    concurrency: int = 0  # 0: what the runner class says


class Place(Struct, frozen=True, kw_only=True):
    """Where a worker stands: its number, its centre's address, and the token that proves it."""

    number: int
    address: str
    token: bytes
    env: dict[str, str] = {}
    startup_timeout: float = 60.0
    asked_at: float = 0.0  # wall time; a process that started earlier has served somebody else
    main: str = ""  # the parent's __main__ file
    paths: list[str] = []
