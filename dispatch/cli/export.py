"""Recorded outcomes for other programs: JSON lines, CSV or Parquet, in the order of the shards that have one."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import IO, Any, Literal, TypeAlias

from dispatch.cli import rows
from dispatch.cli.ending import ALL_DONE
from dispatch.record.archive import Archive
from dispatch.terms.errors import ConfigError

__all__ = ("Format", "export")

Format: TypeAlias = Literal["jsonl", "csv", "parquet"]
COLUMNS = ("id", "index", "outcome", "value", "cause", "type", "message", "attempts", "seconds")
GROUP = 10_000  # rows of a Parquet row group


def export(work_dir: str, *, format: Format = "jsonl", out: str | None = None, payloads: bool = False) -> int:
    """Write the outcomes to `out`, whole or not at all, or to stdout.

    Raises JournalError if there is no journal, ConfigError if `out` cannot be a file, or if Parquet is asked for
    on stdout or without pyarrow.
    """
    if format == "parquet" and out is None:
        raise ConfigError("--out", None, "a Parquet file needs a name")
    if out is not None:
        rows.check_out(out)
    with Archive.open(work_dir) as archive, _opened(out) as file:
        told = _rows(archive, payloads=payloads)
        columns = (*COLUMNS, "payload") if payloads else COLUMNS
        if format == "csv":
            _csv(told, file, columns)
        elif format == "parquet":
            _parquet(told, file, columns)
        else:
            file.writelines(map(rows.encode, told))
    return ALL_DONE


@contextmanager
def _opened(out: str | None) -> Generator[IO[bytes]]:
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with rows.replacing(out) as file:
            yield file


def _rows(archive: Archive, *, payloads: bool) -> Iterator[dict[str, Any]]:
    for record in archive.outcomes():
        if record.kind:
            told = rows.recorded(record)
            yield {**told, "payload": record.payload} if payloads else told


def _csv(told: Iterator[dict[str, Any]], file: IO[bytes], columns: tuple[str, ...]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        for row in told:
            writer.writerow(_flat(row, columns))
    finally:
        text.detach()  # the file is closed by who opened it


def _parquet(told: Iterator[dict[str, Any]], file: IO[bytes], columns: tuple[str, ...]) -> None:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise ConfigError("--format", "parquet", "it needs pyarrow: pip install pyarrow") from None
    kinds = {"index": arrow.int64(), "attempts": arrow.int64(), "seconds": arrow.float64()}
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in columns])
    with parquet.ParquetWriter(file, schema) as writer:
        while bunch := [_flat(row, columns) for row in islice(told, GROUP)]:
            writer.write_table(arrow.Table.from_pylist(bunch, schema))


def _flat(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """A row of plain cells: a value that is no text is JSON, so that it can be read back."""
    fault = row.get("fault", {})
    cells = {**row, "type": fault.get("type"), "message": fault.get("message")}
    for name in ("value", "payload"):
        if cells.get(name) is not None and not isinstance(cells[name], str):
            cells[name] = rows.as_text(cells[name])
    return {name: cells.get(name) for name in columns}
