"""What was asked for, as a configuration, a centre and its shards. An option overrides the file given by --config."""

from __future__ import annotations

import os
import traceback
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dispatch.center.base import DispatchCenter
from dispatch.center.fitting import Fitting
from dispatch.cli import target
from dispatch.cli.shards import ShardFile
from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import ConfigError, DispatchError

__all__ = ("Asked", "BrokenTarget")


class BrokenTarget(Exception):
    """The user's own module raised while it was imported; holds the traceback, without our frames."""


class Asked(Struct, frozen=True, kw_only=True):
    """The options of `run` and `plan`; None is what was not given."""

    target: str
    shards: str | None = None
    shared: str | None = None
    config: str | None = None
    runner: str | None = None
    jobs: int | None = None
    timeout: float | None = None
    retries: int | None = None
    isolation: str | None = None
    work_dir: str | None = None
    resume: str | None = None
    allow_drift: bool = False
    id_field: str | None = None
    skip_bad: bool = False

    def configuration(self) -> DispatchConfig:
        """The file's configuration, with the options over it. Raises ConfigError for what makes no sense."""
        base = DispatchConfig() if self.config is None else _load(self.config)
        policy = base.policy
        retry = policy.retry if self.retries is None else replace(policy.retry, attempts=self.retries + 1)
        policy = _over(policy, timeout=self.timeout, isolation=self.isolation, retry=retry)
        given = {
            "runner_type": self.runner,
            "data_parallel": self.jobs,
            "work_dir": self.work_dir,
            "resume": self.resume,
            "allow_drift": self.allow_drift or None,
        }
        configured: DispatchConfig = _over(base, policy=policy, **given)
        if configured.work_dir == "":
            raise ConfigError("--work-dir", "", "name a directory")
        return configured

    def center(self, config: DispatchConfig) -> DispatchCenter[Any, Any]:
        """The centre for the target. Raises ConfigError, or BrokenTarget if the target's module raises."""
        try:
            found = target.find(self.target)
        except DispatchError:
            raise
        except Exception as error:  # noqa: BLE001  (the module is user code: it may raise anything)
            raise BrokenTarget(_without_us(error)) from None
        param = None
        if self.shared is not None:
            try:
                param = msgspec.json.decode(_text("--shared", self.shared))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ConfigError("--shared", self.shared, f"not JSON: {error}") from None
        return target.make(found, config, shared_param=param)

    def shard_file(self, center: DispatchCenter[Any, Any]) -> ShardFile | None:
        """The shards that were given; None if the centre brings its own. Raises ConfigError if nobody does."""
        if self.shards is not None:
            return ShardFile(self.shards, Fitting(center), id_field=self.id_field)
        if not target.has_shards(center):
            raise ConfigError("--shards", None, "name a file of shards; this target brings none of its own")
        return None


def _over(base: Any, **options: Any) -> Any:
    return replace(base, **{name: value for name, value in options.items() if value is not None})


def _load(path: str) -> DispatchConfig:
    text = _text("--config", path)
    try:
        return DispatchConfig.load(text)
    except ConfigError as error:
        told = error.cure if error.field == "config" else str(error)
        raise ConfigError("--config", path, told) from None


def _text(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(option, path, error.strerror or str(error)) from None


def _without_us(error: Exception) -> str:
    """A traceback from the first frame of the user's own code."""
    trace = error.__traceback__
    ours = (os.path.dirname(os.path.dirname(__file__)) + os.sep, os.path.dirname(os.__file__) + "/importlib/")
    while trace is not None and (
        trace.tb_frame.f_code.co_filename.startswith(ours)
        or trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()
