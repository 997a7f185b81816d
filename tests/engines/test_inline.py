"""The inline engine: what it cannot do, and that it leaves nothing all the same."""

import threading

import anyio
import pytest

from dispatch.engines.inline import InlineEngine
from dispatch.testing import Raise, Succeed, Touch, WaitFor, leaves_nothing, play, until
from dispatch.testing.stage import on_stage
from dispatch.wire import frames

pytestmark = [pytest.mark.asyncio, pytest.mark.both_loops]


def threads() -> list[threading.Thread]:
    """The threads of workers."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("dispatch-")]


async def test_a_killed_worker_is_abandoned_and_ends_with_its_shard() -> None:
    """A thread cannot be killed: it goes on, nobody hears it, and it ends when its shard does."""
    async with leaves_nothing(), on_stage(InlineEngine) as stage:
        stage.start()
        await stage.ready()
        before = threads()
        stage.give(play(Touch(stage.path("began")), WaitFor(stage.gate), Succeed("unheard")))
        await stage.see_file("began")
        stage.engine.kill(0)
        await stage.see_end()
        assert threads() == before
        assert all(thread.daemon for thread in before)
        stage.open_gate()
        assert await until(lambda: not set(before) & set(threads()))
        assert not stage.host.done()


async def test_a_soft_exit_is_an_outcome() -> None:
    """A SystemExit in a shard is that shard's failure, and ends neither the thread nor the host."""
    async with on_stage(InlineEngine) as stage:
        stage.start()
        await stage.ready()
        first = stage.give(play(Raise("SystemExit", [3])), play(Succeed("still here")))
        await stage.see(stage.host.done, "the worker is gone")
        assert stage.host.failed() == [first]
        assert stage.host.all(frames.Fail)[0].fault.exit_code == 3


async def test_a_launch_after_closing_starts_nothing() -> None:
    """What was launched and closed before the loop came to it never lives."""
    async with leaves_nothing(), on_stage(InlineEngine) as stage:
        before = threads()
        stage.start()
        await stage.engine.aclose()
        stage.start(1)
        assert threads() == before
    assert not stage.host.told


async def test_a_worker_that_is_killed_while_it_starts_ends_once() -> None:
    """A kill that comes before Ready is told as one end, and the next life is a whole one."""
    async with leaves_nothing(), on_stage(InlineEngine) as stage:
        stage.start()
        while not stage.engine._workers:
            await anyio.lowlevel.checkpoint()
        stage.engine.kill(0)
        await stage.see_end()
        lives = len(stage.host.all(frames.Ready))
        stage.start()
        await stage.ready(lives=lives + 1)
        stage.give(play(Succeed("alive")))
        await stage.see(stage.host.done, "the next life does not work")
        assert len(stage.host.all(frames.Ended)) == 1
