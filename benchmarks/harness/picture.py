"""Throughput against shard duration, as an SVG that needs no library: a line for each contender."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.harness.row import BARE, OURS, Table

WIDTH, HEIGHT = 860, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 210, 40, 50
TITLE = "Shards per second against the duration of a shard: peers with their best chunk"
COLOURS = (
    "#1c7ed6",
    "#2f9e44",
    "#f08c00",
    "#9c36b5",
    "#0c8599",
    "#e8590c",
    "#5c940d",
    "#6741d9",
    "#868e96",
    "#495057",
)

Points = Mapping[float, float]


def picture(table: Table) -> str:
    """The lines of `shard_duration`; empty if nothing was measured."""
    series = {
        line.entry.name: {float(at): rate for at, rate in sample.extra["points"].items()}
        for line in table.lines
        for sample in line.samples[:1]
        if sample.extra
    }
    if not series:
        return ""
    kinds = {line.entry.name: line.entry.contender for line in table.lines}
    return _drawn(series, kinds)


def _drawn(series: Mapping[str, Points], kinds: Mapping[str, str]) -> str:
    ticks = sorted({at for points in series.values() for at in points})
    top = max(rate for points in series.values() for rate in points.values())
    low = min(rate for points in series.values() for rate in points.values())
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(top)) + 1)
    across, up = _across(ticks), _up(decades[0], decades[-1])
    parts = [
        _text(LEFT, 20, TITLE, anchor="start"),
    ]
    for decade in decades:
        y = up(10.0**decade)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dee2e6"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{10**decade:,}", anchor="end"))
    parts += [_text(across(at), HEIGHT - BOTTOM + 20, f"{at:g} ms") for at in ticks]
    colours = iter(COLOURS * 2)
    ranked = sorted(series, key=lambda name: -series[name].get(0.0, 0.0))
    for place, name in enumerate(ranked):
        style = _style(kinds[name], colours)
        spots = " ".join(f"{across(at):.1f},{up(rate):.1f}" for at, rate in sorted(series[name].items()))
        parts.append(f'<polyline points="{spots}" fill="none" {style}/>')
        y = TOP + 18 * place
        parts.append(f'<line x1="{WIDTH - 190}" x2="{WIDTH - 165}" y1="{y}" y2="{y}" {style}/>')
        parts.append(_text(WIDTH - 158, y + 4, name, anchor="start"))
    body = "\n".join(parts)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    look = 'font-family="sans-serif" font-size="12"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {look}>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _style(contender: str, colours: object) -> str:
    if contender == OURS:
        return 'stroke="#e03131" stroke-width="3.5"'
    if contender == BARE:
        return 'stroke="black" stroke-width="1.5" stroke-dasharray="6 4"'
    return f'stroke="{next(colours)}" stroke-width="1.5"'  # type: ignore[call-overload]


def _across(ticks: Sequence[float]):
    """Durations at equal distances: they are chosen by decades, and 0 has no logarithm."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(ticks) - 1)
    places = {at: LEFT + step * index for index, at in enumerate(ticks)}
    return places.__getitem__


def _up(low: int, high: int):
    span = HEIGHT - TOP - BOTTOM
    return lambda rate: HEIGHT - BOTTOM - span * (math.log10(rate) - low) / max(1, high - low)


def _text(x: float, y: float, words: str, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#212529">{escape(words)}</text>'
