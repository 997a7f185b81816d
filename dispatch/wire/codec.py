"""Typed encoders and decoders from annotations.

A payload is encoded where it enters (the parent) and decoded where it is used (the worker), a value the other
way round. Frames are decoded whole; only when that fails is each shard decoded by itself, to find the culprit.
msgspec's encode errors carry no path, so on failure only, the value is walked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Any, Union

import msgspec
from msgspec import Raw, Struct

from dispatch.terms.errors import RunnerError
from dispatch.terms.outcome import Fault
from dispatch.wire import frames
from dispatch.wire.frames import FrameError

__all__ = (
    "Codec",
    "NotDeliverable",
    "canonical",
    "control_decoder",
    "decoder_for",
    "dump",
    "encode",
    "encode_into",
    "from_plain",
    "undeliverable",
)


def dump(value: Any) -> Any:
    """Encode hook: pydantic models by `model_dump`, without knowing pydantic."""
    dumper = getattr(value, "model_dump", None)
    if dumper is None or isinstance(value, type):
        raise NotImplementedError(f"objects of type {type(value).__name__} cannot be encoded")
    return dumper(by_alias=True, round_trip=True)  # in the form that model_validate reads


def load(kind: Any, plain: Any) -> Any:
    """Decode hook: pydantic models by `model_validate`."""
    validate = getattr(kind, "model_validate", None)
    if validate is None:
        raise NotImplementedError(f"cannot decode into {kind!r}")
    try:
        return validate(plain)
    except ValueError as error:
        raise msgspec.ValidationError(str(error)) from None


_ENCODER = msgspec.msgpack.Encoder(enc_hook=dump)
encode: Callable[[Any], bytes] = _ENCODER.encode
encode_into: Callable[[Any, bytearray, int], None] = _ENCODER.encode_into


_IN_ORDER = msgspec.msgpack.Encoder(enc_hook=dump, order="deterministic").encode


def canonical(values: Sequence[Any], encoded: Sequence[bytes]) -> Sequence[bytes]:
    """Bytes that are the same in every process: sets and dicts in order. `encoded` where a value has no such form.

    The order of a set of strings differs from process to process, so a digest of its plain encoding would.
    """
    try:
        return list(map(_IN_ORDER, values))
    except Exception:  # noqa: BLE001  (keys that are no strings, or whatever a hook raises)
        if len(values) == 1:
            return encoded
    return [canonical([value], [data])[0] for value, data in zip(values, encoded, strict=True)]


def decoder_for(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """A decoder of one annotated type."""
    return msgspec.msgpack.Decoder(kind, dec_hook=load)


def from_plain(value: Any, kind: Any, *, strict: bool = True) -> Any:
    """Plain values into an annotated type; unless `strict`, text that reads as a number or a truth is one."""
    return msgspec.convert(value, kind, strict=strict, dec_hook=load)


class NotDeliverable(Exception):
    """A payload or a value that does not encode, does not fit its annotation, or is too big."""


def undeliverable(what: str, problem: str, *, kind: str = "") -> Fault:
    """The fault for a payload or a value that cannot travel."""
    return Fault(cause="undeliverable", type=kind, message=f"{what}: {problem}")


class Codec:
    """Reads and writes the payloads and values of one runner class. Sizes are limited to `limit` bytes."""

    def __init__(self, name: str, payload_type: Any, value_type: Any, *, limit: int) -> None:
        self.name, self.limit = name, limit
        self.payload_type, self.value_type = payload_type, value_type
        try:
            self._payload = decoder_for(payload_type)
            self._value = decoder_for(value_type)
            self._work = decoder_for(_union(frames.Work[payload_type], *_TO_RUNNER))
            self._from_runner = decoder_for(_union(frames.Results[value_type], *_FROM_RUNNER))
        except (TypeError, NotImplementedError) as error:
            cure = "annotate do_run with types that msgspec supports, or leave the annotation out"
            raise RunnerError(name, f"its annotations cannot be encoded: {error}", cure) from None
        self._values: msgspec.msgpack.Decoder[Any] | None = None
        self._work_raw = decoder_for(_union(frames.Work[Raw], *_TO_RUNNER))
        self._from_runner_raw = decoder_for(_union(frames.Results[Raw], *_FROM_RUNNER))

    def encode(self, value: Any, what: str = "payload") -> bytes:
        """A payload or a value as bytes. Raises NotDeliverable, naming type and path, if it cannot be."""
        try:
            data = encode(value)
        except Exception as error:  # noqa: BLE001  (whatever a hook or a property of the value raises)
            raise NotDeliverable(f"{what} {explain(value, error)}") from None
        if len(data) > self.limit:
            raise NotDeliverable(f"{what} is {len(data)} bytes encoded, over max_value_bytes={self.limit}")
        return data

    def encode_all(self, payloads: list[Any]) -> list[bytes]:
        """Payloads as bytes. Raises NotDeliverable if any cannot be: then ask for each, to find it."""
        try:
            encoded = list(map(encode, payloads))
        except Exception as error:  # noqa: BLE001  (whatever a hook or a property of a payload raises)
            raise NotDeliverable(str(error)) from None
        if sum(map(len, encoded)) > self.limit and max(map(len, encoded)) > self.limit:
            raise NotDeliverable("a payload is too big")
        return encoded

    def why_not(self, value: Any, error: Exception) -> NotDeliverable:
        """What to raise for a value that would not encode."""
        return NotDeliverable(f"value {explain(value, error)}")

    def too_big(self, size: int) -> NotDeliverable:
        """What to raise for a value of so many encoded bytes."""
        return NotDeliverable(f"value is {size} bytes encoded, over max_value_bytes={self.limit}")

    def decode_payload(self, raw: Raw | bytes) -> Any:
        """A payload from its bytes. Raises NotDeliverable if they do not fit the annotation."""
        return _typed(self._payload, raw, what="payload", kind=self.payload_type)

    def decode_value(self, raw: Raw | bytes) -> Any:
        """A value from its bytes. Raises NotDeliverable if they do not fit the annotation."""
        return _typed(self._value, raw, what="value", kind=self.value_type)

    def decode_values(self, raws: Sequence[bytes]) -> list[Any]:
        """Values from their bytes, all at once. Raises NotDeliverable if any does not fit: then ask for each."""
        if self._values is None:
            self._values = decoder_for(list[self.value_type])  # type: ignore[name-defined]  # a type at run time
        body = b"\xdd%b%b" % (len(raws).to_bytes(4, "big"), b"".join(raws))
        values: list[Any] = _typed(self._values, body, what="value", kind=self.value_type)
        return values

    def work(self, body: bytes | bytearray) -> frames.ToRunner:
        """A frame for the runner; its payloads stay Raw if they do not all fit the annotation."""
        frame: frames.ToRunner
        try:
            frame = self._work.decode(body)
        except Exception:  # noqa: BLE001  (a payload's __post_init__ or validator may raise anything)
            frame = _whole(self._work_raw, body)
        return frame

    def work_raw(self, body: bytes | bytearray) -> frames.Work[Raw]:
        """A Work frame with its payloads as bytes."""
        work: frames.Work[Raw] = self._work_raw.decode(body)
        return work

    def from_runner(self, body: bytes | bytearray) -> list[frames.FromRunner]:
        """The frames that a body from the runner stands for: one, or where values do not fit, one for each shard.

        Raises FrameError if the body is no frame at all.
        """
        frame: frames.FromRunner
        fits = True
        try:
            frame = self._from_runner.decode(body)
        except Exception:  # noqa: BLE001  (a value's __post_init__ or validator may raise anything)
            frame, fits = _whole(self._from_runner_raw, body), False
        if not isinstance(frame, frames.Results):
            return [frame]
        if not _is_even(frame):  # a shard without its value would be settled by nobody
            raise FrameError("columns of different lengths")
        return [frame] if fits else self._one_by_one(frame)

    def _one_by_one(self, results: frames.Results[Raw]) -> list[frames.FromRunner]:
        found: list[frames.FromRunner] = []
        seqs = results.seqs or range(results.first, results.first + len(results.values))
        starts = results.started if results.seqs else [*results.started, *results.ended]
        for seq, started, ended, raw in zip(seqs, starts, results.ended, results.values, strict=False):
            try:
                value = self.decode_value(raw)
            except NotDeliverable as error:
                fault = undeliverable(self.name, str(error))
                found.append(frames.Fail(seq, started, ended - started, fault))
            else:
                found.append(frames.Results(seq, [], [started], [ended], [value]))
        return found


_TO_RUNNER = (frames.Answer, frames.Withdraw, frames.Bye)
_FROM_RUNNER = (
    frames.Ready,
    frames.NotReady,
    frames.Fail,
    frames.Back,
    frames.Call,
    frames.Progress,
    frames.Output,
)


def control_decoder(*kinds: type[Struct]) -> Callable[[bytes | bytearray], Any]:
    """A decoder of untyped frames of these kinds; raises FrameError for anything else."""
    decoder = decoder_for(_union(*kinds))
    return lambda body: _whole(decoder, body)


def _union(*kinds: Any) -> Any:
    return Union[kinds]  # noqa: UP007  (built at run time)


def _whole(decoder: msgspec.msgpack.Decoder[Any], body: bytes | bytearray) -> Any:
    try:
        return decoder.decode(body)
    except Exception as error:  # noqa: BLE001  (DecodeError, UnicodeDecodeError, RecursionError, MemoryError)
        raise FrameError(str(error)) from None


def _is_even(results: frames.Results[Any]) -> bool:
    number = len(results.values)
    one_each = len(results.seqs) == len(results.started) == number
    return len(results.ended) == number and (one_each if results.seqs else len(results.started) == 1)


def _typed(decoder: msgspec.msgpack.Decoder[Any], raw: Raw | bytes, *, what: str, kind: Any) -> Any:
    try:
        return decoder.decode(raw)
    except Exception as error:  # noqa: BLE001  (a Struct's __post_init__ or a pydantic validator may raise anything)
        raise NotDeliverable(f"{what} does not fit {_name(kind)}: {error}") from None


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def explain(value: Any, error: Exception) -> str:
    """Why a value would not encode: the innermost part that does not, its type and its path."""
    try:
        path, culprit, reason = _culprit(value, ())
    except Exception:  # noqa: BLE001  (a __repr__, a property or an iterator of the user's)
        path, culprit, reason = "", value, ""
    path = path if len(path) <= 200 else f"{path[:100]}...{path[-100:]}"
    where = f" at ${path}" if path else ""
    reason = reason or str(error) or type(error).__name__
    return f"of type {type(value).__name__} cannot be encoded: {type(culprit).__name__}{where}: {reason}"


def _culprit(value: Any, within: tuple[int, ...]) -> tuple[str, Any, str]:
    """The path to the innermost part that fails by itself, that part, and what is wrong if we know it."""
    if id(value) in within:
        return "", value, "it refers to itself"
    if len(within) > 200:
        return "", value, "it is nested too deeply"
    for step, part in _parts(value):
        try:
            encode(part)
        except Exception:  # noqa: BLE001  (that is the question)
            path, culprit, reason = _culprit(part, (*within, id(value)))
            return step + path, culprit, reason
    return "", value, ""


def _parts(value: Any) -> list[tuple[str, Any]]:
    kind: type[Any] = value.__class__
    if issubclass(kind, Mapping):
        keys = [(f"<key {key!r}>", key) for key in value]
        return keys + [(f"[{key!r}]", part) for key, part in value.items()]
    if issubclass(kind, list | tuple | set | frozenset):
        return [(f"[{n}]", part) for n, part in enumerate(value)]
    if isinstance(value, Struct):
        return [(f".{name}", getattr(value, name)) for name in value.__struct_fields__]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{item.name}", getattr(value, item.name)) for item in dataclass_fields(value)]
    return []
