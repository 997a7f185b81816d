"""First function in the runner process: descriptors, signals, output, then the lane. User code begins here.

`serve` is the part that the inline engine runs on a thread: everything but the process around it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

from dispatch.wire import frames
from dispatch.wire.codec import Codec
from dispatch.wire.line import FROM_CENTER, Line
from dispatch.wire.shared import restore
from dispatch.worker import tidy
from dispatch.worker.duty import Duty
from dispatch.worker.evidence import startup_fault
from dispatch.worker.output import Capture
from dispatch.worker.runner import Description, as_runner, describe, load
from dispatch.worker.slot import Slot
from dispatch.worker.spec import Lease, Place

__all__ = ("run_process", "serve")


def run_process(place: Place, lease: Lease, life: int, *, slot: Slot, capture_fd: int, stack_fd: int) -> None:
    """Be a runner process, from just after the fork until `_exit`. The nanny has set up group and descriptors."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        capture = Capture(capture_fd, slot)
        tidy.watch()
        faulthandler.enable(stack_fd)
        faulthandler.register(signal.SIGUSR1, stack_fd, all_threads=True)
        line = Line.connect(place.address, limit=FROM_CENTER)
        line.send(frames.Connect(place.token, "runner", place.number, os.getpid(), life))
        code = serve(lease, line, slot, capture=capture, stack_fd=stack_fd)
    except ConnectionError:
        code = 0  # the centre is gone, and with it whoever would want to know
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001  (the outermost frame; a teardown that raises ends up here)
        traceback.print_exc()
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
    stack_fd: int = -1,
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
        duty = Duty(
            lease=lease,
            runner=runner,
            described=described,
            codec=codec,
            line=line,
            slot=slot,
            capture=capture,
            stack_fd=stack_fd,
        )
        _run_lane(duty)
    except BaseException as error:
        if slot.serving:
            raise
        return _not_ready(error, line, capture)
    return 0


def _not_ready(error: BaseException, line: Line, capture: Capture | None) -> int:
    output = capture.take()[2] if capture is not None else ""
    line.send(frames.NotReady(startup_fault(error, output=output)))
    return 0


def _run_lane(duty: Duty) -> None:
    # Lanes are imported when they are wanted: an event loop alone costs 40 ms of imports.
    if duty.lease.isolation == "fork" and duty.stack_fd >= 0:
        from dispatch.worker.fork import ForkLane

        ForkLane(duty).run()
    elif duty.described.is_async:
        from dispatch.worker.async_lane import AsyncLane, run_async

        run_async(AsyncLane(duty).run)
    else:
        from dispatch.worker.sync_lane import SyncLane

        SyncLane(duty).run()


def _shared_param(lease: Lease, described: Description, center: Any) -> Any:
    if lease.shared is None:
        return None if center is None else center.restore_shared_param(None)
    kind: Any = described.shared_type
    if center is not None:
        kind = center.shared_type()
    if kind is Any and lease.shared_type:
        kind = load(lease.shared_type)
    param = restore(*lease.shared, kind)
    return param if center is None else center.restore_shared_param(param)
