"""Runners and centres that start, or do not. Workers import this, so it imports nothing of pytest's."""

import sys
from typing import Any

import msgspec

from dispatch import DataParallelDispatchCenter, Runner, Shard
from dispatch.testing.script import Script, play


class NotARunner:
    """Just a class."""


class Fine(Runner[Any]):
    """Returns its shared param."""

    def do_run(self, shard: Shard[Any]) -> Any:
        return self.shared_param


class BadInit(Fine):
    """Cannot be made."""

    def __init__(self) -> None:
        raise LookupError("not today")


class ExitsInSetup(Fine):
    """Leaves before it is ready."""

    def setup(self) -> None:
        print("about to exit")
        sys.exit(3)


class Table(msgspec.Struct):
    """A shared param with a type."""

    rows: list[int]


class Restores(DataParallelDispatchCenter[Any, Any]):
    """Makes something of its shared param, and counts how often."""

    restored = 0

    def get_shared_param(self) -> Table:
        return Table([])

    @staticmethod
    def restore_shared_param(param: Table) -> list[Any]:
        Restores.restored += 1
        return [type(param).__name__, sum(param.rows), Restores.restored]


class TakesNone(DataParallelDispatchCenter[Any, Any]):
    """Has nothing to share, and makes something of it."""

    @staticmethod
    def restore_shared_param(param: Any) -> list[str]:
        return [repr(param)]


class BadRestore(DataParallelDispatchCenter[Any, Any]):
    """Cannot restore."""

    @staticmethod
    def restore_shared_param(param: Any) -> Any:
        raise LookupError("not today")


def payload() -> Script:
    """Something to send."""
    return play()
