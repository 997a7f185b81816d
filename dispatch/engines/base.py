"""Engine: open me, give me workers, tell me how a worker ended.

An engine knows processes and connections; it decides nothing about shards. It calls its host back from the
event loop, in the order in which a worker did things: what a runner sent is told before how it ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from anyio.abc import TaskGroup
from msgspec import Struct

from dispatch.terms.outcome import Fault
from dispatch.wire.frames import Ended, Fenced, Pulse, Work
from dispatch.worker.spec import Lease

__all__ = ("Engine", "Host", "Start")


class Start(Struct, frozen=True, kw_only=True):
    """A worker to start: its number and lease; runner and centre themselves, for engines that import nothing."""

    number: int
    lease: Lease
    targets: tuple[Any, Any]
    env: dict[str, str]
    startup_timeout: float


class Host(Protocol):
    """Who an engine works for."""

    def on_frame(self, worker: int, body: bytes | bytearray) -> None:
        """A runner sent a frame."""

    def on_fenced(self, worker: int, fenced: Fenced) -> None:
        """A fence is up."""

    def on_pulse(self, worker: int, pulse: Pulse) -> None:
        """What runs in a worker now."""

    def on_ended(self, worker: int, ended: Ended, fault: Fault | None) -> None:
        """A life ended, and nothing more comes from it. `fault`: it never began, and this is why."""


class Engine(ABC):
    """Where workers live. Workers are known by number; a worker has one life after another."""

    name: str
    contains_faults: bool  # whether a shard that hangs or crashes costs itself only

    @abstractmethod
    async def open(self, tasks: TaskGroup, host: Host) -> None:
        """Get ready to start workers. Raises OSError if this machine refuses. Cancelling leaves nothing behind."""

    async def foresee(self, numbers: Sequence[int], *, env: dict[str, str], startup_timeout: float) -> bool:
        """Before `open`: workers of these numbers will be launched soon, so begin what takes long.

        Whether there is something to undo: then `aclose` is called even if `open` is not. Cancelling leaves nothing.
        """
        return False

    @abstractmethod
    def launch(self, start: Start) -> None:
        """Begin a life of a worker. Its runner's first frame is Ready or NotReady; else on_ended says why not."""

    @abstractmethod
    def send(self, worker: int, frame: Struct) -> None:
        """Send a frame to a worker's runner. Never blocks; a frame to a dead runner is lost."""

    @abstractmethod
    def send_work(self, worker: int, work: Work[Any], payloads: Sequence[bytes]) -> None:
        """Send a Work frame with payloads that are encoded already. As `send`."""

    @abstractmethod
    def fence(self, worker: int, upto: int, *, kill: Sequence[int] = ()) -> None:
        """Let no attempt with a seq below `upto` start; kill the runner if it runs one of `kill`. Answer: on_fenced."""

    @abstractmethod
    def kill(self, worker: int) -> None:
        """End a worker's life now, its whole tree with it. Answer: on_ended."""

    @abstractmethod
    def release(self, worker: int) -> None:
        """A worker whose life has ended will not get another one: let go what was kept for it. No answer."""

    def look(self) -> None:  # noqa: B027  (most engines are told by their nannies)
        """Call `on_pulse` for every worker now, where nobody does so by himself."""

    @abstractmethod
    async def aclose(self) -> None:
        """Kill what lives and leave nothing behind: no process, socket or file. Bounded in time; shield it."""
