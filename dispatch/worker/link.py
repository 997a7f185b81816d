"""What a runner sees of its centre: `self.center`. A sync call blocks, an async one is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dispatch.terms.outcome import Failed
from dispatch.wire.codec import decoder_for
from dispatch.wire.frames import Answer

__all__ = ("Link", "answer_value")


class Link:
    """Turns `center.name(...)` into `ask("name", args, kwargs)`, whatever the lane makes of that."""

    def __init__(self, ask: Callable[[str, tuple[Any, ...], dict[str, Any]], Any | Awaitable[Any]]) -> None:
        self._ask = ask

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._ask(name, args, kwargs)

        call.__name__ = name
        return call


def answer_value(answer: Answer, kind: Any) -> Any:
    """What a centre's method returned, in the type that the runner's Protocol says; raises what it raised."""
    if answer.fault is not None:
        Failed(fault=answer.fault).unwrap()
    return decoder_for(kind).decode(answer.value)
