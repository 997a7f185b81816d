"""From MODULE:NAME to a centre: a Runner class, a function, or a centre class that brings its own runner."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from dispatch.center.base import DispatchCenter
from dispatch.center.concrete import Concrete
from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import ConfigError

__all__ = ("find", "has_shards", "make")


def find(name: str) -> Any:
    """What MODULE:NAME names. The current directory is searched first, as `python -m` does; workers inherit that.

    Raises ConfigError if there is no such module or name; what the module itself raises comes out as it is.
    """
    module, colon, qualname = name.partition(":")
    if not (colon and module and qualname):
        raise ConfigError("target", name, "write MODULE:NAME, as in my.package.module:MyRunner")
    if module.endswith(".py"):
        module = module.removesuffix(".py").replace(os.sep, ".").lstrip(".")
        raise ConfigError("target", name, f"name the module, not its file: {module}:{qualname}")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports something that is not
        raise ConfigError(
            "target", name, f"there is no module {error.name} in {here} or on sys.path"
        ) from None
    for part in qualname.split("."):
        if not hasattr(found, part):
            raise ConfigError("target", name, f"{getattr(found, '__name__', found)} has no {part}")
        found = getattr(found, part)
    if isinstance(found, DispatchCenter):
        raise ConfigError("target", name, "this is a centre that was made; name its class")
    return found


def _is_center(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, DispatchCenter)


def make(target: Any, config: DispatchConfig, *, shared_param: Any) -> DispatchCenter[Any, Any]:
    """The centre that `config.runner_type` names, for a runner, or the target itself on that engine.

    Raises ConfigError if the target cannot be one, or has a shared param of its own beside the one given.
    """
    if not _is_center(target):
        return DispatchCenter[Any, Any].init(config, target, shared_param=shared_param)
    own = target.get_shared_param not in (Concrete.get_shared_param, DispatchCenter.get_shared_param)
    if own and shared_param is not None:
        raise ConfigError("--shared", target.__qualname__, "this centre has a get_shared_param of its own")
    made: DispatchCenter[Any, Any] = target.init(config, shared_param=shared_param)
    return made


def has_shards(center: DispatchCenter[Any, Any]) -> bool:
    """Whether a centre brings its own shards."""
    return type(center).iter_shards is not DispatchCenter.iter_shards or center.shards != ()
