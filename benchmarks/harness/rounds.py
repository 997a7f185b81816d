"""Entries to samples: each in a fresh process, in an order that alternates, and none twice at once.

The parent only waits. A child that fails or takes too long costs its own sample, which says why.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import msgspec
from msgspec.structs import replace

from benchmarks.contenders import find
from benchmarks.harness.row import Entry, Line, Sample, Table, median

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds for one child
FAREWELL = 0.3  # seconds for what it leaves behind, such as the process that removes its semaphores

TRIAL = ", one by one"  # tried once, and shown beside the best chunk

Tell = Callable[[str], None]


def row_of(name: str) -> Any:
    """The module of a row."""
    module: ModuleType = import_module(f"benchmarks.{name}")
    return module


def play(name: str, *, tiny: bool, tell: Tell) -> Table:
    """Measure a row: settle the chunk sizes, then as many rounds as the row wants."""
    row = row_of(name)
    table = Table(name)
    for entry in row.entries(tiny):
        table.lines.extend(_settled(table, entry, tell))
    chosen = [line for line in table.lines if not line.entry.name.endswith(TRIAL)]
    if tiny:
        with ThreadPoolExecutor(4) as hands:  # side by side: nobody reads the figures
            for line, sample in zip(
                chosen, hands.map(partial(run, name), [line.entry for line in chosen]), strict=True
            ):
                line.samples.append(sample)
    for turn in range(0 if tiny else row.REPEATS):
        for line in chosen if turn % 2 == 0 else reversed(chosen):
            if len(line.samples) >= min(row.REPEATS, find(line.entry.contender).runs):
                continue
            tell(f"{name}: {line.entry.name}, {turn + 1} of {row.REPEATS}")
            line.samples.append(run(name, line.entry))
    table.goals = [
        replace(goal, met=None) if tiny else goal for goal in row.goals(table)
    ]  # a few prove nothing
    return table


def _settled(table: Table, entry: Entry, tell: Tell) -> list[Line]:
    """The entry with its best chunk, and what it does one by one if that is another thing."""
    if len(entry.chunks) == 1:
        return [Line(entry=entry)]
    tried: list[Line] = []
    for chunk in entry.chunks:
        tell(f"{table.row}: {entry.name}, trying chunks of {chunk}")
        trial = replace(entry, chunks=(chunk,), name=entry.name + TRIAL)
        tried.append(Line(entry=trial, samples=[run(table.row, trial)]))
    answered = [line for line in tried if line.values] or tried[:1]
    pick = max if row_of(table.row).BETTER == "more" else min
    best = pick(answered, key=lambda line: median(line.values))
    chunk = best.entry.chunk
    by_hand = " by hand" if find(entry.contender).by_hand else ""
    said = "one by one, its best" if chunk == 1 else f"chunks of {chunk}{by_hand}"
    settled = Line(entry=replace(best.entry, name=f"{entry.name}, {said}"), samples=best.samples)
    return [settled, *(line for line in tried if line.entry.chunk == 1 and chunk != 1)]


def run(name: str, entry: Entry) -> Sample:
    """One sample from one fresh process."""
    command = [sys.executable, "-m", "benchmarks.harness.child", name, msgspec.json.encode(entry).decode()]
    # Files, not pipes: what a pool leaves behind would hold a pipe open. A session: so that it can be ended.
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complained,
            start_new_session=True,
        )
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return Sample(error=f"no answer within {PATIENCE:.0f} s")
        finally:
            _end(child)
        answer, words = _lines(said), _lines(complained)
    if child.returncode or not answer:
        return Sample(error=f"exit code {child.returncode}: {words[-1] if words else 'no word'}")
    return msgspec.json.decode(answer[-1], type=Sample)


def _end(child: subprocess.Popen[bytes]) -> None:
    """No process of the child's session is left: those that clear up after it get a moment, the others are killed."""
    child.kill()
    child.wait()
    until = time.monotonic() + FAREWELL
    with suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(child.pid, 0)
            time.sleep(0.005)
        os.killpg(child.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """Ours, with compiled modules kept: else a cold start would measure the compiler."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _lines(file: IO[bytes]) -> list[str]:
    file.seek(0)
    return file.read().decode(errors="replace").strip().splitlines()


def run_child(name: str, encoded: str) -> str:
    """In the child: measure, and say what came of it."""
    import anyio

    entry = msgspec.json.decode(encoded, type=Entry)
    backend = find(entry.contender).backend
    options = {"use_uvloop": True} if entry.uvloop else {}
    sample = anyio.run(row_of(name).measure, entry, backend=backend, backend_options=options)
    return msgspec.json.encode(sample).decode()
