"""What a user writes to do the work, and what can be known of it before a worker starts.

`describe` is run in the parent, for early errors, and in the worker, for the codec: both sides must see the same.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    TypeAlias,
    TypeGuard,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import Struct

from dispatch.terms.errors import RunnerError
from dispatch.terms.shard import Shard

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    C = TypeVar("C", default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C")

__all__ = ("Description", "Runner", "Target", "as_runner", "describe", "direct_call", "load", "reference")


class Runner(ABC, Generic[C]):
    """Executes shards in a worker. `Runner[Questions]` says what it may ask of its centre (a Protocol).

    `version` is part of a recorded run's identity. `concurrency` shards are in flight in one worker at once;
    more than one needs `async def do_run`.
    """

    version: str = "1"
    concurrency: int = 1
    shared_param: Any = None
    center: C
    _report: Callable[[float, float | None], None] | None = None

    def setup(self) -> Any:
        """Once per worker, before its first shard. May be `async def`.

        If it raises, its worker is given up, with a log; the run ends with StartupFailed if none is left.
        """

    @abstractmethod
    def do_run(self, shard: Shard[Any]) -> Any:
        """Run one shard and return its value. May be `async def`.

        What it raises fails the attempt; GiveUp and RetryLater steer what follows.
        """

    def teardown(self) -> Any:
        """Once, when the worker leaves in peace; never after a kill. May be `async def`."""

    def progress(self, done: float, total: float | None = None) -> None:
        """Say how far this shard is; seen in events and in the live view. Never waits long.

        Raises ValueError or TypeError for what is no number.
        """
        if self._report is not None:
            self._report(float(done), None if total is None else float(total))


def report_to(runner: Runner[Any], listener: Callable[[float, float | None], None]) -> None:
    """Let `listener` hear what the runner says of its progress."""
    runner._report = listener  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  (users see `progress`, not where it leads)


Target: TypeAlias = type[Runner[Any]] | Callable[..., Any]


class Description(Struct, frozen=True):
    """What is known of a runner class or function from its source."""

    name: str
    payload_type: Any
    value_type: Any
    is_async: bool
    concurrency: int
    version: str
    questions: dict[str, Any]  # what it may ask its centre, and the type of each answer
    takes_shared: bool
    shared_type: Any


def is_runner(target: object) -> TypeGuard[type[Runner[Any]]]:
    """Whether `target` is a Runner class (and not a function)."""
    return isinstance(target, type) and issubclass(target, Runner)


def describe(target: Target) -> Description:
    """Read a runner's annotations. Raises RunnerError if it is no runner, or they cannot be resolved."""
    return _describe_runner(target) if isinstance(target, type) else _describe_function(target)


def _describe_runner(runner: type[Any]) -> Description:
    name = runner.__qualname__
    if not is_runner(runner):
        raise RunnerError(
            name, "it is a class, but not a Runner", "subclass dispatch.Runner, or pass a function"
        )
    if runner.do_run is Runner.do_run:
        raise RunnerError(
            name, "it has no do_run", "define do_run(self, shard), or async def do_run(self, shard)"
        )
    if not isinstance(runner.concurrency, int) or runner.concurrency < 1:
        raise RunnerError(name, f"concurrency is {runner.concurrency!r}", "it must be a whole number from 1")
    is_async = inspect.iscoroutinefunction(runner.do_run)
    if runner.concurrency > 1 and not is_async:
        raise RunnerError(
            name, f"concurrency is {runner.concurrency}, but do_run is not async", "write async def do_run"
        )
    hints = _hints(runner.do_run, name)
    parameters = list(inspect.signature(runner.do_run).parameters)
    if len(parameters) < 2:
        raise RunnerError(name, "its do_run takes no shard", "define do_run(self, shard)")
    return Description(
        name,
        _payload_type(hints.get(parameters[1], Any)),
        _known(hints.get("return", Any)),
        is_async,
        runner.concurrency,
        str(runner.version),
        _questions(runner),
        True,
        Any,
    )


def _describe_function(function: Callable[..., Any]) -> Description:
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise RunnerError(name, "it is neither a Runner class nor a function", "pass one of the two")
    required = _required(function, name)
    if len(required) not in (1, 2):
        cure = "take one parameter (the payload), or two (the payload and the shared param)"
        raise RunnerError(name, f"it has {len(required)} required parameters", cure)
    hints = _hints(function, name)
    shared = required[1] if len(required) == 2 else None
    return Description(
        name,
        _known(hints.get(required[0], Any)),
        _known(hints.get("return", Any)),
        inspect.iscoroutinefunction(function),
        1,
        "1",
        {},
        shared is not None,
        _known(hints.get(shared, Any)) if shared else Any,
    )


def _required(function: Callable[..., Any], name: str) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return ["payload"]  # a builtin that does not say: math.sqrt and its kind take one
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    if any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in needed):
        raise RunnerError(name, "it has required keyword-only parameters", "give them defaults")
    return [p.name for p in needed if p.kind in kinds] or [p.name for p in parameters if p.kind in kinds][:1]


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        cure = "import it at the top of the module, outside TYPE_CHECKING, and define it outside functions"
        raise RunnerError(name, f"its annotations cannot be resolved: {error}", cure) from None
    except (TypeError, AttributeError):
        return {}  # a builtin, or a callable object: no annotations to read


def _payload_type(hint: Any) -> Any:
    if get_origin(hint) is Shard:
        return _known(get_args(hint)[0])
    return Any


def _known(hint: Any) -> Any:
    return Any if isinstance(hint, TypeVar) or hint is inspect.Parameter.empty else hint


def _questions(runner: type[Runner[Any]]) -> dict[str, Any]:
    """The names that the runner's Protocol declares, with the annotated type of each answer."""
    asked = _asked(runner)
    if not inspect.isclass(asked):
        return {}
    return {
        name: _known(_hints(method, f"{runner.__qualname__}'s {name}").get("return", Any))
        for protocol in reversed(asked.__mro__)  # a Protocol may extend others
        for name, method in vars(protocol).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def _asked(kind: Any, given: tuple[Any, ...] = ()) -> Any:
    """The Protocol in `Runner[Protocol]`, also where a generic class stands between; None if there is none."""
    if kind is Runner:
        return given[0] if given else None
    meant = dict(zip(getattr(kind, "__parameters__", ()), given, strict=False))
    for base in getattr(kind, "__orig_bases__", kind.__bases__):
        origin = get_origin(base) or base
        if inspect.isclass(origin) and issubclass(origin, Runner):
            found = _asked(origin, tuple(meant.get(each, each) for each in get_args(base)))
            if found is not None:
                return found
    return None


class _FunctionRunner(Runner[Any]):
    """Stands for a function. The sync lane calls it itself: a shard object would cost more than a small shard."""

    function: ClassVar[Callable[..., Any]]
    takes_shared: ClassVar[bool]

    def do_run(self, shard: Shard[Any]) -> Any:
        return self.call()(shard.payload)

    def call(self) -> Callable[[Any], Any]:
        """The function of one payload."""
        function, shared = type(self).function, self.shared_param
        return (lambda payload: function(payload, shared)) if self.takes_shared else function


class _AsyncFunctionRunner(_FunctionRunner):
    async def do_run(self, shard: Shard[Any]) -> Any:
        return await self.call()(shard.payload)


def as_runner(target: Target) -> type[Runner[Any]]:
    """A Runner class for a target: itself, or one that calls the function."""
    if isinstance(target, type):
        return target
    told = _describe_function(target)
    kind = _AsyncFunctionRunner if told.is_async else _FunctionRunner
    own = {"function": staticmethod(target), "takes_shared": told.takes_shared, "__qualname__": told.name}
    return cast("type[Runner[Any]]", type(told.name, (kind,), own))


def direct_call(runner: Runner[Any]) -> Callable[[Any], Any] | None:
    """The function of one payload that a runner stands for; None if it is a class of the user's."""
    return runner.call() if isinstance(runner, _FunctionRunner) else None


def reference(target: Any) -> str:
    """How a worker finds a class or function: "module:qualname".

    Raises RunnerError if no worker could: a lambda, a local, or something of a `__main__` that is not a file.
    """
    module = getattr(target, "__module__", None)
    qualname = getattr(target, "__qualname__", None)
    if not module or not qualname:
        raise RunnerError(repr(target), "it has no importable name", "pass a class or a function of a module")
    if "<lambda>" in qualname:
        raise RunnerError(
            qualname, "a lambda has no name that workers could import", "write a def in a module"
        )
    if "<locals>" in qualname:
        raise RunnerError(
            qualname,
            "it is defined inside a function, where workers cannot import it",
            "move it to the top of a module",
        )
    main = getattr(sys.modules.get("__main__"), "__file__", None) or ""  # "<stdin>" is no file either
    if module == "__main__" and not os.path.isfile(main):
        raise RunnerError(
            qualname,
            "it is defined in an interactive __main__ that workers cannot import",
            "move it to a module",
        )
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not target:
        problem = f"workers would import {module}.{qualname}, and that is something else"
        raise RunnerError(qualname, problem, "refer to it by the name under which its module holds it")
    return f"{module}:{qualname}"


def load(name: str) -> Any:
    """What a reference names; imports its module. Raises whatever the import raises."""
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found
