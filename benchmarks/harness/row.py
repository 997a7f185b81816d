"""The words of a benchmark. A row asks one question of several entries; each answer is a sample.

A row is a module with: a docstring whose first line is the question; `UNIT`; `BETTER` ("more" or "less");
`REPEATS`; `entries(tiny)`; `async measure(entry)`, which runs in a child; and `goals(table)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

BARE = "bare"
OURS = "ours"


class Entry(Struct, frozen=True, kw_only=True):
    """One contender in one way of using it. `chunks`: sizes to try, of which the best is kept."""

    name: str
    contender: str
    options: dict[str, Any] = {}
    chunks: tuple[int, ...] = (1,)
    uvloop: bool = False
    tiny: bool = False

    @property
    def chunk(self) -> int:
        """The one size to use, once it is settled."""
        return self.chunks[0]


class Sample(Struct, kw_only=True):
    """What one child measured: `values` in the row's unit, out of `n` shards; or why it could not."""

    n: int = 0
    values: list[float] = []
    extra: dict[str, Any] = {}
    error: str = ""


class Line(Struct, kw_only=True):
    """All samples of one entry."""

    entry: Entry
    samples: list[Sample] = []

    @property
    def values(self) -> list[float]:
        """Every value of every sample, smallest first."""
        return sorted(value for sample in self.samples for value in sample.values)

    @property
    def n(self) -> int:
        """How many shards a sample is made of."""
        return max((sample.n for sample in self.samples), default=0)

    @property
    def error(self) -> str:
        """Why a sample is missing."""
        return next((sample.error for sample in self.samples if sample.error), "")

    def extra(self, name: str) -> float:
        """The median over the samples of one of the things measured beside; nan if there is none."""
        return median([sample.extra[name] for sample in self.samples if name in sample.extra])


class Goal(Struct, frozen=True):
    """What we promised ourselves, what came out, and whether that is enough (None: not measured)."""

    text: str
    seen: str
    met: bool | None


class Table(Struct):
    """The lines of one row."""

    row: str
    lines: list[Line] = []
    goals: list[Goal] = []

    def find(self, name: str) -> Line | None:
        """The line of that name, if it has been measured."""
        return next((line for line in self.lines if line.entry.name == name and line.values), None)

    def middle(self, name: str) -> float:
        """The median of a line; nan if it was not measured."""
        line = self.find(name)
        return median(line.values) if line else math.nan

    def peers(self, *, by_hand: bool = True) -> list[Line]:
        """The measured lines that are neither ours nor bare; with or without those whose chunks are made by hand."""
        measured = [line for line in self.lines if line.values and line.entry.contender not in (OURS, BARE)]
        return [line for line in measured if by_hand or "by hand" not in line.entry.name]


def median(values: Sequence[float]) -> float:
    """The middle one; nan of none."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all reach down to; between two middles, their mean."""
    ranked = sorted(values)
    if not ranked:
        return math.nan
    place = share * len(ranked)
    index = math.ceil(place) - 1
    if share == 0.5 and place == int(place) and len(ranked) > 1:
        return (ranked[index] + ranked[index + 1]) / 2
    return ranked[max(0, index)]


def goal(text: str, value: float, *, at_least: float = -math.inf, at_most: float = math.inf) -> Goal:
    """A goal that is one number between two bounds."""
    if math.isnan(value):
        return Goal(text, "not measured", None)
    bounded = at_least > -math.inf or at_most < math.inf
    return Goal(text, f"{value:,.3g}", at_least <= value <= at_most if bounded else None)


def most(lines: Sequence[Line]) -> float:
    """The largest median among lines; nan of none."""
    return max((median(line.values) for line in lines), default=math.nan)


def least(lines: Sequence[Line]) -> float:
    """The smallest median among lines; nan of none."""
    return min((median(line.values) for line in lines), default=math.nan)
