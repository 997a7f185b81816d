"""A run as a person sees it while it goes on: from events and snapshots to a few lines. Changes nothing.

`Progress` counts what events say; `lines` shows it as plain text, `view` as what rich prints (an extra, imported
there only). The same view serves a run that another process does, from what its journal holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dispatch.terms.event import (
    Draining,
    Event,
    Opened,
    Progressed,
    Retrying,
    Settled,
    Snapshot,
    WorkerEnded,
    WorkerReady,
    WorkerState,
)
from dispatch.terms.outcome import Cancelled, Done, Failed

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ("Progress", "clock", "counts_text", "printable", "rate_text", "size_text", "view")

WINDOW = 30.0  # seconds over which the rate is measured that an ETA rests on
WIDE = 120  # columns beyond which a longer bar says no more
IN_SHARD = 10_000  # shards whose own progress is remembered
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class Progress:
    """What is known of a run: its counts by kind and cause, its pace, and what each worker does."""

    def __init__(self, total: int | None = None) -> None:
        """`total` shards, None if nobody knows."""
        self.total, self.total_known = total, total is not None  # unless known, there may be more
        self.counts: dict[str, int] = {}
        self.reused = self.retried = self.died = 0
        self.starting = 0  # workers of which none is ready yet
        self.draining = False
        self.workers: tuple[WorkerState, ...] = ()
        self.seconds = 0.0
        self._within: dict[str, tuple[float, float | None]] = {}
        self._pace: deque[tuple[float, int]] = deque()
        self._overall: float | None = None

    @property
    def finished(self) -> int:
        """Shards that are Done or Failed: what was cancelled is still to be run."""
        return self.counts.get("done", 0) + self.counts.get("failed", 0)

    @property
    def causes(self) -> dict[str, int]:
        """Failures by cause, the most common first."""
        rest = {
            name: n for name, n in self.counts.items() if name not in ("done", "failed", "cancelled") and n
        }
        return dict(sorted(rest.items(), key=lambda item: -item[1]))

    @property
    def coverage(self) -> float | None:
        """Done shards as a share of all; of the finished ones where the total is not known; None of none."""
        of = self.total or self.finished
        return self.counts.get("done", 0) / of if of else None

    def hear(self, event: Event) -> None:
        """Count what an event says."""
        match event:
            case Settled(outcomes=outcomes):
                self._settle(outcomes)
            case Progressed(shard_id=shard, done=done, total=total):
                if len(self._within) >= IN_SHARD:
                    self._within.clear()
                self._within[shard] = (done, total)
            case Retrying():
                self.retried += 1
            case WorkerEnded(expected=False):
                self.died += 1
            case Draining():
                self.draining = True
            case Opened(workers=workers):
                self.starting = workers
            case WorkerReady():
                self.starting = 0
            case _:
                pass

    def _settle(self, outcomes: list[Any]) -> None:
        counts = self.counts
        for outcome in outcomes:
            kind = KINDS[type(outcome)]
            counts[kind] = counts.get(kind, 0) + 1
            if isinstance(outcome, Failed):
                counts[outcome.fault.cause] = counts.get(outcome.fault.cause, 0) + 1
            self.reused += outcome.reused
            if self._within:
                self._within.pop(outcome.shard_id, None)

    def see(self, snapshot: Snapshot, counts: Mapping[str, int] | None = None) -> None:
        """Take in what a centre does now; `counts` by kind and cause where no events were heard."""
        self.workers, self.seconds = snapshot.workers, snapshot.seconds
        self.draining = self.draining or snapshot.draining
        if counts is not None:
            self.counts = dict(counts)
            self._overall = snapshot.rate

    def tick(self, now: float) -> None:
        """Measure the pace at the monotonic time `now`."""
        self._pace.append((now, self.finished - self.reused))
        while len(self._pace) > 2 and self._pace[0][0] < now - WINDOW:
            self._pace.popleft()

    @property
    def rate(self) -> float | None:
        """Shards finished per second lately, without what came from a journal; None before anything is known."""
        if len(self._pace) < 2:
            return self._overall
        (began, before), (ended, after) = self._pace[0], self._pace[-1]
        return (after - before) / (ended - began) if ended > began else None

    @property
    def left(self) -> float | None:
        """Seconds until all shards are finished at this rate; None if nobody can tell."""
        if self.total is None or not self.total_known or not self.rate or self.draining:
            return None
        return max(0.0, self.total - self.finished) / self.rate

    def within(self, shard: str) -> str:
        """How far a shard says it is: "30/100"; "" if it says nothing."""
        if shard not in self._within:
            return ""
        done, total = self._within[shard]
        return f"{done:g}/{total:g}" if total is not None else f"{done:g}"

    def line(self) -> str:
        """Everything in one line of plain text."""
        return ", ".join(self._facts())

    def _facts(self) -> Iterator[str]:
        yield (
            f"{self.finished:,} of {self.total:,}"
            if self.total is not None
            else f"{self.finished:,} finished"
        )
        yield counts_text(self.counts, self.reused)
        if self.rate is not None and not self.starting:
            yield rate_text(self.rate)
        if self.left is not None and self.left > 0:
            yield f"{clock(self.left)} left"
        if self.starting:
            yield f"starting {self.starting} workers"
        if self.draining:
            yield "draining"


KINDS: dict[type, str] = {Done: "done", Failed: "failed", Cancelled: "cancelled"}


def counts_text(counts: Mapping[str, int], reused: int = 0) -> str:
    """`7 done (2 reused), 3 failed (raised 2, timed_out 1), 1 cancelled`."""
    parts = [f"{counts.get('done', 0):,} done" + (f" ({reused:,} reused)" if reused else "")]
    if counts.get("failed"):
        parts.append(f"{counts['failed']:,} failed ({causes_text(causes_of(counts))})")
    if counts.get("cancelled"):
        parts.append(f"{counts['cancelled']:,} cancelled")
    return ", ".join(parts)


def causes_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Failures by cause, the most common first, of counts by kind and cause."""
    causes = {name: n for name, n in counts.items() if name not in KINDS.values() and n}
    return dict(sorted(causes.items(), key=lambda item: -item[1]))


def causes_text(causes: Mapping[str, int]) -> str:
    """`raised 3, timed_out 1`."""
    return ", ".join(f"{cause} {number:,}" for cause, number in causes.items())


def rate_text(rate: float) -> str:
    """Shards per second, or per minute where that says more."""
    if rate and rate < 0.5:
        return f"{rate * 60:.1f}/min"
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def clock(seconds: float) -> str:
    """`4.2 s`, `3:07`, `2:03:07`, `3 d 2 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def size_text(size: float) -> str:
    """Bytes as a person reads them: `812 B`, `45 MB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def printable(text: str) -> str:
    """A text whose control characters are told, so that a terminal does not obey them."""
    return text.translate(CONTROLS)


def view(progress: Progress, *, width: int, height: int, title: str = "") -> RenderableType:
    """The live view, at most `height` lines of `width` columns."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = (
        [Text(printable(title), style="dim", no_wrap=True, overflow="ellipsis")] if title else []
    )
    parts += [_bar(progress, width), _figures(progress)]
    if progress.draining:
        text = "draining: nothing new starts; Ctrl-C again stops what runs"
        parts.append(Text(text, style="bold magenta", no_wrap=True, overflow="ellipsis"))
    room = height - len(parts) - 2  # the head of the table, and a line below
    if progress.workers and room > 0:
        parts.append(_workers(progress, room, width))
    return Group(*parts)


def _bar(progress: Progress, width: int) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    finished, total = progress.finished, progress.total
    known = "" if progress.total_known else "+"
    of = f"{finished:,}/{total:,}{known}" if total is not None else f"{finished:,}"
    pace = rate_text(progress.rate) if progress.rate and not progress.starting else ""
    left = "" if progress.left is None else f"{clock(progress.left)} left"
    share = f"{finished / total:4.0%}" if total else ""
    row = Table.grid(padding=(0, 1))
    row.width = min(width, WIDE)
    row.add_column(ratio=1)
    for _ in range(4):
        row.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(
        total=total or None,
        completed=finished,
        pulse=not total,
        style="bright_black",
        width=None if width > 60 else 10,
        complete_style="green",
        finished_style="green",
        animation_time=progress.seconds,
    )
    row.add_row(bar, Text(share, style="bold"), of, pace, left)
    return row


def _figures(progress: Progress) -> RenderableType:
    from rich.text import Text

    if progress.starting:
        return Text(f"starting {progress.starting} workers", style="cyan")
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"done {progress.counts.get('done', 0):,}", style="green")
    if progress.coverage is not None:
        text.append(f"  coverage {progress.coverage:.1%}")
    if progress.reused:
        text.append(f"  reused {progress.reused:,}", style="cyan")
    if progress.counts.get("failed"):
        text.append(f"  failed {progress.counts['failed']:,}", style="bold red")
        text.append(f" ({causes_text(progress.causes)})", style="red")
    if progress.counts.get("cancelled"):
        text.append(f"  cancelled {progress.counts['cancelled']:,}", style="magenta")
    if progress.retried:
        text.append(f"  retries {progress.retried:,}")
    if progress.died:
        text.append(f"  workers lost {progress.died:,}", style="magenta")
    return text


def _workers(progress: Progress, room: int, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("worker", no_wrap=True, max_width=max(12, width // 4))
    wide = width >= 60
    if wide:
        table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("shard", no_wrap=True, max_width=max(12, width // 3))
    table.add_column("for", justify="right", no_wrap=True)
    if wide:
        table.add_column("memory", justify="right", no_wrap=True)
    workers = progress.workers
    if len(workers) > room:  # those that run one shard for the longest time say most
        workers = tuple(
            sorted(workers, key=lambda each: -(each.seconds if each.shard_id is not None else 0.0))
        )
    for each in workers[: room if len(workers) <= room else room - 1]:
        memory = [size_text(each.rss) if each.rss else ""] if wide else []
        pid = [str(each.pid) if each.pid else ""] if wide else []
        named, does = (Text(printable(text)) for text in (each.runner, doing(each, progress)))  # never markup
        table.add_row(named, *pid, does, _since(each), *memory)
    if len(workers) > room:
        table.add_row(f"and {len(workers) - room + 1} more", style="dim")
    return table


def doing(worker: WorkerState, progress: Progress | None = None) -> str:
    """What a worker does, in a word or two: the id of its shard, and how far it is."""
    if worker.shard_id is not None:
        within = progress.within(worker.shard_id) if progress is not None else ""
        return f"{worker.shard_id}  {within}".rstrip()
    if worker.state != "ready":
        return worker.state
    return "busy" if worker.in_flight else "idle"


def _since(worker: WorkerState) -> str:
    return clock(worker.seconds) if worker.seconds or worker.shard_id is not None else ""
