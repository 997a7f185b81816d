"""What a user may set. Frozen Structs: they load from TOML, JSON or a dict, and a wrong field is named."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import FieldInfo, force_setattr

from dispatch.terms.errors import ConfigError

__all__ = ("DispatchConfig", "Policy", "Retry")

RetryCause = Literal["raised", "timed_out", "crashed", "out_of_memory", "undeliverable"]


@cache
def _fields(kind: type[Struct]) -> tuple[FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _check_types(config: Struct, prefix: str = "") -> None:
    """Refuse a field that is not of its type, by name: made in Python it is read by no decoder."""
    for each in _fields(type(config)):
        got: Any = getattr(config, each.name)
        plain: Any = os.fsdecode(got) if hasattr(got, "__fspath__") else got
        try:
            force_setattr(config, each.name, msgspec.convert(plain, each.type))
        except msgspec.ValidationError as error:
            raise ConfigError(prefix + each.name, got, str(error)) from None


def _at_least(name: str, value: float | None, low: float, *, open_end: bool = False) -> None:
    if value is None:
        return
    wrong = value <= low if open_end else value < low
    if wrong or math.isnan(value):
        raise ConfigError(name, value, f"it must be {'more than' if open_end else 'at least'} {low:g}")


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often an attempt may end in a cause in `on`, and how long to wait between (seconds).

    The n-th wait is `wait * factor ** (n - 1)`, at most `max_wait`, plus up to `jitter` at random.
    """

    attempts: int = 1
    on: tuple[RetryCause, ...] = ("raised", "timed_out")
    wait: float = 0.0
    factor: float = 2.0
    max_wait: float = 60.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by name."""
        _check_types(self, "policy.retry.")
        _at_least("policy.retry.attempts", self.attempts, 1)
        for name in ("wait", "factor", "max_wait", "jitter"):
            _at_least(f"policy.retry.{name}", getattr(self, name), 0)


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one attempt may take, and what follows when it fails. Times in seconds, sizes in bytes."""

    timeout: float | None = None
    startup_timeout: float = 60.0
    grace: float = 5.0
    cancel_grace: float = 0.1
    retry: Retry = field(default_factory=Retry)
    crash_budget: int = 2
    isolation: Literal["worker", "fork"] = "worker"
    recycle_after: int | None = None
    memory_limit: int | None = None
    max_failures: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by name."""
        _check_types(self, "policy.")
        _at_least("policy.timeout", self.timeout, 0, open_end=True)
        _at_least("policy.startup_timeout", self.startup_timeout, 0, open_end=True)
        _at_least("policy.grace", self.grace, 0)
        _at_least("policy.cancel_grace", self.cancel_grace, 0)
        _at_least("policy.crash_budget", self.crash_budget, 1)
        _at_least("policy.recycle_after", self.recycle_after, 1)
        _at_least("policy.memory_limit", self.memory_limit, 1)
        _at_least("policy.max_failures", self.max_failures, 1)


class DispatchConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A centre's configuration. `data_parallel=None` means the usable CPUs (affinity and cgroup quota).

    With a `work_dir` every run is recorded there, and goes on where the record ends. `resume`: which outcomes are
    taken from it, "done" ones, "all" but cancelled ones, or "none": then the run is recorded beside what is there.
    `allow_drift` lets it go on although the runner's version or the shared param has changed.
    """

    runner_type: str = "data_parallel"
    data_parallel: int | None = None
    work_dir: str | None = None
    resume: Literal["done", "all", "none"] = "done"
    allow_drift: bool = False
    policy: Policy = field(default_factory=Policy)
    max_pending: int = 10_000
    max_pending_bytes: int = 64 * 1024 * 1024
    max_value_bytes: int = 256 * 1024 * 1024
    env: dict[str, str] = {}
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by name."""
        _check_types(self)
        _at_least("data_parallel", self.data_parallel, 1)
        _at_least("max_pending", self.max_pending, 1)
        _at_least("max_pending_bytes", self.max_pending_bytes, 1)
        _at_least("max_value_bytes", self.max_value_bytes, 1)

    @classmethod
    def load(
        cls, source: Mapping[str, Any] | str | bytes, *, format: Literal["toml", "json"] = "toml"
    ) -> DispatchConfig:
        """A configuration from a mapping, or from TOML or JSON text.

        Raises ConfigError, naming the field, if one is unknown, ill-typed or out of its range; also if the text
        is no TOML or JSON.
        """
        try:
            fields = source if isinstance(source, Mapping) else _parsed(source, format)
        except (msgspec.DecodeError, ValueError) as error:  # tomllib's is a ValueError
            raise ConfigError("config", "not valid", str(error)) from None
        try:
            return msgspec.convert(fields, cls)
        except msgspec.ValidationError as error:
            raise _named(error, fields) from None


def _parsed(source: str | bytes, format: Literal["toml", "json"]) -> Any:
    if format == "json":
        return msgspec.json.decode(source)
    import tomllib

    return tomllib.loads(source.decode() if isinstance(source, bytes) else source)


def _named(error: msgspec.ValidationError, fields: Any) -> ConfigError:
    """The error by its field's name: msgspec says it as "... - at `$.policy.timeout`"."""
    if isinstance(error.__cause__, ConfigError):  # one of ours, from a __post_init__
        return error.__cause__
    told, _, place = str(error).replace("[...]", "").partition(" - at `$.")
    unknown = told.partition("unknown field `")[2]
    names = [name.strip("`") for name in (*place.split("."), unknown) if name]
    got: Any = fields
    for name in names:
        got = got[name.partition("[")[0]]
    return ConfigError(".".join(names) or "config", got, told)
