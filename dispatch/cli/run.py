"""One run, from a centre to an exit code: what is seen meanwhile, what is written, and what is said at the end."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import msgspec
from msgspec.structs import replace

from dispatch.center.base import DispatchCenter
from dispatch.center.registry import RunnerType
from dispatch.cli import rows
from dispatch.cli.ending import ALL_DONE, FAILURES, INTERRUPTED, USAGE, command_line, say_json, warn
from dispatch.cli.options import Asked
from dispatch.cli.plan import plan_lines
from dispatch.cli.shards import ShardFile
from dispatch.cli.watch import Watcher
from dispatch.record.progress import Progress
from dispatch.terms.errors import ConfigError
from dispatch.terms.report import Report

__all__ = ("perform", "plan")


def perform(asked: Asked, *, out: str | None = None, as_json: bool = False) -> int:
    """Run what was asked for, say what came of it, and give the exit code. Raises what `ending.told` tells."""
    config = asked.configuration()
    if config.runner_type == RunnerType.DUMMY.value:
        return plan(asked, as_json=as_json)
    if out is not None:
        rows.check_out(out, source=asked.shards)
    center = asked.center(config)
    with _shards(asked, center) as file:
        if not _checked(file, skip_bad=asked.skip_bad):
            return USAGE
        report = _written(center, file, asked, out=out, as_json=as_json)
    _conclude(report, work_dir=config.work_dir, out=out, as_json=as_json)
    return _exit_code(report)


def plan(asked: Asked, *, as_json: bool = False) -> int:
    """Say what a run would do, without starting a worker; the exit code is 1 if a shard could not be delivered."""
    config = replace(asked.configuration(), runner_type=RunnerType.DUMMY.value)
    center = asked.center(config)
    with _shards(asked, center) as file:
        if not _checked(file, skip_bad=asked.skip_bad):
            return USAGE
        report = anyio.run(partial(center.run, file))
    found = report.plan
    if found is None:  # a centre of the user's, registered as "dummy"
        raise ConfigError("runner_type", config.runner_type, "this centre makes no plan")
    if as_json:
        say_json(msgspec.json.encode(found) + b"\n")
    else:
        _print(*plan_lines(found))
    return FAILURES if found.problems else ALL_DONE


@contextmanager
def _shards(asked: Asked, center: DispatchCenter[Any, Any]) -> Generator[ShardFile | None]:
    file = asked.shard_file(center)
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def _checked(file: ShardFile | None, *, skip_bad: bool) -> bool:
    """Read all shards once; whether they may be run. Says which lines are bad."""
    if file is None:
        return True
    file.check()
    if not file.bad:
        return True
    warn(*map(str, file.shown))
    if file.bad > len(file.shown):
        warn(f"and {file.bad - len(file.shown):,} more bad lines")
    if file.broken:
        warn("dispatch: nothing was run; what is behind the last of these lines cannot be read")
        return False
    if skip_bad:
        warn(f"dispatch: {file.bad:,} bad lines left out, {file.total:,} shards remain")
    else:
        warn("dispatch: nothing was run; mend these lines, or leave them out with --skip-bad")
    return skip_bad


def _written(
    center: DispatchCenter[Any, Any], file: ShardFile | None, asked: Asked, *, out: str | None, as_json: bool
) -> Report[Any]:
    """Run it, and write what came of it, also if the run ended by an error."""
    kept = None if out is None else rows.Rows(out)
    progress = Progress(None if file is None else file.total)
    title = asked.target if asked.shards is None else f"{asked.target}  {asked.shards}"
    watcher = Watcher(progress, out=kept, as_json=as_json, title=title)
    try:
        report = _run(center, file, watcher)
    except BaseException:
        if kept is not None and kept.number:  # a run that never began leaves an older file as it is
            kept.write()
        raise
    if kept is not None:
        kept.write()
    return report


def _run(center: DispatchCenter[Any, Any], shards: Any, watcher: Watcher) -> Report[Any]:
    """Run it to its end, or until it is interrupted; the first signal drains, the second stops.

    Raises what `center.run` raises, and OSError if outcomes could not be written (it stops then).
    """
    center.on_event = watcher.hear
    work = partial(_watched, center, shards, watcher)
    return anyio.run(work, backend_options={"use_uvloop": sys.platform != "win32"})


async def _watched(center: DispatchCenter[Any, Any], shards: Any, watcher: Watcher) -> Report[Any]:
    watching = asyncio.create_task(watcher.watch(center))
    try:
        report = await center.run(shards, collect=False, handle_signals=True)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    if watcher.error is not None:
        raise watcher.error
    return report


def _conclude(report: Report[Any], *, work_dir: str | None, out: str | None, as_json: bool) -> None:
    """Say what came of it, and where to look next."""
    if as_json:
        say_json(json_report(report))
        return
    _print(str(report))
    after: list[str] = []
    if out is not None:
        after.append(f"outcomes  {out}")
    if work_dir is not None and report.counts.get("failed"):
        after.append(f"failures  dispatch show {shlex.quote(work_dir)} --failed")
    if _exit_code(report) == INTERRUPTED:
        after.append(
            "nothing was recorded: with --work-dir DIR the same command would go on where it stopped"
            if work_dir is None
            else f"resume    {command_line()}"
        )
    if after:
        _print("", *after)


def json_report(report: Report[Any]) -> bytes:
    """A report as one line of JSON, without its outcomes."""
    told = {
        "event": "report",
        "counts": report.counts,
        "total": report.total,
        "total_known": report.total_known,
        "reused": report.reused,
        "coverage": report.coverage,
        "seconds": report.seconds,
        "interrupted": report.interrupted,
        "workers": report.workers,
    }
    return msgspec.json.encode(told) + b"\n"


def _print(*lines: str) -> None:
    for line in lines:
        print(line)  # noqa: T201  (a program's word to its user)
    sys.stdout.flush()


def _exit_code(report: Report[Any]) -> int:
    if report.total_known and report.counts.get("done", 0) == report.total:
        return ALL_DONE
    return INTERRUPTED if report.interrupted else FAILURES
