"""Runner-to-centre questions: `@remote`, the table of what a centre answers, and the pairing of ids.

Both sides import this; it decides nothing about when or where a call runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Raw

from dispatch.terms.outcome import Fault
from dispatch.wire.codec import encode, explain, from_plain
from dispatch.wire.frames import Answer, Call

__all__ = ("CallTable", "Calls", "remote", "remote_names")

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__dispatch_remote__"


def remote(method: F) -> F:
    """Let runners call this method of a centre: `self.center.name(...)`. It runs on the parent's event loop.

    Arguments and result travel as msgpack and are converted to the method's annotations. What it raises is
    raised in the runner.
    """
    setattr(method, _MARK, True)
    return method


def remote_names(center: type) -> frozenset[str]:
    """The names of a centre class's `@remote` methods."""
    return frozenset(name for name in dir(center) if getattr(getattr(center, name, None), _MARK, False))


class Calls:
    """Numbers questions and finds the asker of an answer again."""

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes, for the arguments of one question."""
        self._next = 0
        self._limit = limit

    def ask(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """The frame for a call, with an id of its own. Raises TypeError if its arguments cannot travel."""
        try:
            plain = Raw(encode(args)), Raw(encode(kwargs))
        except Exception as error:  # noqa: BLE001  (whatever a hook or a property of an argument raises)
            what: Any = {**dict[Any, Any](enumerate(args)), **kwargs} if kwargs else args
            raise TypeError(f"center.{method}: the arguments {explain(what, error)}") from None
        size = sum(memoryview(part).nbytes for part in plain)
        if size > self._limit:
            told = f"the arguments are {size} bytes encoded, over max_value_bytes={self._limit}"
            raise TypeError(f"center.{method}: {told}")
        self._next += 1
        return Call(self._next, method, *plain)

    def renumber(self, question: Call) -> Call:
        """A question that somebody else asked through us, with an id of ours."""
        self._next += 1
        return Call(self._next, question.method, question.args, question.kwargs)


class CallTable:
    """What one centre answers."""

    def __init__(self, center: object) -> None:
        self._center = center
        self._names = remote_names(type(center))

    async def answer(self, call: Call, *, fault_of: Callable[[BaseException], Fault]) -> Answer:
        """Run the method that a call names, and frame its value or its exception."""
        try:
            method = self._method(call.method)
            args, kwargs = _arguments(method, call)
            value = method(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            return Answer(call.call, Raw(encode(value)))
        except Exception as error:  # noqa: BLE001  (it belongs to the runner that asked)
            return Answer(call.call, fault=fault_of(error))

    def _method(self, name: str) -> Callable[..., Any]:
        if name not in self._names:
            known = ", ".join(sorted(self._names)) or "none"
            raise AttributeError(
                f"{type(self._center).__name__} has no @remote method {name!r} (it has: {known})"
            )
        method: Callable[..., Any] = getattr(self._center, name)
        return method


def _arguments(method: Callable[..., Any], call: Call) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = msgspec.msgpack.decode(call.args)
    kwargs: dict[str, Any] = msgspec.msgpack.decode(call.kwargs)
    hints = get_type_hints(method, include_extras=True)
    bound = inspect.signature(method).bind(*args, **kwargs)
    for name, value in bound.arguments.items():
        if name in hints and method_takes(method, name):
            bound.arguments[name] = from_plain(value, hints[name])
    return list(bound.args), bound.kwargs


def method_takes(method: Callable[..., Any], name: str) -> bool:
    """Whether `name` is a plain parameter of a method, not its *args or **kwargs."""
    kind = inspect.signature(method).parameters[name].kind
    return kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
