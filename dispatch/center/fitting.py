"""Whether payloads fit a centre's runner: asked in the parent, before any worker starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dispatch.wire.codec import Codec, NotDeliverable, from_plain
from dispatch.worker.runner import describe

if TYPE_CHECKING:
    from dispatch.center.base import DispatchCenter

__all__ = ("Fitting", "Misfit")


class Misfit(Exception):
    """A payload that no worker could be given; says why."""


class Fitting:
    """What the first runner of a centre takes."""

    def __init__(self, center: DispatchCenter[Any, Any]) -> None:
        """Read the annotations. Raises ConfigError or RunnerError if the centre's declarations are wrong."""
        told = describe(center.check()[0])
        limit = center.config.max_value_bytes
        self._codec = Codec(told.name, told.payload_type, told.value_type, limit=limit)

    def fit(self, payload: Any) -> Any:
        """The payload, as it was given. Raises Misfit if it cannot be encoded, is too big, or has another type."""
        try:
            self._codec.decode_payload(self._codec.encode(payload))
        except NotDeliverable as error:
            raise Misfit(str(error)) from None
        return payload

    def fit_text(self, row: dict[str, str]) -> Any:
        """A row of text as what the runner takes: "3" is a number where one is wanted. Raises Misfit if it is not."""
        kind = self._codec.payload_type
        if kind is Any:
            return self.fit(row)
        try:
            return self.fit(from_plain(row, kind, strict=False))
        except msgspec.ValidationError as error:
            raise Misfit(f"payload does not fit {getattr(kind, '__name__', kind)}: {error}") from None
