"""First function in the runner process: descriptors, signals, output, then the lane. User code begins here.

`serve` is the part that the inline engine runs on a thread: everything but the process around it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any


from dispatch.wire import frames
from dispatch.wire.codec import Codec
from dispatch.wire.line import FRAME_SLACK, Line
from dispatch.wire.shared import restore
from dispatch.worker.evidence import startup_fault
from dispatch.worker.output import Capture
from dispatch.worker.runner import Description, Runner, as_runner, describe, load
from dispatch.worker.slot import Slot
from dispatch.worker.spec import Lease, Place
from dispatch.worker.sync_lane import SyncLane

__all__ = ("run_process", "serve")


def run_process(place: Place, life: int, *, slot: Slot, capture_fd: int, stack_fd: int) -> None:
    """Be a runner process, from just after the fork until `_exit`. The nanny has set up group and descriptors."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        capture = Capture(capture_fd, slot)
        faulthandler.enable(stack_fd)
        faulthandler.register(signal.SIGUSR1, stack_fd, all_threads=True)
        line = Line.connect(place.address, limit=place.lease.limit + FRAME_SLACK)
        line.send(frames.Connect(place.token, "runner", place.number, os.getpid(), life))
        code = serve(place.lease, line, slot, capture=capture)
    except OSError:
        code = 0  # the centre is gone, and with it whoever would want to know
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def serve(
    lease: Lease,
    line: Line,
    slot: Slot,
    *,
    capture: Capture | None = None,
    targets: tuple[Any, Any] | None = None,
) -> int:
    """Make a runner ready and run its lane to the end; the exit code. `targets` are runner and centre, else imported.

    What fails before the lane is ready is told to the centre as NotReady.
    """
    try:
        target, center = targets or (load(lease.runner), load(lease.center) if lease.center else None)
        described = describe(target)
        codec = Codec(described.name, described.payload_type, described.value_type, limit=lease.limit)
        runner = as_runner(target)()
        runner.shared_param = _shared_param(lease, described, center)
        run = _lane(lease, runner, described, codec, line=line, slot=slot, capture=capture)
        run()
    except OSError as error:
        if slot.serving:
            raise
        return _not_ready(error, line, capture)
    except BaseException as error:  # noqa: BLE001  (the outermost frame: whatever a user's import or setup raises)
        if slot.serving:
            raise
        return _not_ready(error, line, capture)
    return 0


def _not_ready(error: BaseException, line: Line, capture: Capture | None) -> int:
    output = capture.take()[2] if capture is not None else ""
    line.send(frames.NotReady(startup_fault(error, output=output)))
    return 0


def _lane(
    lease: Lease,
    runner: Runner[Any],
    described: Description,
    codec: Codec,
    *,
    line: Line,
    slot: Slot,
    capture: Capture | None,
) -> Callable[[], None]:
    if not described.is_async:
        return SyncLane(runner, described, codec, line=line, slot=slot, seed=lease.seed, capture=capture).run
    # An event loop costs 40 ms of imports: only runners that need one pay.
    from dispatch.worker.async_lane import AsyncLane, run_async

    async def run() -> None:
        await AsyncLane(
            runner,
            described,
            codec,
            line=line,
            slot=slot,
            seed=lease.seed,
            capture=capture,
            cancel_grace=lease.cancel_grace,
            concurrency=lease.concurrency or described.concurrency,
        ).run()

    return lambda: run_async(run)


def _shared_param(lease: Lease, described: Description, center: Any) -> Any:
    if lease.shared is None:
        return None
    kind: Any = described.shared_type
    if center is not None:
        kind = center.shared_type()
    if kind is Any and lease.shared_type:
        kind = load(lease.shared_type)
    param = restore(*lease.shared, kind)
    return param if center is None else center.restore_shared_param(param)
