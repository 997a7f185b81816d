"""Tables to Markdown and JSON. Losing rows stay, and a missing one says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.harness.rounds import row_of
from benchmarks.harness.row import Goal, Line, Table, median, quantile

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
VERDICTS = {True: "met", False: "**missed**", None: ""}


def markdown(machine: Mapping[str, str], tables: Sequence[Table]) -> str:
    """Where, the goals, and a table for each row."""
    parts = ["\n".join(f"* {name}: {said}" for name, said in machine.items()), _goals(tables)]
    parts += [_table(table) for table in tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(tables: Sequence[Table]) -> str:
    rows = [_goal(table.row, goal) for table in tables for goal in table.goals]
    return "\n".join(["| row | goal | seen | |", "|---|---|---:|---|", *rows]) if rows else ""


def _goal(row: str, goal: Goal) -> str:
    return f"| {row} | {goal.text} | {goal.seen} | {VERDICTS[goal.met]} |"


def _table(table: Table) -> str:
    row = row_of(table.row)
    extras = getattr(row, "EXTRAS", ())
    heads = ["", "n", "runs", "min", "median", "p99", *extras]
    lines = sorted(table.lines, key=lambda line: _rank(line, row.BETTER))
    question = row.__doc__.strip()
    head = [f"### {table.row}", "", question, "", f"In {row.UNIT}; the best first.", ""]
    body = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*head, *body, *(_line(line, extras) for line in lines)])


def _rank(line: Line, better: str) -> tuple[str, float]:
    """Lines that ask the same thing stand together, the best first, failed ones last."""
    kind, colon, _ = line.entry.name.partition(": ")
    middle = median(line.values)
    if math.isnan(middle):
        middle = math.inf
    elif better == "more":
        middle = -middle
    return (kind if colon else "", middle)


def _line(line: Line, extras: Sequence[str]) -> str:
    if not line.values:
        return f"| {line.entry.name} | | | | *{line.error or 'not measured'}* | |" + " |" * len(extras)
    values = line.values
    figures = [values[0], median(values), quantile(values, 0.99), *map(line.extra, extras)]
    name = f"**{line.entry.name}**" if line.entry.contender == "ours" else line.entry.name
    runs = sum(bool(sample.values) for sample in line.samples)
    return f"| {name} | {line.n:,} | {runs} | " + " | ".join(map(number, figures)) + " |"


def number(value: float) -> str:
    """Three significant digits, none of them invented."""
    if math.isnan(value):
        return ""
    if value >= 100:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.3g}"


def into(text: str, results: str) -> str:
    """A page with the results between its two marks renewed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{results}\n{END}{after}"


def json(machine: Mapping[str, str], tables: Sequence[Table]) -> bytes:
    """The same for programs: figures for each line and run, not each of thousands of calls."""
    rows = {
        table.row: {
            "unit": row_of(table.row).UNIT,
            "goals": table.goals,
            "lines": [_figures(line) for line in table.lines],
        }
        for table in tables
    }
    return msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": rows}), indent=2)


def _figures(line: Line) -> dict[str, Any]:
    values = line.values
    return {
        "name": line.entry.name,
        "contender": line.entry.contender,
        "options": line.entry.options,
        "chunk": line.entry.chunk,
        "n": line.n,
        "min": values[0] if values else None,
        "median": median(values) if values else None,
        "p99": quantile(values, 0.99) if values else None,
        "runs": [{"median": median(run.values), **run.extra} for run in line.samples if run.values],
        "error": line.error,
    }
