"""What is seen meanwhile: a bar for each kind on a terminal, a plain line now and then elsewhere."""

import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

Advancer = Generator[Callable[[str], None], None, None]
_LINE_EVERY = 200


@contextmanager
def live(totals: Mapping[str, int]) -> Advancer:
    """Call what this yields with the kind of each candidate that has been graded."""
    with (_bars if sys.stdout.isatty() else _lines)(totals) as advance:
        yield advance


@contextmanager
def _lines(totals: Mapping[str, int]) -> Advancer:
    seen = Counter[str]()

    def advance(kind: str) -> None:
        seen[kind] += 1
        done, total = seen.total(), sum(totals.values())
        if done % _LINE_EVERY == 0 or done == total:
            print(f"graded {done} of {total}", flush=True)

    yield advance


@contextmanager
def _bars(totals: Mapping[str, int]) -> Advancer:
    # Here, because workers re-run the main module and should not pay for rich.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        tasks = {kind: progress.add_task(kind, total=total) for kind, total in totals.items()}
        yield lambda kind: progress.advance(tasks[kind])
