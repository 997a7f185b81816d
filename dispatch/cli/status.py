"""How far a run is, told from its journal: while it goes on in another process, or after it has ended or was killed."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from glob import glob

import msgspec
from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from dispatch.cli.console import console as new_console
from dispatch.cli.console import plain
from dispatch.cli.ending import ALL_DONE, command_line, say_json
from dispatch.record.archive import Archive, Run
from dispatch.record.progress import Progress, clock, counts_text, view
from dispatch.terms.errors import ConfigError
from dispatch.terms.event import WorkerState

__all__ = ("Status", "find_work_dir", "look", "status")

LOOK = 0.5  # seconds between two looks; the run writes no oftener
STYLES = {"running": "bold green", "finished": "green", "interrupted": "bold magenta", "killed": "bold red"}


class Status(Struct, frozen=True, kw_only=True):
    """One look at a work_dir, as the run told it at the wall time `at`.

    Times are in seconds; `rate` and `left` are None where nobody can tell.
    """

    work_dir: str
    state: str
    run: Run
    counts: dict[str, int]
    total: int
    total_known: bool
    reused: int
    seconds: float
    rate: float | None
    left: float | None
    at: float | None
    workers: tuple[WorkerState, ...]


def status(work_dir: str | None, *, watch: bool = False, as_json: bool = False) -> int:
    """Print one look, or with `watch` go on until the run ends. Raises JournalError if there is no journal."""
    path = find_work_dir() if work_dir is None else work_dir
    with Archive.open(path) as archive:
        progress = Progress()
        if as_json:
            _print_json(archive, progress, watch=watch)
            return ALL_DONE
        console = new_console()
        seen = look(archive, progress)
        if watch and seen.state == "running":
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while seen.state == "running":
                    live.update(_shown(seen, progress, console), refresh=True)
                    time.sleep(LOOK)
                    seen = look(archive, progress)
        console.print(_shown(seen, progress, console))
        for line in _next(seen):
            console.print(plain(line), soft_wrap=True)  # so that a command can be copied
    return ALL_DONE


def _print_json(archive: Archive, progress: Progress, *, watch: bool) -> None:
    while True:
        seen = look(archive, progress)
        say_json(msgspec.json.encode(seen) + b"\n")
        if not watch or seen.state != "running":
            return
        time.sleep(LOOK)


def find_work_dir() -> str:
    """The current directory if it is a work_dir, else the newest one in it or in ./runs.

    Raises ConfigError if there is none.
    """
    found = glob("journal.db") or glob("*/journal.db") + glob("runs/*/journal.db")
    if not found:
        raise ConfigError("WORK_DIR", None, "name one; there is none here, nor in ./runs")
    return os.path.dirname(max(found, key=_written_at)) or "."


def _written_at(path: str) -> float:
    """When a database was written last: what is new stands in its write-ahead log."""
    with suppress(FileNotFoundError):
        return max(os.path.getmtime(path), os.path.getmtime(path + "-wal"))
    return os.path.getmtime(path)


def look(archive: Archive, progress: Progress) -> Status:
    """What the newest run of a work_dir is now; `progress` sees it too. Raises ConfigError if there was none."""
    run, live = archive.last_run(), archive.live()
    if run is None:
        raise ConfigError("WORK_DIR", archive.work_dir, "its journal holds no run yet")
    if live is None or run.state == "killed":  # what it last said may be half a second older than its record
        counts, total, known = archive.counts(), archive.total(), False
    else:
        counts, total, known = live.counts, live.total, live.total_known
        if live.expected is not None and live.expected >= total:
            total, known = live.expected, True
    going = run.state == "running"
    progress.total, progress.total_known = total, known
    progress.reused = run.reused if live is None else live.reused
    if live is not None:
        workers = live.snapshot.workers if going else ()
        progress.see(msgspec.structs.replace(live.snapshot, workers=workers), counts)
    progress.counts = counts
    if going:
        progress.tick(time.monotonic())
    return Status(
        work_dir=archive.work_dir,
        state=run.state,
        run=run,
        counts=counts,
        total=total,
        total_known=known,
        reused=progress.reused,
        seconds=live.seconds if live is not None else 0.0,
        rate=progress.rate,
        left=progress.left if going else None,
        at=None if live is None else live.at,
        workers=progress.workers,
    )


def _shown(seen: Status, progress: Progress, console: Console) -> RenderableType:
    run = seen.run
    head = Text.assemble(
        plain(seen.work_dir, "bold"), " is ", (seen.state, STYLES[seen.state]), f"  {_when(seen)}"
    )
    parts: list[RenderableType] = [head]
    if seen.state == "running":
        parts.append(view(progress, width=console.width, height=max(12, console.height - 3)))
    else:
        parts.append(Text(_summary(seen)))
    if run.drift:
        parts.append(plain(f"drift     {run.drift}", "magenta"))
    return Group(*parts)


def _next(seen: Status) -> Iterator[str]:
    """Where to look next."""
    if seen.counts.get("failed"):
        yield f"failures  dispatch show {shlex.quote(seen.work_dir)} --failed"
    if seen.state in ("interrupted", "killed"):
        yield f"resume    {command_line(seen.run.argv)}"


def _when(seen: Status) -> str:
    run = seen.run
    began = _time(run.started_at)
    if seen.state == "running":
        return f"since {began} (process {run.pid} on {run.host})"
    if run.ended_at is None:
        return f"some time after {began} (process {run.pid} on {run.host})"
    return f"since {_time(run.ended_at)}, after {clock(run.ended_at - run.started_at)}"


def _time(at: float) -> str:
    """Wall time: only the time of day if it is of today."""
    told = time.localtime(at)
    today = told[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", told)


def _summary(seen: Status) -> str:
    parts = [
        f"{seen.total:,}{'' if seen.total_known else ' known'} shards",
        counts_text(seen.counts, seen.reused),
    ]
    waiting = seen.total - sum(seen.counts.get(kind, 0) for kind in ("done", "failed", "cancelled"))
    if waiting > 0:
        parts.append(f"{waiting:,} without an outcome")
    return ": ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])
