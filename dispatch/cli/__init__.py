"""The command line: arguments to a run and an exit code. A thin door: what can be decided is decided elsewhere.

Every worker imports the program that started it, so this file is light: the commands, typer and rich are
imported when `main` is called.

Exit codes: 0 all done; 1 finished with failures; 2 usage; 3 refused (the work directory is occupied, or what
it holds does not match); 130 interrupted, and resumable where there is a work directory.
"""

from __future__ import annotations

import io
import os
import sys

__all__ = ("main",)

EXTRA = ("click", "rich", "typer")


def main() -> None:
    """Run the command of `sys.argv`; always leaves by SystemExit. Without typer and rich it says how to get them."""
    _prepare_streams()
    try:
        from dispatch.cli.app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        print(  # noqa: T201  (a program's one line to its user)
            f"dispatch: the command line needs {missing}: pip install 'dispatch-center[cli]'", file=sys.stderr
        )
        raise SystemExit(2) from None
    app(prog_name="dispatch")


def _prepare_streams() -> None:
    """Where a stream was closed there is one that says nothing, and what it cannot encode is escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)  # workers get it, too
            stream = open(fd, mode, closefd=False)  # noqa: SIM115  (as long as the process)
            setattr(sys, name, stream)
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
