"""What a shard changes in its process and the next one would meet: timers, working directory, umask, locale.

To look after every shard would cost more than a short shard does. So the functions that make these changes tell
that they were called; who makes them from C is not noticed. Only a process of ours is watched, never the parent.
"""

from __future__ import annotations

import _locale
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

__all__ = ("changed", "put_back", "remember", "watch")

changed: set[str] = (
    set()
)  # what was changed since `remember` or `put_back`; a lane asks this after each shard
_home: dict[str, Any] = {}
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_setlocale, _umask, _chdir = _locale.setlocale, os.umask, os.chdir


def watch() -> None:
    """Be told of changes from now on. Before user code is imported, which may keep these functions by name."""
    for module, names, what in (
        (os, "chdir fchdir", "cwd"),
        (os, "umask", "umask"),
        (signal, "alarm setitimer", "timers"),
        (_locale, "setlocale", "locale"),
        (sys.modules.get("locale"), "_setlocale", "locale"),  # locale.setlocale calls it by this name
    ):
        for name in names.split():
            if hasattr(module, name):
                setattr(module, name, _telling(getattr(module, name), what))


def _telling(change: Callable[..., Any], what: str) -> Callable[..., Any]:
    @wraps(change)
    def told(*args: Any, **kwargs: Any) -> Any:
        changed.add(what)
        return change(*args, **kwargs)

    return told


def remember() -> None:
    """What `setup` has left is how every shard shall find it."""
    changed.clear()
    with suppress(OSError):  # a directory that is gone cannot be gone back to
        _home["cwd"] = os.getcwd()
    _home["umask"] = _umask(0o77)
    _umask(_home["umask"])
    _home["locale"] = _setlocale(_locale.LC_ALL, None)


def put_back() -> None:
    """Undo what a shard has changed."""
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
    changed.clear()
