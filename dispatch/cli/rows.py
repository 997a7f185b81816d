"""Outcomes as rows of JSON, and files that are there whole or not at all: temp file, fsync, rename."""

from __future__ import annotations

import math
import os
import stat
import tempfile
from array import array
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

import msgspec

from dispatch.record.archive import Record
from dispatch.terms.errors import ConfigError
from dispatch.terms.outcome import Done, Failed, Fault

__all__ = ("Rows", "as_text", "check_out", "encode", "recorded", "replacing", "row")


def row(outcome: Any) -> dict[str, Any]:
    """One outcome as a row: done with its value, failed with its cause and fault, or cancelled."""
    told: dict[str, Any] = {
        "id": outcome.shard_id,
        "index": outcome.index,
        "outcome": type(outcome).__name__.lower(),
    }
    if type(outcome) is Done:
        told["value"] = outcome.unwrap()
    elif isinstance(outcome, Failed):
        told |= _fault_row(outcome.fault)
    attempts = outcome.attempts
    seconds = round(sum(attempt.seconds for attempt in attempts), 6)
    return told | {"attempts": len(attempts), "seconds": seconds, "reused": outcome.reused}


def recorded(record: Record) -> dict[str, Any]:
    """The same row of an outcome that stands in a journal; `run` says which run settled it."""
    told: dict[str, Any] = {"id": record.name, "index": record.position, "outcome": record.kind}
    if record.kind == "done":
        told["value"] = record.value
    elif record.fault is not None:
        told |= _fault_row(record.fault)
    attempts = record.attempts
    seconds = round(sum(attempt.seconds for attempt in attempts), 6)
    return told | {"attempts": len(attempts), "seconds": seconds, "run": record.run}


def _fault_row(fault: Fault) -> dict[str, Any]:
    """A fault as two columns: its cause, and the evidence that a person reads."""
    evidence = {
        name: getattr(fault, name)
        for name in ("type", "message", "traceback", "stack", "output", "signal", "exit_code")
        if getattr(fault, name) not in ("", None)
    }
    return {"cause": fault.cause, "fault": evidence}


def encode(told: dict[str, Any]) -> bytes:
    """A row as one line of JSON. A value that JSON cannot hold is told as text, in `value_repr`.

    A number that is none, or infinite, is null in JSON; `value_repr` says that it was one.
    """
    try:
        line = msgspec.json.encode(told, enc_hook=_plain)
        if b"null" in line and _has_nonfinite(told.get("value")):
            line = msgspec.json.encode({**told, "value_repr": repr(told["value"])}, enc_hook=_plain)
        return line + b"\n"
    except Exception:  # noqa: BLE001  (whatever a hook or a property of the value raises)
        told = {**told, "value": None, "value_repr": repr(told.get("value"))}
        return msgspec.json.encode(told, enc_hook=repr) + b"\n"


def as_text(value: Any) -> str:
    """A value as JSON text; its repr if JSON cannot hold it."""
    try:
        text = msgspec.json.encode(value, enc_hook=_plain).decode()
        return repr(value) if "null" in text and _has_nonfinite(value) else text
    except Exception:  # noqa: BLE001  (the same)
        return repr(value)


def _has_nonfinite(value: Any) -> bool:
    """Whether a float in it is NaN or infinite, which JSON has no number for."""
    rest = [msgspec.to_builtins(value, builtin_types=(bytes, bytearray), enc_hook=_plain)]
    while rest:
        each = rest.pop()
        if isinstance(each, float):
            if not math.isfinite(each):
                return True
        elif isinstance(each, dict):
            rest.extend(cast("dict[object, object]", each).values())
        elif isinstance(each, list | tuple):
            rest.extend(cast("list[object]", each))
    return False


def _plain(value: Any) -> Any:
    """Encode hook: pydantic models by `model_dump`, views of bytes as bytes."""
    if isinstance(value, memoryview):
        return value.tobytes()
    dumper = getattr(value, "model_dump", None)
    if dumper is None:
        raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
    return dumper(mode="json")


def check_out(path: str, *, source: str | None = None) -> None:
    """Raises ConfigError if no file can stand at `path`, or if it is `source`, which would be lost."""
    real = os.path.realpath(path)
    if os.path.isdir(path):
        raise ConfigError("--out", path, "it is a directory; name a file")
    if not os.path.exists(path) and not os.path.isdir(os.path.dirname(real)):
        raise ConfigError("--out", path, f"there is no folder {os.path.dirname(real)}")
    if source is not None and real == os.path.realpath(source) and not _is_special(path):
        raise ConfigError("--out", path, "it is the file of --shards; name another")


def _is_special(path: str) -> bool:
    """Whether there is something that is no regular file: a device, a pipe."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


@contextmanager
def replacing(path: str) -> Generator[IO[bytes]]:
    """A file to write, which takes the place of `path` when the block ends well, and is gone when it does not.

    A link stays, and what it leads to is replaced. A device or a pipe cannot be replaced: it is written as it is.
    """
    if _is_special(path):
        with open(path, "wb") as file:
            yield file
        return
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    fd, part = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".part", dir=folder)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fchmod(fd, 0o666 & ~_umask())
            os.fsync(fd)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class Rows:
    """Rows that come in any order, and are written to `path` in input order. A row takes 16 bytes of memory.

    Meanwhile they stand in a nameless file beside `path`, which nothing needs to remove.
    """

    def __init__(self, path: str) -> None:
        """Raises ConfigError if nothing can be written beside `path`."""
        self._path = path
        folder = None if _is_special(path) else os.path.dirname(os.path.realpath(path))
        try:
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `write`)
        except OSError as error:
            raise ConfigError("--out", path, error.strerror or str(error)) from None
        self._index, self._ends = array("q"), array("q", [0])

    @property
    def number(self) -> int:
        """Rows so far."""
        return len(self._index)

    def add(self, index: int, line: bytes) -> None:
        """Keep the row of the shard at `index`. Raises OSError if the disk is full."""
        self._spool.write(line)
        self._index.append(index)
        self._ends.append(self._ends[-1] + len(line))

    def write(self) -> None:
        """Write all rows, whole or not at all. Raises OSError if that fails."""
        order = sorted(range(len(self._index)), key=self._index.__getitem__)
        with replacing(self._path) as file, self._spool as spool:
            for place in order:
                start, end = self._ends[place], self._ends[place + 1]
                if spool.tell() != start:
                    spool.seek(start)
                file.write(spool.read(end - start))
