"""A user's centre on another centre's engine: what its author wrote, then what the other kind says."""

from __future__ import annotations

from abc import ABC, ABCMeta
from inspect import getattr_static
from typing import Any, Generic

__all__ = ("rebased",)


def rebased(center: type[Any], kind: type[Any]) -> type[Any]:
    """A centre class on the engine of `kind`: what its author wrote stands first, then what `kind` says.

    It is a subclass of both, so that `super()` and `isinstance` hold; only `make_engine` is always the kind's.
    """
    own = [
        base
        for base in center.__mro__
        if not (base in _ROOTS or base.__module__.startswith("dispatch.center."))
    ]
    if not own or issubclass(center, kind) or issubclass(kind, center):
        return center if issubclass(center, kind) else kind
    written = {name for base in own for name in vars(base)} - {"make_engine"}
    differ = ({*center.__mro__} ^ {*kind.__mro__}) - {*own}
    said = {name for base in differ for name in vars(base) if hasattr(kind, name)} - written
    namespace = {name: getattr_static(kind, name) for name in said if name not in _NOT_SAID}
    names = {"__module__": center.__module__, "__qualname__": center.__qualname__, "_declared": center}
    return ABCMeta(center.__name__, (center, kind), namespace | names)


_ROOTS = (ABC, Generic, object)
_NOT_SAID = {*vars(type("_", (ABC,), {"__annotations__": {}})), "__orig_bases__", "__parameters__"}
