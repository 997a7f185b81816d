"""What `engines/base.py` promises, one function each; its first line is the promise. `contract.py` runs them."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio

from dispatch.testing.proof import MOMENT, require, until
from dispatch.testing.script import (
    Daemon,
    Die,
    Exit,
    Hang,
    Identify,
    Raise,
    Step,
    Succeed,
    Touch,
    UnreadyRunner,
    WaitFor,
    play,
)
from dispatch.testing.stage import MakeEngine, Stage, on_stage
from dispatch.testing.traces import is_alive, processes
from dispatch.wire import frames

__all__ = ("CONTAINMENT", "ENGINE_PROMISES", "EnginePromise")

RELEASING = 5.0  # seconds in which what was kept for a worker has to go
EnginePromise = Callable[[MakeEngine], Awaitable[None]]


def _ended_once(stage: Stage, worker: int = 0, *, lives: int = 1) -> None:
    ends = len(stage.host.all(frames.Ended, worker))
    require(ends == lives, f"{ends} ends of worker {worker} were told for {lives} lives")


async def a_life_begins_with_ready(make_engine: MakeEngine) -> None:
    """A life's first frame is Ready, and what is sent to it then is run, and told on the event loop."""
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Succeed("a")), play(Raise()), play(Succeed("b")))
        await stage.see(lambda: len(stage.host.done()) == 2, "the scripts were not run")
        told = stage.host.told[0].said
        require(isinstance(told, frames.Ready), f"the first thing told is {told!r}")
        require(stage.host.done() == [(first, "a"), (first + 2, "b")], f"delivered {stage.host.done()}")
        require(stage.host.failed() == [first + 1], f"failed {stage.host.failed()}")
        require(not stage.host.off_loop, f"called from outside the event loop: {stage.host.off_loop}")


async def a_failed_start_is_told(make_engine: MakeEngine) -> None:
    """A life that cannot begin says why, by NotReady or with its end, and ends once."""
    async with on_stage(make_engine) as stage:
        stage.start(runner=UnreadyRunner)
        await stage.see_end()
        reasons = [frame.fault for frame in stage.host.all(frames.NotReady)] + stage.host.faults()
        said = [str(reason) + reason.traceback for reason in reasons if reason is not None]
        require(any(UnreadyRunner.reason in text for text in said), f"the reason is not in {said}")
        require(not stage.host.all(frames.Ready), "a worker whose setup raised was called ready")
        await anyio.sleep(MOMENT)
        _ended_once(stage)


async def a_runner_is_told_before_its_end(make_engine: MakeEngine) -> None:
    """What a runner sent is told in its order, all of it before its end, and nothing after."""
    number = 300
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(*[play(Succeed("x" * 1000)) for _ in range(number)])
        stage.engine.send(0, frames.Bye())
        await stage.see_end()
        await anyio.sleep(MOMENT)
        seqs = [seq for seq, _ in stage.host.done()]
        back = [seq for frame in stage.host.all(frames.Back) for seq in frame.seqs]
        require(seqs == sorted(seqs), "outcomes were told in another order than they were sent")
        missing = set(range(first, first + number)) - {*seqs, *back}
        require(not missing, f"{len(missing)} of {number} shards were never told")
        require(isinstance(stage.host.told[-1].said, frames.Ended), "something was told after the end")
        _ended_once(stage)


async def bye_ends_a_life_in_peace(make_engine: MakeEngine) -> None:
    """After Bye a runner finishes what it has, and its life ends by itself, with nothing running."""
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate), Succeed("done")))
        await stage.see_file("began")
        stage.engine.send(0, frames.Bye())
        stage.open_gate()
        ended = await stage.see_end()
        require(stage.host.done() == [(first, "done")], "what the runner had in hand was not finished")
        require((ended.why, ended.seq) == ("", 0), f"the end says {ended!r}")


async def a_fence_holds(make_engine: MakeEngine) -> None:
    """No attempt below a fence starts once it is up; `last` is the newest that had; what runs goes on."""
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(
            play(Touch(stage.path("began")), WaitFor(stage.gate), Succeed("ran")),
            play(Touch(stage.path("never")), Succeed("started below the fence")),
        )
        await stage.see_file("began")
        second = stage.give(play(Touch(stage.path("never")), Succeed("started below the fence")))
        stage.engine.fence(0, stage.seq)
        await stage.see(lambda: stage.host.all(frames.Fenced), "the fence was not answered")
        fenced = stage.host.all(frames.Fenced)[0]
        require(fenced.last == first, f"the newest attempt started was {first}, the fence says {fenced.last}")
        require(fenced.upto == second + 1, f"a fence at {second + 1} was asked for, {fenced.upto} was told")
        stage.open_gate()
        beyond = stage.give(play(Succeed("beyond")))
        await stage.see(lambda: len(stage.host.done()) >= 2, "the shard beyond the fence was not run")
        require(stage.host.done() == [(first, "ran"), (beyond, "beyond")], f"delivered {stage.host.done()}")
        require(not stage.exists("never"), "an attempt below the fence was started")


async def a_fence_kills_only_what_it_names(make_engine: MakeEngine) -> None:
    """A fence kills a runner that runs one of `kill`, and leaves one alone that runs something else."""
    async with on_stage(make_engine) as stage:
        for worker in (0, 1):
            stage.start(worker)
            await stage.ready(worker)
        scripts = [play(Touch(stage.path(f"began{n}")), WaitFor(stage.gate), Succeed(n)) for n in (0, 1)]
        first = stage.give(scripts[0], play(Succeed()), worker=0)
        other = stage.give(scripts[1], worker=1)
        await stage.see_file("began0")
        await stage.see_file("began1")
        stage.engine.fence(0, stage.seq, kill=[first + 1])
        stage.engine.fence(1, stage.seq, kill=[other])
        ended = await stage.see_end(1)
        require(ended.seq == other, f"attempt {other} ran at the end, {ended.seq} was told")
        await stage.see(lambda: stage.host.all(frames.Fenced), "the fence was not answered")
        stage.open_gate()
        await stage.see(stage.host.done, "a runner that runs nothing of `kill` did not go on")
        require(not stage.host.all(frames.Ended), "a runner that runs nothing of `kill` was killed")


async def kill_ends_a_life_once(make_engine: MakeEngine) -> None:
    """`kill` ends a life at once, tells what ran, and tells it once; nothing that it ran is told later."""
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate), Succeed("too late")))
        await stage.see_file("began")
        stage.engine.kill(0)
        stage.engine.kill(0)
        ended = await stage.see_end()
        require(ended.seq == first, f"attempt {first} ran at the end, {ended.seq} was told")
        require(ended.why == "killed", f"the end was asked for, and says {ended.why!r}")
        stage.open_gate()
        await anyio.sleep(MOMENT)
        require(not stage.host.done(), "a killed runner delivered")
        _ended_once(stage)


async def one_life_follows_another(make_engine: MakeEngine) -> None:
    """A worker whose life has ended can be launched again, by kill or in peace, and works again."""
    async with on_stage(make_engine) as stage:
        for life in (1, 2, 3):
            stage.start()
            await stage.ready(lives=life)
            stage.give(play(Succeed(life)))
            await stage.see(lambda: len(stage.host.done()) == life, f"life {life} did not work")  # noqa: B023  (awaited here)
            if life == 1:
                stage.engine.kill(0)
            else:
                stage.engine.send(0, frames.Bye())
            await stage.see_end(lives=life)
            _ended_once(stage, lives=life)


async def the_dead_hear_nothing(make_engine: MakeEngine) -> None:
    """What is sent to a worker that is dead, or never was, is lost without an error."""
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        stage.engine.kill(0)
        await stage.see_end()
        for worker in (0, 7):
            stage.give(play(Succeed("from the dead")), worker=worker)
            stage.engine.fence(worker, stage.seq, kill=[1])
            stage.engine.kill(worker)
        await anyio.sleep(MOMENT)
        require(not stage.host.done(), "a dead worker ran a shard")
        _ended_once(stage)
        require(not stage.host.all(frames.Ended, 7), "a worker that never lived has ended")


async def workers_are_apart(make_engine: MakeEngine) -> None:
    """The end of one worker does not touch another."""
    async with on_stage(make_engine) as stage:
        for worker in (0, 1):
            stage.start(worker)
        await stage.ready(0)
        await stage.ready(1)
        stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate), Succeed("alive")), worker=1)
        await stage.see_file("began")
        stage.engine.kill(0)
        await stage.see_end(0)
        stage.open_gate()
        await stage.see(lambda: stage.host.done(1), "the other worker's shard was lost")
        require(not stage.host.all(frames.Ended, 1), "the other worker has ended, too")


async def closing_is_bounded(make_engine: MakeEngine) -> None:
    """`aclose` ends workers that are busy, idle or starting, in bounded time, and leaves nothing behind."""
    async with on_stage(make_engine) as stage:
        for worker in (0, 1):
            stage.start(worker)
            await stage.ready(worker)
        stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate)))
        await stage.see_file("began")
        stage.start(2)


async def a_cancelled_opening_leaves_nothing(make_engine: MakeEngine) -> None:
    """Cancelling `open` leaves nothing behind, and nothing that stands in the way of the next one."""
    engine = make_engine()
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await engine.open(tasks, Stage(engine, "").host)
        if not scope.cancelled_caught:  # it never waited: then it is open
            await engine.aclose()
    await a_life_begins_with_ready(make_engine)


async def a_released_worker_keeps_nothing(make_engine: MakeEngine) -> None:
    """After `release` nothing is kept for a worker whose life has ended, and the others go on."""
    async with on_stage(make_engine) as stage:
        for worker in (0, 1):
            stage.start(worker)
            await stage.ready(worker)
        both = len(processes())
        stage.engine.send(0, frames.Bye())
        await stage.see_end(0)
        stage.engine.release(0)
        fewer = await until(lambda: len(processes()) <= both / 2, within=RELEASING)
        require(fewer, f"two workers were {both} processes, one is {len(processes())}")
        stage.give(play(Succeed("alive")), worker=1)
        await stage.see(lambda: stage.host.done(1), "the other worker was let go, too")


# What an engine adds that says it contains faults.


async def a_death_is_told_exactly(make_engine: MakeEngine) -> None:
    """A runner that dies or stops by itself costs its life: the exact exit code or signal, and what ran, are told."""
    cases: list[tuple[Step, int | None, int | None]] = [
        (Exit(7), 7, None),
        (Die(signal.SIGSEGV), None, signal.SIGSEGV),
        (Die(signal.SIGSTOP), None, signal.SIGSTOP),
    ]
    async with on_stage(make_engine) as stage:
        for life, (step, code, number) in enumerate(cases, 1):
            stage.start()
            await stage.ready(lives=life)
            running = 1 + stage.give(play(Succeed(life)), play(step), play(Succeed("never")))
            ended = await stage.see_end(lives=life)
            require(ended.seq == running, f"{step} ran as attempt {running}, {ended.seq} was told")
            require((ended.exit_code, ended.signal) == (code, number), f"{step} was told as {ended!r}")


async def a_deadline_ends_a_runner(make_engine: MakeEngine) -> None:
    """A shard over its timeout costs its life, soon after the deadline, with the stack that shows where it hung."""
    async with on_stage(make_engine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Hang(spinning=True)), timeout=0.3)
        ended = await stage.see_end()
        require((ended.why, ended.seq) == ("timed_out", first), f"told as {ended!r}")
        require(ended.at - ended.started >= 0.3, "it was killed before its deadline")
        require(ended.at - ended.started < 5.0, "it was killed long after its deadline")
        require("_hang" in ended.stack, f"the stack does not show where it hung: {ended.stack!r}")


async def the_whole_tree_goes(make_engine: MakeEngine) -> None:
    """With a life goes its whole tree: a daemon in a session of its own, too, by kill and in peace."""
    async with on_stage(make_engine) as stage:
        for life in (1, 2):
            stage.start()
            await stage.ready(lives=life)
            stage.give(play(Daemon(stage.path(f"daemon{life}")), Identify()))
            daemon = await stage.see_file(f"daemon{life}")
            await stage.see(lambda: len(stage.host.done()) == life, "the script did not end")  # noqa: B023  (awaited here)
            runner = stage.host.done()[-1][1]["pid"]
            require(is_alive(daemon), "the daemon did not live to be killed")
            if life == 1:
                stage.engine.kill(0)
            else:
                stage.engine.send(0, frames.Bye())
            await stage.see_end(lives=life)
            for pid in (runner, daemon):
                gone = await until(lambda: not is_alive(pid), within=2.0)  # noqa: B023  (awaited here)
                require(gone, f"process {pid} outlived its life")


ENGINE_PROMISES: tuple[EnginePromise, ...] = (
    a_life_begins_with_ready,
    a_failed_start_is_told,
    a_runner_is_told_before_its_end,
    bye_ends_a_life_in_peace,
    a_fence_holds,
    a_fence_kills_only_what_it_names,
    kill_ends_a_life_once,
    one_life_follows_another,
    the_dead_hear_nothing,
    workers_are_apart,
    a_released_worker_keeps_nothing,
    closing_is_bounded,
    a_cancelled_opening_leaves_nothing,
    a_death_is_told_exactly,
    a_deadline_ends_a_runner,
    the_whole_tree_goes,
)
CONTAINMENT: frozenset[EnginePromise] = frozenset(
    {a_death_is_told_exactly, a_deadline_ends_a_runner, the_whole_tree_goes}
)
