"""What became of shards, from the journal: attempts, traceback, stack and output, for a person to read."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatch.cli import rows
from dispatch.cli.console import console as new_console
from dispatch.cli.console import plain
from dispatch.cli.ending import ALL_DONE, FAILURES, warn
from dispatch.record.archive import Archive, Record
from dispatch.record.progress import clock, counts_text, printable
from dispatch.terms.outcome import Attempt, Fault

__all__ = ("show",)

LONG = 2_000  # characters of a payload or a value that are shown
LISTED = 20  # shards in the overview


def show(
    work_dir: str,
    shard: str | None = None,
    *,
    failed: bool = False,
    cause: str | None = None,
    limit: int = LISTED,
) -> int:
    """Print one shard, failures with all evidence, or an overview; the exit code is 1 if there is none such.

    `limit` failures at most; 0: all. Raises JournalError if there is no journal.
    """
    console = new_console(soft_wrap=True)
    with Archive.open(work_dir) as archive:
        if shard is not None:
            found = archive.find(shard)
        elif failed or cause is not None:
            records = archive.outcomes(kind="failed", cause=cause)
            found = list(islice(records, limit or None))
        else:
            _overview(archive, console)
            return ALL_DONE
        for number, record in enumerate(found):
            if number:
                console.print()
            _whole(record, console)
        if not found:
            warn(f"dispatch: no such shard in {work_dir}" + (f": {shard}" if shard is not None else ""))
            return FAILURES
        if shard is None and limit and len(found) == limit:
            counts = archive.counts()
            more = counts.get("failed" if cause is None else cause, 0) - limit
            if more > 0:
                console.print(Text(f"\nand {more:,} more; --limit 0 shows all", style="dim"))
    return ALL_DONE


def _overview(archive: Archive, console: Console) -> None:
    runs = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("run", "state", "began", "took", "shards", "reused"):
        runs.add_column(name, no_wrap=True, justify="left" if name in ("state", "began") else "right")
    runs.add_column("runner")  # the one that may be wrapped
    for run in archive.runs()[-LISTED:]:
        took = "" if run.ended_at is None else clock(run.ended_at - run.started_at)
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started_at))
        names = [f"{name} (version {version})" for name, version in run.runners.items()]
        names += [f"drift: {run.drift}"] if run.drift else []
        runs.add_row(
            str(run.id), run.state, began, took, f"{run.total:,}", f"{run.reused:,}", ", ".join(names)
        )
    console.print(runs, soft_wrap=False)
    counts = archive.counts()
    console.print(f"\n{archive.total():,} shards: {counts_text(counts)}")
    rest = list(islice(archive.outcomes(kind="failed"), LISTED))
    if not rest:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("shard", "cause", "fault"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for record in rest:
        table.add_row(plain(record.name), record.cause, plain(_line(record.fault)))
    console.print()
    console.print(table, soft_wrap=False)
    more = counts.get("failed", 0) - len(rest)
    if more > 0:
        console.print(Text(f"and {more:,} more", style="dim"))
    name = rest[0].name
    words = [archive.work_dir, *(["--"] if name.startswith("-") else []), name]  # or it would be an option
    console.print(f"\none of them: dispatch show {printable(shlex.join(words))}")


def _line(fault: Fault | None) -> str:
    return "" if fault is None else str(fault).removeprefix(f"{fault.cause}: ")


def _whole(record: Record, console: Console) -> None:
    style = {"done": "bold green", "failed": "bold red"}.get(record.kind, "bold magenta")
    kind = f"{record.kind or 'no outcome yet'}{f': {record.cause}' if record.cause else ''}"
    console.print(Text.assemble(("shard ", "dim"), plain(record.name, "bold"), "  ", (kind, style)))
    console.print(Text.assemble(("payload   ", "dim"), plain(_short(record.payload))))
    if record.kind == "done":
        console.print(Text.assemble(("value     ", "dim"), plain(_short(record.value))))
    if record.lost:
        console.print(Text(f"lost {record.lost} times, when its run was killed", style="magenta"))
    attempts = record.attempts
    for number, attempt in enumerate(attempts, 1):
        console.print(Text.assemble((f"attempt {number} ", "dim"), plain(_attempt(attempt))))
        if attempt.fault is not None and attempt.fault != record.fault:
            _evidence(attempt.fault, console)
    if record.fault is not None:
        _evidence(record.fault, console)


def _attempt(attempt: Attempt) -> str:
    began = time.strftime("%H:%M:%S", time.localtime(attempt.started_at))
    said = f"{attempt.runner} in process {attempt.pid} at {began}, ran {clock(attempt.seconds)}"
    return f"{said}, waited {clock(attempt.queued)}: {attempt.fault.cause if attempt.fault else 'done'}"


def _evidence(fault: Fault, console: Console) -> None:
    console.print(plain(f"  {_line(fault)}", "red"))
    for name, text in _texts(fault):
        console.print(Text(f"  {name}", style="bold"))
        for line in text.rstrip().splitlines():
            console.print(plain(f"    {line}"))


def _texts(fault: Fault) -> Iterator[tuple[str, str]]:
    if fault.signal is not None or fault.exit_code is not None:
        yield (
            "ended by",
            f"signal {fault.signal}" if fault.signal is not None else f"exit code {fault.exit_code}",
        )
    for name in ("traceback", "stack", "output"):
        text: str = getattr(fault, name)
        if text:
            yield name, text


def _short(value: Any) -> str:
    text = rows.as_text(value)
    return text if len(text) <= LONG else f"{text[:LONG]}... ({len(text):,} characters)"
