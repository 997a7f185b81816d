"""Who takes part: a class for each, found by its key, imported only in the child that measures it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from benchmarks.contenders.base import Contender

__all__ = ("PEERS", "find", "is_installed", "peers")

_CLASSES = {
    "ours": "ours:Ours",
    "bare": "bare:Bare",
    "executor": "executor:Executor",
    "pool": "pool:Pool",
    "loky": "loky:Loky",
    "mpire": "mpire:Mpire",
    "pebble": "pebble:Pebble",
    "aiomultiprocess": "aiomultiprocess:Aio",
    "trio_parallel": "trio_parallel:Trio",
    "to_process": "to_process:ToProcess",
    "dask": "dask:Dask",
    "ray": "ray:Ray",
}
PEERS = tuple(_CLASSES)[2:]
_STDLIB = ("executor", "pool")
_MODULES = {"to_process": "anyio", "dask": "distributed"}  # where the key is not what one imports


def find(key: str) -> type[Contender]:
    """The contender of that key. Raises ImportError if its package is not installed."""
    module, _, name = _CLASSES[key].partition(":")
    found: type[Contender] = getattr(import_module(f"benchmarks.contenders.{module}"), name)
    return found


def is_installed(key: str) -> bool:
    """Whether that contender can take part."""
    return key in (*_STDLIB, "ours", "bare") or find_spec(_MODULES.get(key, key)) is not None


def peers(tiny: bool, *, but: tuple[str, ...] = ()) -> list[str]:
    """The peers that take part; in a tiny run only one that is always there."""
    return ["executor"] if tiny else [key for key in PEERS if key not in but and is_installed(key)]
