"""An exception as a fault: what can be said of it in any process, whatever it does to prevent that."""

from __future__ import annotations

import signal
import traceback

import msgspec

from dispatch.terms.errors import GiveUp, RetryLater
from dispatch.terms.outcome import Cause, Fault
from dispatch.wire.codec import encode
from dispatch.wire.frames import Ended

__all__ = ("LONGEST", "clip", "end_fault", "fault_of", "own_stack", "startup_fault")

LONGEST = 16 * 1024  # characters of a message or a traceback


def clip(text: str, limit: int = LONGEST) -> str:
    """The text, or its two ends with a note of how much is missing between them; fit for UTF-8."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half:,} characters cut ...]\n{text[-half:]}"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def fault_of(error: BaseException, *, output: str = "", rebuild: bool = True) -> Fault:
    """The fault for an exception that a runner raised."""
    kind = type(error)
    try:
        return _fault_of(error, kind, output=output, rebuild=rebuild)
    except BaseException as other:  # noqa: BLE001  (attributes of the user's own: whatever they do, the fault is told)
        message = f"<looking at it raised {type(other).__name__}>"
        name = str(type.__getattribute__(kind, "__name__"))
        return Fault(cause="raised", type=name, message=message, output=output, rebuild=False)


def _fault_of(error: BaseException, kind: type[BaseException], *, output: str, rebuild: bool) -> Fault:
    message = _message(error)
    return Fault(
        cause="raised",
        type=kind.__qualname__,
        module=kind.__module__,
        message=clip(message),
        traceback=_traceback(error),
        output=output,
        args=_plain_args(error),
        final=issubclass(kind, GiveUp),
        after=float(getattr(error, "after", 0.0)) if issubclass(kind, RetryLater) else None,
        exit_code=_exit_code(error),
        rebuild=rebuild and issubclass(kind, Exception),
    )


def startup_fault(error: BaseException, *, output: str = "") -> Fault:
    """A failure to get ready, as a fault that says where it happened."""
    return msgspec.structs.replace(fault_of(error, output=output), cause="startup", final=True, after=None)


def own_stack(text: str) -> str:
    """A dump of faulthandler without our own frames and what called them: the user's part, innermost first."""
    kept: list[str] = []
    ours = False
    for line in text.splitlines():
        if line.startswith("  File "):
            ours = ours or "/dispatch/worker/" in line
        else:
            ours = line.startswith("Extension modules")
        if not ours:
            kept.append(line)
    return "\n".join(kept).strip()


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as other:  # noqa: BLE001  (a __str__ of the user's: whatever it does, the fault is told)
        return f"<its __str__ raised {type(other).__name__}>"


def _traceback(error: BaseException) -> str:
    """The traceback, from the user's first frame on: the lane's own lines tell nobody anything."""
    try:
        told = traceback.TracebackException.from_exception(error, compact=True, max_group_depth=5)
        own = [frame for frame in told.stack if "/dispatch/worker/" not in frame.filename]
        told.stack = traceback.StackSummary.from_list(own)
        return clip("".join(told.format()))
    except BaseException as other:  # noqa: BLE001  (as above)
        lines = "".join(traceback.format_tb(error.__traceback__))
        return clip(f"{lines}{type(error).__qualname__} (formatting it raised {type(other).__name__})")


def _plain_args(error: BaseException) -> bytes:
    """The exception's arguments where they are plain and short, so that it can be made again from them."""
    try:
        args = tuple(error.args)
        if isinstance(error, OSError) and error.filename is not None and len(args) == 2:
            args = (*args, error.filename)  # it was an argument, and is not kept with them
        data = encode(args)
    except BaseException:  # noqa: BLE001  (arguments may be anything; without them the message stands in)
        return b""
    return data if len(data) <= LONGEST else b""


def _exit_code(error: BaseException) -> int | None:
    if not issubclass(type(error), SystemExit):  # not isinstance: that asks the error itself
        return None
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else int(code is not None)


_CAUSES: dict[str, Cause] = {"timed_out": "timed_out", "memory": "out_of_memory", "startup": "startup"}


def end_fault(ended: Ended, *, nonsense: bool = False) -> Fault:
    """How a runner process ended, as a fault; `nonsense`: it was killed for what it sent."""
    cause = _CAUSES.get(ended.why, "crashed")
    if nonsense:
        message = f"worker {ended.pid} sent bytes that are no frame, and was killed"
    elif cause == "timed_out":
        message = f"ran longer than its timeout and was killed after {ended.at - ended.started:.2f} s"
    elif cause == "startup":
        message = "the runner was not ready within startup_timeout and was killed"
    elif cause == "out_of_memory":
        message = "the worker's private memory passed memory_limit and it was killed"
    else:
        message = f"worker {ended.pid} {_how(ended)}"
    return Fault(
        cause=cause,
        message=message,
        stack=own_stack(ended.stack),
        output=ended.output,
        signal=ended.signal,
        exit_code=ended.exit_code,
    )


def _how(ended: Ended) -> str:
    if ended.why == "nanny":
        return "was lost: its nanny died"
    if ended.why == "hung up":
        return "hung up on its centre, and was killed"
    if ended.why == "stopped":
        return "stopped itself (SIGSTOP) and was killed"
    if ended.signal is None:
        return f"exited with code {ended.exit_code}"
    known = ended.signal in set(signal.Signals)
    return f"died of {signal.Signals(ended.signal).name if known else f'signal {ended.signal}'}"
