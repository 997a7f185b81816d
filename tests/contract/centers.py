"""Centres as a stranger would write them: not subclasses of a concrete one, with a shared param of their own."""

from typing import Any

from dispatch import DispatchCenter
from dispatch.engines.inline import InlineEngine
from dispatch.testing import Rehearsal


class InProcesses(DispatchCenter):
    """Two workers in processes."""

    def init_runners(self) -> list[Any]:
        return [self.runner, self.runner]

    def get_shared_param(self) -> Rehearsal:
        return Rehearsal()

    @staticmethod
    def restore_shared_param(param: Rehearsal) -> Rehearsal:
        assert isinstance(param, Rehearsal)
        return param


class InThreads(InProcesses):
    """Two workers in threads of this process."""

    needs_import = False

    def make_engine(self) -> InlineEngine:
        return InlineEngine()
