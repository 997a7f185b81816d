"""The nanny, driven for real through the process engine. What every engine promises stands in tests/contract."""

import os
import signal

import anyio
import pytest

from dispatch.engines.base import Start
from dispatch.engines.process import ProcessEngine
from dispatch.testing import Daemon, Exit, Hang, Identify, Print, Sleep, Succeed, Touch, WaitFor, play, until
from dispatch.testing.stage import on_stage
from dispatch.testing.traces import is_alive
from dispatch.wire import frames
from dispatch.worker.runner import reference
from dispatch.worker.spec import Lease
from tests.worker.nannies import Greedy, LeavesOrphans, NeverReady, parent_of

pytestmark = pytest.mark.asyncio

NUMBERS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_an_exit_code_is_exact(code) -> None:
    """Whatever a runner process leaves with is told, and the shard that it ran."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Print("last words"), Exit(code)))
        ended = await stage.see_end()
    assert (ended.exit_code, ended.signal, ended.why, ended.seq) == (code, None, "", first)
    assert ended.output == "last words\n"


async def test_a_worker_that_is_not_ready_in_time_is_ended() -> None:
    """A setup that does not end is killed after `startup_timeout`, and the stack shows where it was."""
    async with on_stage(ProcessEngine) as stage:
        stage.start(runner=NeverReady, startup_timeout=1.0)
        ended = await stage.see_end()
    assert ended.why == "startup"
    assert "in setup" in ended.stack


async def test_a_deadline_is_the_shards_own() -> None:
    """The clock starts with the shard, not with the frame: three of 0.3 s at a timeout of 0.5 s are not late."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(*[play(Sleep(0.3), Succeed(n)) for n in range(3)], play(Hang()), timeout=0.5)
        await stage.see(
            lambda: stage.host.all(frames.Back) or stage.host.all(frames.Ended), "nothing came back"
        )
        back = {seq for frame in stage.host.all(frames.Back) for seq in frame.seqs}
        if first + 3 in back:  # a frame that takes long gives back what it has not started
            stage.give(play(Hang()), timeout=0.5)
        ended = await stage.see_end()
    assert {seq for seq, _ in stage.host.done()} | back >= {first, first + 1, first + 2}
    assert ended.why == "timed_out"
    assert 0.5 <= ended.at - ended.started < 3.0
    assert "do_run" in ended.stack


async def test_what_is_done_is_not_held_back_by_what_runs() -> None:
    """An outcome that waits for company is sent when the next shard turns out to be a long one."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Succeed("early")), play(WaitFor(stage.gate), Succeed("late")))
        await stage.see(stage.host.done, "the first outcome was held back")
        assert stage.host.done() == [(first, "early")]
        stage.open_gate()
        await stage.see(lambda: len(stage.host.done()) == 2, "the second shard did not end")


async def test_a_pulse_tells_what_runs() -> None:
    """Now and then the nanny says which attempt runs, since when, and how much memory its process has."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(WaitFor(stage.gate)))
        pulses = stage.host.pulses
        await stage.see(lambda: any(told.said.seq == first for told in pulses), "no pulse told what runs")
        stage.open_gate()
        await stage.see(stage.host.done, "the shard did not end")
        number = len(pulses)
        await stage.see(
            lambda: any(told.said.seq == 0 for told in pulses[number:]), "no pulse told of idling"
        )
    running = next(told.said for told in pulses if told.said.seq == first)
    assert running.since > 0
    assert running.rss > 1024 * 1024


async def test_memory_over_its_limit_ends_a_worker() -> None:
    """A runner process whose private memory passes the limit is killed, and that is told as the reason."""
    async with on_stage(ProcessEngine) as stage:
        lease = Lease(runner=reference(Greedy), memory_limit=150 * 1024 * 1024)
        stage.engine.launch(
            Start(number=0, lease=lease, targets=(Greedy, None), env={}, startup_timeout=30.0)
        )
        await stage.ready()
        first = stage.give(play(Succeed()))
        ended = await stage.see_end()
    assert (ended.why, ended.seq) == ("memory", first)


async def test_orphans_are_reaped_meanwhile() -> None:
    """What shards leave behind and what ends by itself does not stay as a zombie while the worker lives."""
    async with on_stage(ProcessEngine) as stage:
        stage.start(runner=LeavesOrphans)
        await stage.ready()
        for number in range(1, 6):  # one by one: a frame that takes long gives back its rest
            stage.give(play())
            await stage.see(lambda: len(stage.host.done()) == number, "a shard did not end")  # noqa: B023
        nanny, runner = stage.host.done()[0][1], stage.host.all(frames.Ready)[0].pid

        def children() -> list[int]:
            with open(f"/proc/{nanny}/task/{nanny}/children") as file:
                return [int(pid) for pid in file.read().split()]

        assert await until(lambda: children() == [runner]), f"zombies stay: {children()}"


@pytest.mark.parametrize("name", NUMBERS)
async def test_a_nanny_is_deaf_to_the_terminal(name) -> None:
    """Signals that a terminal sends to everybody do not end the nanny, nor what it watches."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        nanny = parent_of(stage.host.all(frames.Ready)[0].pid)
        os.kill(nanny, NUMBERS[name])
        stage.give(play(Identify()))
        await stage.see(stage.host.done, "the worker does not work any more")
        assert parent_of(stage.host.done()[0][1]["pid"]) == nanny


async def test_the_next_life_is_a_fork_of_the_same_nanny() -> None:
    """A worker whose runner died has a new one at once, from the same nanny, and with nothing of the old one."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        stage.give(play(Print("of the first life"), Daemon(stage.path("daemon")), Exit(3)))
        await stage.see_end()
        stage.start()
        await stage.ready(lives=2)
        first, second = (frame.pid for frame in stage.host.all(frames.Ready))
        assert first != second
        nanny = parent_of(second)
        stage.give(play(Exit(4)))
        ended = await stage.see_end(lives=2)
        assert (ended.exit_code, ended.output, ended.life) == (4, "", 2)
        assert not stage.host.all(frames.Output), "something of the first life was left"
        assert is_alive(nanny)
        assert not is_alive(await stage.see_file("daemon"))


async def test_a_nanny_that_is_told_to_stop_takes_everything_along() -> None:
    """Closing ends a runner that spins and its daemon, and the nanny is gone, too."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        nanny = parent_of(runner)
        stage.give(play(Daemon(stage.path("daemon")), Touch(stage.path("spins")), Hang(spinning=True)))
        daemon = await stage.see_file("daemon")
        await stage.see_file("spins")
        with anyio.fail_after(5):
            await stage.engine.aclose()
        assert [pid for pid in (runner, nanny, daemon) if is_alive(pid)] == []


async def test_nonsense_from_the_centre_ends_everything() -> None:
    """A command that a nanny does not know means that something is wrong: it takes its runner's whole tree along."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        nanny = parent_of(runner)
        stage.give(play(Daemon(stage.path("daemon")), Hang(spinning=True)))
        daemon = await stage.see_file("daemon")
        stage.engine._workers[0].nanny.send(frames.Bye())
        ended = await stage.see_end()
        assert ended.why == "nanny"
        for pid in (runner, daemon, nanny):
            assert await until(lambda: not is_alive(pid), within=3.0), f"{pid} is left"  # noqa: B023


async def test_a_flood_does_not_fill_the_memory() -> None:
    """While a shard prints far too much, the nanny lets go of the middle; the count of what is missing is exact."""
    megabytes = 20
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        flood = Print("x" * 1024 * 1024, times=megabytes, fd=1)
        stage.give(play(flood, Touch(stage.path("printed")), WaitFor(stage.gate)))
        await stage.see_file("printed")

        def size() -> int:
            return os.stat(f"/proc/{runner}/fd/1").st_blocks * 512

        await stage.see(lambda: size() < 3 * 1024 * 1024, "the output was not trimmed")
        stage.open_gate()
        await stage.see(lambda: stage.host.all(frames.Output), "the output was not told")
        [told] = stage.host.all(frames.Output)
    assert len(told.text) + told.cut == megabytes * 1024 * 1024


async def test_a_nanny_that_hears_nothing_more_takes_everything_along() -> None:
    """The end of its control socket means that the centre is gone: the nanny ends everything and leaves."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        runner = stage.host.all(frames.Ready)[0].pid
        nanny = parent_of(runner)
        stage.give(play(Daemon(stage.path("daemon")), Hang(spinning=True)))
        daemon = await stage.see_file("daemon")
        stage.engine._workers[0].nanny.abort()
        for pid in (runner, daemon, nanny):
            assert await until(lambda: not is_alive(pid), within=3.0), f"{pid} outlived the centre"  # noqa: B023


async def test_a_fence_does_not_kill_the_next_shard() -> None:
    """A fence with `kill` for an attempt that has just ended lets its successor live."""
    async with on_stage(ProcessEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Succeed("over")))
        await stage.see(stage.host.done, "the shard did not end")
        stage.engine.fence(0, stage.seq, kill=[first])
        second = stage.give(play(Succeed("next")))
        await stage.see(lambda: len(stage.host.done()) == 2, "the next shard did not run")
        assert stage.host.done()[1] == (second, "next")
        assert not stage.host.all(frames.Ended)
