"""What the three concrete centres have in common: one runner, one shared param."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from dispatch.center.base import DispatchCenter, P, R
from dispatch.terms.errors import ConfigError
from dispatch.worker.runner import Target

__all__ = ("Concrete",)


class Concrete(DispatchCenter[P, R]):
    """Starts one runner as often as there are workers, and shares what its constructor was given."""

    def init_runners(self) -> Sequence[Target]:
        """The one runner, as often as there are workers."""
        return [self._one_runner()] * self._workers()

    def _one_runner(self) -> Target:
        if self.runner is None:
            cure = "pass runner=..., or set the class attribute 'runner'"
            raise ConfigError(f"{type(self).__name__}.runner", None, cure)
        target = self.runner
        return target if isinstance(target, type) else _unbound(target)

    def _workers(self) -> int:
        return 1

    def get_shared_param(self) -> Any:
        """The `shared_param` given to the constructor."""
        return self._shared_param

    @staticmethod
    def restore_shared_param(param: Any) -> Any:
        """The shared param itself."""
        return param


def _unbound(target: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is a class attribute comes back as a method of the centre: take the function."""
    return target.__func__ if inspect.ismethod(target) else target
