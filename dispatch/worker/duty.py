"""What a lane works with: a runner that was made ready, and the lines that lead out of its process."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dispatch.wire.codec import Codec
from dispatch.wire.line import Line
from dispatch.worker.output import Capture
from dispatch.worker.runner import Description, Runner
from dispatch.worker.slot import Slot
from dispatch.worker.spec import Lease

__all__ = ("Duty",)


class Duty(Struct, frozen=True, kw_only=True, eq=False):
    """Everything a lane needs. Without `capture` and `stack_fd` it runs in the parent's own process."""

    lease: Lease
    runner: Runner[Any]
    described: Description
    codec: Codec
    line: Line
    slot: Slot
    capture: Capture | None = None
    stack_fd: int = -1
