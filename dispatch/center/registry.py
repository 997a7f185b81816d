"""Names of centres: "data_parallel" -> "module:Class". A new one is added without editing the library.

`@register("name")` on a class, or an entry point in the group `dispatch.centers`. The table holds strings, so
the base class knows none of its children.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from dispatch.terms.errors import ConfigError

__all__ = ("GROUP", "RunnerType", "find", "register")

GROUP = "dispatch.centers"
T = TypeVar("T", bound=type)


class RunnerType(str, Enum):  # noqa: UP042  (not StrEnum: str() would change, and msgspec reads both)
    """The centres that come with dispatch; the values are what `config.runner_type` holds."""

    DUMMY = "dummy"
    LOCAL = "local"
    DATA_PARALLEL = "data_parallel"


_places: dict[str, str] = {
    RunnerType.DUMMY.value: "dispatch.center.dummy:DummyDispatchCenter",
    RunnerType.LOCAL.value: "dispatch.center.local:LocalDispatchCenter",
    RunnerType.DATA_PARALLEL.value: "dispatch.center.data_parallel:DataParallelDispatchCenter",
}
_classes: dict[str, type] = {}


def register(name: str) -> Callable[[T], T]:
    """Make a centre class known as `name`. Raises ConfigError if another class has the name."""

    def known(center: T) -> T:
        place = f"{center.__module__}:{center.__qualname__}"
        if _places.get(name, place) != place:
            raise ConfigError("register", name, f"the name is taken by {_places[name]}")
        _places[name] = place
        _classes[name] = center
        return center

    return known


def find(name: str) -> Any:
    """The centre class of a name. Raises ConfigError, listing the known names, if there is none."""
    if name in _classes:
        return _classes[name]
    place = _places.get(name)
    if place is None:
        from importlib.metadata import entry_points  # 20 ms: only names that are not ours pay

        found = next((point for point in entry_points(group=GROUP) if point.name == name), None)
        if found is None:
            known = sorted({*_places, *(point.name for point in entry_points(group=GROUP))})
            raise ConfigError(
                "runner_type",
                name,
                f"known are {', '.join(known)}; others by @register or the entry-point group {GROUP}",
            )
        place = found.value
    module, _, qualname = place.partition(":")
    try:
        center: Any = importlib.import_module(module)
        for part in qualname.split("."):
            center = getattr(center, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "runner_type", name, f"it stands for {place}, which failed to load: {error}"
        ) from error
    _classes[name] = center
    return center
