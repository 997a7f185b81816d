"""Every error becomes a line on stderr and an exit code; only what nobody foresaw keeps its traceback."""

import errno
import sys
from typing import Any

import pytest

from dispatch import ShardTimeout, StartupFailed
from dispatch.cli import ending
from dispatch.cli.options import BrokenTarget
from dispatch.terms.errors import ConfigError, JournalError, RemoteTraceback, WorkDirOccupied


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("--shards", "x", "there is none"), 2, "dispatch: --shards is 'x': there is none\n"),
        (BrokenTarget("Traceback of theirs"), 2, "Traceback of theirs\ndispatch: the module could not be"),
        (WorkDirOccupied("runs/a", pid=412, host="h", started_at=0.0), 3, "in use by process 412 on h"),
        (JournalError("runs/a/journal.db", "there is no journal here"), 3, "there is no journal here"),
        (ShardTimeout("q1", "too slow"), 1, "dispatch: shard q1: too slow\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), 1, "No space left on device: 'out'\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_a_line_and_an_exit_code(error: Any, code: int, says: str, capsys: Any) -> None:
    """Each kind has its exit code, and says its own sentence."""
    with pytest.raises(SystemExit) as left, ending.told():
        raise error
    assert left.value.code == code
    assert says in capsys.readouterr().err


def test_what_the_worker_said_stands_above(capsys: Any) -> None:
    """The traceback of a worker that could not start is told before the sentence."""
    with pytest.raises(SystemExit), ending.told():
        raise StartupFailed("", "setup failed") from RemoteTraceback("Traceback: no GPU")
    assert capsys.readouterr().err == "Traceback: no GPU\ndispatch: setup failed\n"


def test_what_nobody_foresaw_keeps_its_traceback() -> None:
    """An error of the user's own code comes out as it is, and an ordinary end is none."""
    with pytest.raises(ZeroDivisionError), ending.told():
        _ = 1 / 0
    with ending.told():
        pass


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        (["/x/python", "/x/bin/dispatch", "run", "a:B", "my data.jsonl"], "dispatch run a:B 'my data.jsonl'"),
        (["/x/python3", "-W", "error", "-m", "dispatch", "run", "a:B"], "python -m dispatch run a:B"),
        (["/x/python3", "my program.py", "1"], "/x/python3 'my program.py' 1"),
    ],
)
def test_the_command_can_be_typed_again(argv: list[str], typed: str, monkeypatch: Any) -> None:
    """As it was typed, quoted for a shell; any other program's as its process has it."""
    assert ending.command_line(argv) == typed
    monkeypatch.setattr(sys, "orig_argv", argv)
    assert ending.command_line() == typed
