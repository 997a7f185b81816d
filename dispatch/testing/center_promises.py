"""What every centre promises of its shards: outcomes, order, reading, retries, faults.

One function for each promise; the first line of its docstring is the promise. `contract.py` runs them, and those
of `door_promises.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from dispatch.terms.config import Policy, Retry
from dispatch.terms.outcome import Done, Failed
from dispatch.testing.cast import Cast, CenterPromise
from dispatch.testing.proof import MOMENT, require
from dispatch.testing.script import (
    Die,
    Exit,
    Hang,
    Identify,
    Postpone,
    Raise,
    Script,
    Sleep,
    Step,
    Succeed,
    Surrender,
    in_turn,
    play,
)

__all__ = ("CONTAINMENT", "SHARD_PROMISES", "ReadTooFar")


def _mixed(number: int) -> list[Script]:
    """Scripts of which the 4th of every five raises, and the 5th cannot be encoded."""
    kinds: list[Step] = [Succeed("fine"), Succeed("fine"), Succeed("fine"), Raise(), Succeed(object())]
    return [play(kinds[n % 5]) for n in range(number)]


async def each_shard_has_one_outcome(cast: Cast) -> None:
    """Every shard has exactly one outcome, of its own kind: Done, or Failed with its cause."""
    number = 200
    expected = {n: ["done", "done", "done", "raised", "undeliverable"][n % 5] for n in range(number)}
    report = await cast.center(_mixed(number)).run()
    async with cast.center(_mixed(number)).stream() as outcomes:
        streamed = [outcome async for outcome in outcomes]
    for how, found in (("run", report.outcomes), ("stream", streamed)):
        indexes = sorted(outcome.index for outcome in found)
        require(indexes == sorted(set(indexes)), f"{how}: a shard has two outcomes")
        require(
            indexes == list(range(number)), f"{how}: {number - len(indexes)} of {number} outcomes are missing"
        )
        kinds = {each.index: each.fault.cause if isinstance(each, Failed) else "done" for each in found}
        require(kinds == expected, f"{how}: a shard's outcome is not its own")
    require((report.total, report.total_known) == (number, True), f"the report's total is {report.total}")
    require(report.counts["done"] + report.counts["failed"] == number, f"the report counts {report.counts}")


async def order_is_kept(cast: Cast) -> None:
    """A report's outcomes, and those of an ordered stream, stand in the order of the input."""
    scripts = [play(Sleep(0.08 if n == 0 else 0.0), Succeed(n)) for n in range(40)]
    report = await cast.center(scripts).run()
    require(report.values() == list(range(40)), f"run: {report.values()}")
    async with cast.center(scripts).stream(ordered=True) as outcomes:
        values = [outcome.unwrap() async for outcome in outcomes]
    require(values == list(range(40)), f"stream(ordered=True): {values}")


class ReadTooFar(Exception):
    """The source was read further ahead of its consumer than it may be."""


class _Endless:
    """A source without an end, which complains when it is read more than `ahead` shards before they are taken."""

    def __init__(self, ahead: int) -> None:
        self.ahead, self.read, self.taken = ahead, 0, 0

    def __iter__(self) -> Iterator[Script]:
        while True:
            self.read += 1
            if self.read - self.taken > self.ahead:
                raise ReadTooFar(f"{self.read} shards were read while {self.taken} outcomes were taken")
            yield play(Succeed(self.read))

    async def one_by_one(self) -> AsyncIterator[Script]:
        """The same as an async source."""
        for script in self:
            yield script


async def an_endless_source_is_read_lazily(cast: Cast) -> None:
    """A source without an end can be streamed, sync or async; it is read at most `max_pending` ahead."""
    for kind in ("sync", "async"):
        source = _Endless(
            ahead=2 * 32 + 1
        )  # as many may have been read and not run as may wait for the consumer
        shards: Any = source if kind == "sync" else source.one_by_one()
        async with cast.center(max_pending=32).stream(shards) as outcomes:
            async for outcome in outcomes:
                require(isinstance(outcome, Done), f"{kind}: {outcome!r}")
                source.taken += 1
                if source.taken == 300:
                    break
        require(source.taken == 300, f"{kind}: the stream ended after {source.taken} outcomes")


async def the_consumers_pace_is_the_brake(cast: Cast) -> None:
    """While a consumer takes nothing, the source is not read; when it goes on, so does the reading."""
    source = _Endless(ahead=2 * 16 + 1)
    async with cast.center(max_pending=16).stream(source) as outcomes:
        async for _ in outcomes:
            source.taken += 1
            if source.taken in (1, 50):
                await anyio.sleep(MOMENT)
                before = source.read
                await anyio.sleep(MOMENT)
                require(source.read == before, "the source was read while the consumer stood still")
            if source.taken == 100:
                break
    require(source.taken == 100, f"the stream ended after {source.taken} outcomes")


async def retries_keep_their_budget(cast: Cast) -> None:
    """A shard that raises is run `retry.attempts` times at most, each attempt knowing its number; all are told."""
    scripts = [
        in_turn(play(Raise()), play(Raise("KeyError", ["k"])), play(Identify())),
        play(Raise()),
        play(Identify()),
    ]
    report = await cast.center(scripts, policy=Policy(retry=Retry(attempts=3))).run()
    third, never, first = report.outcomes
    require(
        isinstance(third, Done) and third.value["attempt"] == 3,
        f"the third attempt was to succeed: {third!r}",
    )
    told = [attempt.fault.type if attempt.fault else "" for attempt in third.attempts]
    require(told == ["ValueError", "KeyError", ""], f"the attempts told are {told}")
    require(isinstance(never, Failed), f"a shard that always raises is {never!r}")
    require(len(never.attempts) == 3, f"3 attempts were allowed, {len(never.attempts)} were made")
    require(len(first.attempts) == 1, f"a shard that succeeded was run {len(first.attempts)} times")


async def runners_steer_their_retries(cast: Cast) -> None:
    """GiveUp ends a shard without another attempt; RetryLater asks for one then, within the budget."""
    scripts = [play(Surrender("no use")), in_turn(play(Postpone(0.2)), play(Identify())), play(Postpone(0.0))]
    report = await cast.center(scripts, policy=Policy(retry=Retry(attempts=2))).run()
    gave_up, later, always = report.outcomes
    require(isinstance(gave_up, Failed) and "no use" in gave_up.fault.message, f"GiveUp made {gave_up!r}")
    require(len(gave_up.attempts) == 1, f"a shard that gave up was run {len(gave_up.attempts)} times")
    require(isinstance(later, Done) and later.value["attempt"] == 2, f"RetryLater made {later!r}")
    waited = later.attempts[1].started_at - later.attempts[0].started_at
    require(waited >= 0.19, f"RetryLater(0.2) was followed by an attempt {waited:.3f} s later")
    require(
        isinstance(always, Failed) and len(always.attempts) == 2, f"RetryLater passed its budget: {always!r}"
    )


async def faults_cost_themselves_only(cast: Cast) -> None:
    """A shard that exits, dies or hangs is Failed with its cause; all others are Done at their first attempt."""
    bad: dict[int, tuple[Script, str]] = {
        3: (play(Exit(7)), "crashed"),
        11: (play(Die()), "crashed"),
        17: (play(Hang(spinning=True)), "timed_out"),
        23: (play(Exit(2, softly=True)), "raised"),
    }
    scripts = [bad[n][0] if n in bad else play(Succeed(n)) for n in range(40)]
    report = await cast.center(scripts, policy=Policy(timeout=1.0, crash_budget=1)).run()
    for outcome in report.outcomes:
        if outcome.index in bad:
            cause = outcome.fault.cause if isinstance(outcome, Failed) else "done"
            require(cause == bad[outcome.index][1], f"shard {outcome.index} is {outcome!r}")
        else:
            require(isinstance(outcome, Done), f"an innocent shard is {outcome!r}")
            require(len(outcome.attempts) == 1, f"an innocent shard was charged: {outcome.attempts}")
    exited = report.outcomes[3]
    require(isinstance(exited, Failed) and exited.fault.exit_code == 7, f"Exit(7) was told as {exited!r}")


SHARD_PROMISES: tuple[CenterPromise, ...] = (
    each_shard_has_one_outcome,
    order_is_kept,
    an_endless_source_is_read_lazily,
    the_consumers_pace_is_the_brake,
    retries_keep_their_budget,
    runners_steer_their_retries,
    faults_cost_themselves_only,
)
CONTAINMENT: frozenset[CenterPromise] = frozenset({faults_cost_themselves_only})
