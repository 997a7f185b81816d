"""Measure rows, and say what came out: `python -m benchmarks [NAME ...] [--tiny] [--json FILE]`.

Without names: every row; then the results go into benchmarks/README.md, results.json and throughput.svg.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.harness import machine, report
from benchmarks.harness.picture import picture
from benchmarks.harness.rounds import play

HOME = Path(__file__).parent
ROWS = (
    *("throughput", "submit", "latency", "cpu_bound", "big_results", "shared_param", "cold_start"),
    *(
        "lazy_million",
        "loop_lag",
        "humaneval",
        "cost",
        "cost_of_safety",
        "journal",
        "resume",
        "shard_duration",
    ),
)


def main(argv: list[str]) -> int:
    """The exit code: 0, or 2 if a row has no single sample."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--tiny", action="store_true", help="few shards, few contenders: does it run at all?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(ROWS):
        parser.error(f"no row is called {', '.join(sorted(unknown))}; there are: {', '.join(ROWS)}")
    where = machine.describe()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the child of the moment goes too
    tables = [play(name, tiny=args.tiny, tell=_tell) for name in args.names or ROWS]
    where["load after"] = machine.load()
    _tell("")
    results = report.markdown(where, tables)
    print(results)
    if args.json:
        args.json.write_bytes(report.json(where, tables))
    if not args.names and not args.tiny:
        keep(results, report.json(where, tables))
        (HOME / "throughput.svg").write_text(picture(tables[-1]), encoding="utf-8")
    return 0 if all(any(line.values for line in table.lines) for table in tables) else 2


def keep(results: str, figures: bytes) -> None:
    """Publish: the page, and the figures beside it."""
    page = HOME / "README.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(report.into(text, results), encoding="utf-8")
    (HOME / "results.json").write_bytes(figures + b"\n")


def _tell(words: str) -> None:
    """What is measured now, on a terminal in one line that is overwritten."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
