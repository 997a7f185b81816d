"""Public fakes and contract checks, for people who write centres and engines.

    await check_engine(MyEngine)      # in a test of yours
    await check_center(MyCenter)

Names are resolved lazily: workers import `dispatch.testing.script`, and a worker must not load a centre.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch.testing.contract import CENTER_PROMISES as CENTER_PROMISES
    from dispatch.testing.contract import ENGINE_PROMISES as ENGINE_PROMISES
    from dispatch.testing.contract import check_center as check_center
    from dispatch.testing.contract import check_engine as check_engine
    from dispatch.testing.faults import *  # noqa: F403  (public as a whole)
    from dispatch.testing.proof import until as until
    from dispatch.testing.script import *  # noqa: F403  (public as a whole)
    from dispatch.testing.traces import leaves_nothing as leaves_nothing

_HOMES = {
    "contract": "CENTER_PROMISES ENGINE_PROMISES check_center check_engine",
    "faults": "Corrupt Delay Drop FaultyChannel Hold Judge Passing Truncate Verdict once",
    "proof": "until",
    "script": "Ask AsyncScriptedRunner Daemon Die Exit Hang Identify Postpone Print Raise Rehearsal Script"
    " ScriptedRunner Sleep Step Succeed Surrender Tell Touch UnreadyRunner WaitFor in_turn play",
    "traces": "leaves_nothing",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = tuple(sorted(_HOME_OF))  # pyright: ignore[reportUnsupportedDunderAll]  (the table above is the list)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'dispatch.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"dispatch.testing.{home}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
