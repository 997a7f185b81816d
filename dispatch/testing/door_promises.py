"""What every centre promises of its doors: submit, several at once, leaving, draining, closing.

One function for each promise, as in `center_promises.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

import anyio

from dispatch.center.base import DispatchCenter
from dispatch.terms.errors import CenterClosed, DuplicateShard
from dispatch.terms.outcome import Cancelled, Done, Failed
from dispatch.terms.report import Report
from dispatch.terms.shard import Shard
from dispatch.testing.cast import Cast, CenterPromise
from dispatch.testing.proof import expected, require, until
from dispatch.testing.script import Identify, Raise, Script, Sleep, Succeed, Touch, WaitFor, play
from dispatch.testing.traces import processes

__all__ = ("DOOR_PROMISES",)

LEAVING = 3.0  # seconds that leaving a door early may take on a loaded machine; the promise is 0.5


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
        with expected(LookupError, "submit returned where its runner raised") as raised:
            await center.submit(play(Raise("LookupError", ["gone"])))
        require(raised[0].args == ("gone",), f"the exception came back as {raised[0]!r}")
        outcome = await center.submit_outcome(play(Raise()))
        require(isinstance(outcome, Failed), f"submit_outcome gave {outcome!r}")
    with expected(CenterClosed, "submit on a closed centre returned"):
        await center.submit(play(Succeed()))


async def doors_are_apart(cast: Cast) -> None:
    """Streams, runs and submits may be under way at once, each with its own outcomes, and none starves another."""
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
        require(
            monotonic() - began < 3.0, "a submit queued behind a stream's read-ahead"
        )  # some 5,000 x 10 ms
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
    """Leaving a stream, cancelling a run, or leaving an open centre by an error ends its processes at once."""
    for way in (_break_out, _cancel, _raise):
        center = cast.center([cast.waiting(way.__name__), *[play(Succeed())] * 50])
        began = await way(cast, center, way.__name__)
        took = monotonic() - began
        require(took < LEAVING, f"leaving early took {took:.1f} s")
        require(await until(lambda: not processes(), within=1.0), f"processes were left: {processes()}")
        cast.open_gate(way.__name__)
        with expected(CenterClosed, "a centre that was left is still open"):
            await center.submit(play(Succeed()))


async def _break_out(cast: Cast, center: DispatchCenter[Any, Any], name: str) -> float:
    async with center.stream():
        await cast.began(name)
        return monotonic()


async def _cancel(cast: Cast, center: DispatchCenter[Any, Any], name: str) -> float:
    began = 0.0
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
    """What a source raises comes out of the door, after the outcomes of the shards before it."""

    def source() -> Iterator[Any]:
        yield from [play(Succeed(n)) for n in range(5)]
        raise LookupError("no more")

    values: list[Any] = []
    with expected(LookupError, "the source raised, and the stream ended as if it had not"):
        async with cast.center(source()).stream(ordered=True) as outcomes:
            async for outcome in outcomes:
                values.append(outcome.unwrap())  # noqa: PERF401  (what came before the error counts)
    require(values == list(range(5)), f"the outcomes before the error were {values}")


async def ids_are_unique(cast: Cast) -> None:
    """Two shards with one id, neither of them finished, are a DuplicateShard that names it, after the first is done."""
    read: list[str] = []
    raised: list[DuplicateShard] = []

    def source() -> Iterator[Any]:
        yield Shard(cast.waiting("twin"), id="twin")
        read.append("both")
        yield Shard(play(Succeed()), id="twin")

    async def run() -> None:
        with expected(DuplicateShard, "two shards had one id, and nobody complained") as errors:
            await cast.center(source()).run()
        raised.extend(errors)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        require(await until(lambda: read), "the source was not read")
        cast.open_gate("twin")
    require(raised[0].shard == "twin", f"the duplicate is called {raised[0].shard!r}")


async def closing_finishes_what_was_accepted(cast: Cast) -> None:
    """Leaving an open centre normally finishes the shards that it has accepted."""
    values: list[Any] = []

    async def ask() -> None:
        values.append(await center.submit(play(Touch(cast.path("began")), Sleep(0.05), Succeed("kept"))))

    async with anyio.create_task_group() as tasks, cast.center() as center:
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


DOOR_PROMISES: tuple[CenterPromise, ...] = (
    submit_gives_the_value,
    doors_are_apart,
    workers_stay_warm,
    leaving_early_leaves_nothing,
    post_process_is_called_once,
    a_broken_source_loses_nothing,
    ids_are_unique,
    closing_finishes_what_was_accepted,
    draining_starts_nothing_new,
)
