"""What every centre promises at its doors, one function each; its first line is the promise. `contract.py` runs them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import monotonic
from typing import Any

import anyio

from dispatch.center.base import DispatchCenter
from dispatch.terms.config import DispatchConfig, Policy, Retry
from dispatch.terms.errors import CenterClosed, DuplicateShard
from dispatch.terms.outcome import Cancelled, Done, Failed, Report
from dispatch.terms.shard import Shard
from dispatch.testing.engine_promises import require
from dispatch.testing.script import (
    Die,
    Exit,
    Hang,
    Identify,
    Postpone,
    Raise,
    Script,
    Sleep,
    Succeed,
    Surrender,
    Touch,
    WaitFor,
    in_turn,
    play,
)
from dispatch.testing.traces import processes, until
from dispatch.worker.runner import Target

__all__ = ("CENTER_PROMISES", "Cast", "MakeCenter")

MakeCenter = Callable[..., DispatchCenter[Any, Any]]
LEAVING = 3.0  # seconds that leaving a door early may take on a loaded machine; the promise is 0.5
MOMENT = 0.15  # seconds in which what must not happen is given the chance to


class Cast:
    """Centres of one make, with two workers that play scripts, and a directory for the files of these scripts."""

    def __init__(self, make_center: MakeCenter, runner: Target, directory: str) -> None:
        self._make, self._runner, self.directory = make_center, runner, directory

    def center(self, shards: Any = (), *, policy: Policy | None = None, **config: Any) -> DispatchCenter[Any, Any]:
        """A new centre, not open."""
        settings = DispatchConfig(data_parallel=2, policy=policy or Policy(), **config)
        return self._make(self._runner, shards, config=settings)

    @property
    def contains_faults(self) -> bool:
        """Whether the centre's engine promises that a shard which hangs or crashes costs itself only."""
        return self.center().make_engine().contains_faults

    def path(self, name: str) -> str:
        """Where a file of this name is, or will be."""
        return os.path.join(self.directory, name)

    def waiting(self, name: str) -> Script:
        """A script that says that it has begun, and waits until its gate is opened."""
        return play(Touch(self.path(name)), WaitFor(self.gate(name)), Succeed(name))

    def gate(self, name: str) -> str:
        """The file that such a script waits for."""
        return self.path(f"{name}.gate")

    async def began(self, name: str) -> None:
        """Wait until such a script has begun."""
        require(await until(lambda: os.path.exists(self.path(name))), f"the shard {name} was never run")

    def open_gate(self, name: str) -> None:
        """Let such a script go on; a thread that was abandoned ends by it."""
        with open(self.gate(name), "w"):
            pass


CenterPromise = Callable[[Cast], Awaitable[None]]


def _mixed(number: int) -> list[Script]:
    """Scripts of which the 4th of every five raises, and the 5th cannot be encoded."""
    kinds = [Succeed("fine"), Succeed("fine"), Succeed("fine"), Raise(), Succeed(object())]
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
        require(indexes == list(range(number)), f"{how}: {number - len(indexes)} of {number} outcomes are missing")
        kinds = {each.index: each.fault.cause if isinstance(each, Failed) else "done" for each in found}
        require(kinds == expected, f"{how}: a shard's outcome is not its own")
    require((report.total, report.total_known) == (number, True), f"the report's total is {report.total}")
    require(report.counts["done"] + report.counts["failed"] == number, f"the report counts {report.counts}")


async def order_is_kept(cast: Cast) -> None:
    """A report's outcomes, and those of an ordered stream, stand in the order of the input."""
    scripts = [play(Sleep(0.15 if n == 0 else 0.0), Succeed(n)) for n in range(40)]
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
        source = _Endless(ahead=2 * 32 + 1)  # as many may have been read and not run as may wait for the consumer
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
    require(isinstance(third, Done) and third.value["attempt"] == 3, f"the third attempt was to succeed: {third!r}")
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
    require(isinstance(always, Failed) and len(always.attempts) == 2, f"RetryLater passed its budget: {always!r}")


async def submit_gives_the_value(cast: Cast) -> None:
    """`submit` returns its own shard's value, or raises what the runner raised; on a closed centre CenterClosed."""
    center = cast.center()
    async with center:
        found: dict[int, Any] = {}

        async def ask(number: int) -> None:
            found[number] = await center.submit(play(Succeed(number)))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, number)
        require(found == {n: n for n in range(20)}, f"each submit was to get its own number: {found}")
        try:
            await center.submit(play(Raise("LookupError", ["gone"])))
            require(False, "submit returned where its runner raised")  # noqa: FBT003  (never true)
        except LookupError as error:
            require(error.args == ("gone",), f"the exception came back as {error!r}")
        outcome = await center.submit_outcome(play(Raise()))
        require(isinstance(outcome, Failed), f"submit_outcome gave {outcome!r}")
    try:
        await center.submit(play(Succeed()))
        require(False, "submit on a closed centre returned")  # noqa: FBT003  (never true)
    except CenterClosed:
        pass


async def doors_are_apart(cast: Cast) -> None:
    """Streams, runs and submits may be under way at once, each with its own outcomes; a submit does not queue behind."""
    center, handed = cast.center(), 0
    reports: dict[str, Report[Any]] = {}

    async def run(name: str) -> None:
        reports[name] = await center.run([play(Succeed(f"{name}{n}")) for n in range(30)])

    async with center, center.stream(play(Sleep(0.01), Succeed("s")) for _ in range(10**9)) as outcomes:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "a")
            tasks.start_soon(run, "b")
            async for outcome in outcomes:
                require(outcome.unwrap() == "s", f"the stream was given {outcome!r}")
                handed += 1
                if handed == 3:
                    break
        began, value = monotonic(), await center.submit(play(Succeed("submitted")))
        require(value == "submitted", f"submit was given {value!r}")
        require(monotonic() - began < 3.0, "a submit queued behind a stream's read-ahead")  # some 5,000 x 10 ms
    for name, report in reports.items():
        expected = [f"{name}{n}" for n in range(30)]
        require(report.values() == expected, f"the run {name} was given {report.values()}")


async def workers_stay_warm(cast: Cast) -> None:
    """On an open centre the workers serve one run after another."""
    async with cast.center() as center:
        pids = {
            outcome.unwrap()["pid"]
            for _ in range(3)
            for outcome in (await center.run([play(Identify())] * 10)).outcomes
        }
    require(len(pids) <= 2, f"three runs on two workers were served by {len(pids)} processes")


async def leaving_early_leaves_nothing(cast: Cast) -> None:
    """Leaving a stream, cancelling a run or leaving an open centre by an error stops its shards and processes at once."""
    for way in (_break_out, _cancel, _raise):
        center = cast.center([cast.waiting(way.__name__), *[play(Succeed())] * 50])
        began = await way(cast, center, way.__name__)
        took = monotonic() - began
        require(took < LEAVING, f"leaving early took {took:.1f} s")
        require(await until(lambda: not processes(), within=1.0), f"processes were left: {processes()}")
        cast.open_gate(way.__name__)
        try:
            await center.submit(play(Succeed()))
            require(False, "a centre that was left is still open")  # noqa: FBT003  (never true)
        except CenterClosed:
            pass


async def _break_out(cast: Cast, center: DispatchCenter[Any, Any], name: str) -> float:
    async with center.stream():
        await cast.began(name)
        began = monotonic()
    return began


async def _cancel(cast: Cast, center: DispatchCenter[Any, Any], name: str) -> float:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(center.run)
        await cast.began(name)
        began = monotonic()
        tasks.cancel_scope.cancel()
    return began


async def _raise(cast: Cast, center: DispatchCenter[Any, Any], name: str) -> float:
    began = 0.0
    try:
        async with center, anyio.create_task_group() as tasks:
            tasks.start_soon(center.submit, cast.waiting(name))
            await cast.began(name)
            began = monotonic()
            raise LookupError(name)
    except* LookupError:
        pass
    return began


async def post_process_is_called_once(cast: Cast) -> None:
    """`post_process` is called once for each run, with its report; also when the run was left or cancelled."""
    reports: list[Report[Any]] = []

    async def remember(report: Report[Any]) -> None:
        reports.append(report)

    def listening(shards: list[Script]) -> DispatchCenter[Any, Any]:
        center = cast.center(shards)
        center.post_process = remember  # type: ignore[method-assign]  # whatever its class does there
        return center

    await listening([play(Succeed())] * 3).run()
    require([report.counts for report in reports] == [{"done": 3}], f"after a run: {reports}")
    await _cancel(cast, listening([cast.waiting("cancelled")]), "cancelled")
    require(len(reports) == 2, f"after a run that was cancelled: {len(reports) - 1} calls")
    require(reports[1].interrupted, "a cancelled run's report does not say that it was interrupted")
    await _break_out(cast, listening([cast.waiting("left")]), "left")
    require(len(reports) == 3, f"after a stream that was left: {len(reports) - 2} calls")
    cast.open_gate("cancelled")
    cast.open_gate("left")


async def a_broken_source_loses_nothing(cast: Cast) -> None:
    """What a source raises comes out of the door, after the outcomes of the shards before it; so does a duplicate id."""

    def source() -> Iterator[Any]:
        yield from [play(Succeed(n)) for n in range(5)]
        raise LookupError("no more")

    values: list[Any] = []
    try:
        async with cast.center(source()).stream(ordered=True) as outcomes:
            async for outcome in outcomes:
                values.append(outcome.unwrap())  # noqa: PERF401  (what came before the error counts)
        require(False, "the source raised, and the stream ended as if it had not")  # noqa: FBT003  (never true)
    except LookupError:
        require(values == list(range(5)), f"the outcomes before the error were {values}")
    try:
        await cast.center([Shard(play(Succeed()), id="twin"), Shard(play(Succeed()), id="twin")]).run()
        require(False, "two shards had one id, and nobody complained")  # noqa: FBT003  (never true)
    except DuplicateShard as error:
        require(error.shard == "twin", f"the duplicate is called {error.shard!r}")


async def closing_finishes_what_was_accepted(cast: Cast) -> None:
    """Leaving an open centre normally finishes the shards that it has accepted."""
    values: list[Any] = []

    async def ask() -> None:
        values.append(await center.submit(play(Touch(cast.path("began")), Sleep(0.05), Succeed("kept"))))

    async with anyio.create_task_group() as tasks:
        async with cast.center() as center:
            for _ in range(5):
                tasks.start_soon(ask)
            await cast.began("began")
    require(values == ["kept"] * 5, f"5 shards were accepted, {len(values)} were finished")


async def draining_starts_nothing_new(cast: Cast) -> None:
    """After `drain` what runs is finished, and everything else is Cancelled."""
    scripts = [cast.waiting("running"), *[play(WaitFor(cast.gate("running")), Succeed("ran"))] * 100]
    async with cast.center() as center, center.stream(scripts, ordered=True) as outcomes:
        await cast.began("running")
        center.drain()
        cast.open_gate("running")
        found = [outcome async for outcome in outcomes]
    require(isinstance(found[0], Done), f"the shard that ran is {found[0]!r}")
    cancelled = sum(isinstance(outcome, Cancelled) for outcome in found)
    require(cancelled >= len(found) - 8, f"of {len(found)} shards only {cancelled} were cancelled")


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


CENTER_PROMISES: tuple[CenterPromise, ...] = (
    each_shard_has_one_outcome,
    order_is_kept,
    an_endless_source_is_read_lazily,
    the_consumers_pace_is_the_brake,
    retries_keep_their_budget,
    runners_steer_their_retries,
    submit_gives_the_value,
    doors_are_apart,
    workers_stay_warm,
    leaving_early_leaves_nothing,
    post_process_is_called_once,
    a_broken_source_loses_nothing,
    closing_finishes_what_was_accepted,
    draining_starts_nothing_new,
    faults_cost_themselves_only,
)
CONTAINMENT: frozenset[CenterPromise] = frozenset({faults_cost_themselves_only})


def new_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory for a cast."""
    return tempfile.TemporaryDirectory(prefix="contract-", ignore_cleanup_errors=True)
