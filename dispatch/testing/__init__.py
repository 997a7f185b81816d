"""Public fakes and contract checks, for people who write centres and engines. Names are resolved lazily.

Lazily, because workers import `dispatch.testing.script`, and a worker must not load a centre.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch.testing.script import ScriptedRunner as ScriptedRunner


def __getattr__(name: str) -> Any:
    raise AttributeError(name)
