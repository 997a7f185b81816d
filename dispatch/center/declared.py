"""What a centre's declarations come to, and why they could never work: told before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispatch.terms.errors import ConfigError, RunnerError
from dispatch.wire.calls import remote_names
from dispatch.worker.runner import Target, describe, reference

if TYPE_CHECKING:
    from dispatch.center.base import DispatchCenter

__all__ = ("checked",)


def checked(center: DispatchCenter[Any, Any]) -> list[Target]:
    """The targets of the workers to start. Raises ConfigError or RunnerError for what could never work."""
    kind, found = type(center), center.init_runners()
    if not isinstance(found, Sequence) or not found:
        cure = "it must return the runner classes to start, one for each worker"
        raise ConfigError(f"{kind.__name__}.init_runners()", found, cure)
    forks = center.config.policy.isolation == "fork"
    if center.needs_import and forks and sys.platform != "linux":
        raise ConfigError("policy.isolation", "fork", "it needs Linux")
    offered = remote_names(kind)
    for method in ("get_shared_param", *offered):
        center.hints_of(method)
    named: dict[str, Target] = {}
    for target in found:
        described = describe(target)
        if center.needs_import:
            reference(target)
        if named.setdefault(described.name, target) != target:
            cure = "give one another name: shards and records know runners by it"
            raise RunnerError(described.name, "two runners of this centre have this name", cure)
        if missing := described.questions.keys() - offered:
            problem = f"it asks its centre for {', '.join(sorted(missing))}"
            has = ", ".join(sorted(offered)) or "none"
            cure = f"{kind.__name__} has no such @remote method; it has: {has}"
            raise RunnerError(described.name, problem, cure)
        if forks and described.concurrency > 1:
            raise RunnerError(
                described.name, 'isolation="fork" with concurrency > 1', "choose one of the two"
            )
    return list(found)
