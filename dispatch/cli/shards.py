"""Shards from a file: JSON lines, or CSV with a header line, gzipped or not.

A file is read twice: to its end before anything runs, which finds bad lines and the number of shards, and then
lazily, as the centre asks. What cannot be read twice (standard input, a pipe) is first copied to a temporary file.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple, TypeAlias

import msgspec

from dispatch.center.fitting import Fitting, Misfit
from dispatch.terms.errors import ConfigError
from dispatch.terms.shard import Shard

__all__ = ("BadLine", "ShardFile")

KINDS = (".jsonl", ".csv", ".ndjson")
SHOWN = 10  # bad lines that are told one by one

Fit: TypeAlias = Callable[[Any], Any]


class BadLine(NamedTuple):
    """A line that is no shard, and why."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


class ShardFile:
    """The shards of a file, `-` for standard input; each pass over it reads it again.

    After `check`: `total` shards, `bad` lines that are none and are left out, the first of them in `shown`;
    `broken` if the last of them is where reading ends, so that nobody knows what is behind it.
    """

    def __init__(self, path: str, fitting: Fitting, *, id_field: str | None = None) -> None:
        """Open it. Raises ConfigError if it cannot be opened, or its name says no known format."""
        self._name = "stdin" if path == "-" else path
        plain = path.removesuffix(".gz")
        kind = ".jsonl" if path == "-" or path.startswith("/dev/fd/") else os.path.splitext(plain)[1]
        if kind not in KINDS:
            raise ConfigError(
                "--shards", path, "name a file in .jsonl or .csv, also with .gz, or - for stdin"
            )
        self._read = self._csv if kind == ".csv" else self._jsonl
        self._zipped = path.endswith(".gz")
        self._id_field = id_field
        self._fitting = fitting
        self._bytes = _twice(path)
        self.total = self.bad = 0
        self.broken = False
        self.shown: list[BadLine] = []
        self._repeated: set[int] = set()  # lines whose id stands further up

    def close(self) -> None:
        """Let the file go."""
        self._bytes.close()

    def check(self) -> None:
        """Read every line. Takes about 3 s for a million short ones."""
        self.total = self.bad = 0
        self.broken = False
        self.shown = []
        self._repeated = set()
        met: dict[int, int] = {}  # the line of each id, by its hash: 8 bytes, whatever its length
        for number, found in self._lines():
            told = found
            if self._id_field is not None and isinstance(found, Shard):
                first = met.setdefault(hash(found.id), number)
                if first != number:
                    self._repeated.add(number)
                    told = BadLine(self._name, number, f"id {found.id!r} stands on line {first} too")
            if not isinstance(told, BadLine):
                self.total += 1
                continue
            self.bad += 1
            if len(self.shown) < SHOWN or self.broken:
                self.shown.append(told)

    def __len__(self) -> int:
        """The shards of the last `check`."""
        return self.total

    def __iter__(self) -> Iterator[Any]:
        """The shards, bad lines left out."""
        for number, found in self._lines():
            if not isinstance(found, BadLine) and number not in self._repeated:
                yield found

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """By their lines payloads, or Shards where an id is told, and BadLines between them."""
        self._bytes.seek(0)
        file: Any = gzip.GzipFile(fileobj=self._bytes) if self._zipped else self._bytes
        number = 0
        try:
            for number, found in self._read(file):
                yield number, found
        except (csv.Error, EOFError, OSError, zlib.error) as error:
            self.broken = True
            number += 1
            yield number, BadLine(self._name, number, f"cannot be read from here on: {error}")

    def _jsonl(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        fit, decode = self._fitting.fit, msgspec.json.decode
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.isspace():
                continue
            try:
                yield number, self._shard(fit(decode(text)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield number, BadLine(self._name, number, f"not JSON: {error}")
            except Misfit as error:
                yield number, BadLine(self._name, number, str(error))

    def _csv(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        csv.field_size_limit(sys.maxsize)  # of the whole process; a line of JSON may be as long, too
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            rows = csv.DictReader(text, strict=True)
            header = rows.fieldnames or ()
            if not header or len(set(header)) < len(header) or not _is_utf8(header):
                self.broken = True
                yield 1, BadLine(self._name, 1, "the first line must name the columns, each by its own name")
                return
            for row in rows:
                yield rows.line_num, self._row(row, rows.line_num, columns=len(header))
        finally:
            text.detach()  # or it would close the file, which is read again

    def _row(self, row: dict[Any, Any], number: int, *, columns: int) -> Any:
        if None in row or None in row.values():
            return BadLine(self._name, number, f"the header names {columns} columns, and here are others")
        if not _is_utf8(row.values()):
            return BadLine(self._name, number, "not text in UTF-8")
        try:
            return self._shard(self._fitting.fit_text(row), row)
        except Misfit as error:
            return BadLine(self._name, number, str(error))

    def _shard(self, payload: Any, fields: Any = None) -> Any:
        if self._id_field is None:
            return payload
        fields = payload if fields is None else fields
        found: Any = fields.get(self._id_field) if hasattr(fields, "get") else None
        if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
            raise Misfit(f"its field {self._id_field!r} is no id: {found!r}")
        return Shard(payload, id=str(found))


def _is_utf8(cells: Iterable[str]) -> bool:
    """Whether these cells came from UTF-8: a byte that did not stands there as a surrogate, which has no encoding."""
    text = "".join(cells)
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _twice(path: str) -> IO[bytes]:
    """A file that can be read again and again. Raises ConfigError if there is none."""
    try:
        if path == "-":
            return _copy(sys.stdin.buffer)
        file = open(path, "rb")  # noqa: SIM115  (it is read as long as the run)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        with file:
            return _copy(file)
    except OSError as error:
        raise ConfigError("--shards", path, error.strerror or str(error)) from None


def _copy(source: IO[bytes]) -> IO[bytes]:
    copied = tempfile.TemporaryFile()  # noqa: SIM115  (the same)
    shutil.copyfileobj(source, copied)
    return copied
