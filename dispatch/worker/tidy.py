"""What a shard changes in its process and the next one would meet: timers, directory, umask, locale, trace functions.

To look after every shard would cost more than a short shard does. So the functions that make these changes tell
that they were called; who makes them from C is not noticed. Only a process of ours is watched, never the parent.
A shard that forks is noticed in the same way, in the child: one that comes back out of `do_run` must not be a lane.
"""

from __future__ import annotations

import _locale
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, NoReturn

__all__ = ("FORKED", "changed", "end_fork", "put_back", "remember", "watch")

FORKED = "process"  # in `changed`: this is a fork of the process that was watched

changed: set[str] = (
    set()
)  # what was changed since `remember` or `put_back`; a lane asks this after each shard
_home: dict[str, Any] = {}
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_setlocale, _umask, _chdir = _locale.setlocale, os.umask, os.chdir
_settrace, _setprofile = sys.settrace, sys.setprofile


def watch() -> None:
    """Be told of changes from now on. Before user code is imported, which may keep these functions by name."""
    for module, names, what in (
        (os, "chdir fchdir", "cwd"),
        (os, "umask", "umask"),
        (signal, "alarm setitimer", "timers"),
        (sys, "settrace setprofile", "trace"),
        (_locale, "setlocale", "locale"),
        (sys.modules.get("locale"), "_setlocale", "locale"),  # locale.setlocale calls it by this name
    ):
        for name in names.split():
            if hasattr(module, name):
                setattr(module, name, _telling(getattr(module, name), what))
    os.register_at_fork(after_in_child=partial(changed.add, FORKED))


def _telling(change: Callable[..., Any], what: str) -> Callable[..., Any]:
    @wraps(change)
    def told(*args: Any, **kwargs: Any) -> Any:
        changed.add(what)
        return change(*args, **kwargs)

    return told


def remember() -> None:
    """What `setup` has left is how every shard shall find it. Does not return in a fork that `setup` made."""
    if FORKED in changed:
        end_fork(None)
    changed.clear()
    with suppress(OSError):  # a directory that is gone cannot be gone back to
        _home["cwd"] = os.getcwd()
    _home["umask"] = _umask(0o77)
    _umask(_home["umask"])
    _home["locale"] = _setlocale(_locale.LC_ALL, None)
    _home["trace"] = sys.gettrace(), sys.getprofile()


def put_back() -> None:
    """Undo what a shard has changed. Does not return in a fork of this process."""
    if FORKED in changed:
        end_fork(None)
    if "timers" in changed:
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
    if "cwd" in changed and "cwd" in _home:
        with suppress(OSError):
            _chdir(_home["cwd"])
    if "umask" in changed:
        _umask(_home["umask"])
    if "locale" in changed:
        _setlocale(_locale.LC_ALL, _home["locale"])
    if "trace" in changed and "trace" in _home:
        _settrace(_home["trace"][0])
        _setprofile(_home["trace"][1])
    changed.clear()


def end_fork(error: BaseException | None) -> NoReturn:
    """A shard forked, and the child came back out of it: it ends as a program does, and says nothing to the centre."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(code)
