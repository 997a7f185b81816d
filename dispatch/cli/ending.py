"""How a command ends: exit codes, and errors as one line with its cure instead of a traceback."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO

from dispatch.cli.options import BrokenTarget
from dispatch.terms.errors import ConfigError, DispatchError, JournalError, RunDrifted, WorkDirOccupied

__all__ = (
    "ALL_DONE",
    "FAILURES",
    "INTERRUPTED",
    "REFUSED",
    "USAGE",
    "command_line",
    "say_json",
    "told",
    "warn",
)

ALL_DONE, FAILURES, USAGE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 130


def warn(*lines: str) -> None:
    """Tell the user on stderr. Where that cannot be written any more nothing is said, and that is no error."""
    try:
        for line in lines:
            print(line, file=sys.stderr, flush=True)  # noqa: T201  (a program's word to its user)
    except OSError:
        _discard(sys.stderr)


def say_json(line: bytes) -> None:
    """A line of JSON on stdout, in UTF-8 whatever the terminal's encoding: its readers are programs."""
    sys.stdout.buffer.write(line)
    sys.stdout.flush()


@contextmanager
def told() -> Generator[None]:
    """What this block raises is told on stderr, and becomes SystemExit with its exit code."""
    try:
        yield
    except BrokenTarget as error:
        warn(str(error), "dispatch: the module could not be imported, so nothing was run")
        raise SystemExit(USAGE) from None
    except ConfigError as error:
        warn(f"dispatch: {error}")
        raise SystemExit(USAGE) from None
    except (JournalError, RunDrifted, WorkDirOccupied) as error:
        warn(f"dispatch: {error}")
        raise SystemExit(REFUSED) from None
    except DispatchError as error:
        if error.__cause__ is not None:
            warn(str(error.__cause__).strip().strip('"').strip())
        warn(f"dispatch: {error}")
        raise SystemExit(FAILURES) from None
    except OSError as error:
        if error.errno == errno.EPIPE:
            _discard(sys.stdout)
        else:
            warn(f"dispatch: {error}")
        raise SystemExit(FAILURES) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _discard(stream: IO[str]) -> None:
    """Whoever read this has gone, or its disk is full; let the interpreter not complain of that when it flushes."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def command_line(argv: Sequence[str] = ()) -> str:
    """The command that was typed, so that it can be typed again: ours, or that of a process's `argv`."""
    words = list(argv or sys.orig_argv)
    for place, word in enumerate(words[1:], 1):
        if os.path.basename(word) == "dispatch":
            words = ["python", "-m", "dispatch"] if words[place - 1] == "-m" else ["dispatch"]
            return shlex.join([*words, *(argv or sys.orig_argv)[place + 1 :]])
    return shlex.join(words)
