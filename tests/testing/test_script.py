"""Scripted runners do as their script says, in either lane."""

import os
import signal
import time

import anyio
import pytest

from dispatch import (
    DataParallelDispatchCenter,
    DispatchConfig,
    Done,
    Failed,
    LocalDispatchCenter,
    Policy,
    Retry,
    Runner,
    Shard,
    StartupFailed,
    WorkerDied,
    remote,
)
from dispatch.testing import (
    Ask,
    AsyncScriptedRunner,
    Daemon,
    Die,
    Exit,
    Hang,
    Identify,
    Postpone,
    Print,
    Raise,
    Rehearsal,
    Script,
    ScriptedRunner,
    Sleep,
    Succeed,
    Surrender,
    Tell,
    Touch,
    UnreadyRunner,
    WaitFor,
    in_turn,
    leaves_nothing,
    play,
    until,
)
from dispatch.testing.script import _do
from dispatch.testing.traces import is_alive

pytestmark = pytest.mark.asyncio
RUNNERS = pytest.mark.parametrize("runner", [ScriptedRunner, AsyncScriptedRunner])


class Answering(DataParallelDispatchCenter):
    """Answers scripts that ask."""

    @remote
    async def add(self, one: int, other: int) -> int:
        return one + other


def center(runner, *, workers=1, **policy):
    """A centre of scripted runners, not open."""
    return Answering(runner, config=DispatchConfig(data_parallel=workers, policy=Policy(**policy)))


@RUNNERS
async def test_each_step_does_what_it_says(runner, tmp_path, caplog) -> None:
    """Values, waits, questions, prints, progress, files and exceptions: as the script says, in its order."""
    file = str(tmp_path / "touched")
    caplog.set_level("INFO", "dispatch.runner")
    async with center(runner) as open_center:
        ask = open_center.submit_outcome
        assert (await ask(play())).value is None
        assert (await ask(play(Succeed({"a": [1]}), Raise()))).value == {"a": [1]}
        assert (await ask(play(Ask("add", [1, 2])))).value == 3
        assert (await ask(play(Ask("add", [1, 2]), Sleep(0.05), Succeed()))).value is None
        done = await ask(play(Sleep(0.05), Touch(file), WaitFor(file), Identify()))
        assert done.attempts[0].seconds >= 0.05
        assert done.value["pid"] == done.attempts[0].pid == int((tmp_path / "touched").read_text())
        failed = await ask(play(Print("said", times=2), Raise("KeyError", ["k"])))
        assert (failed.fault.type, failed.fault.output) == ("KeyError", "said\nsaid\n")
        assert (await ask(play(Surrender("no")))).fault.final
        assert (await ask(play(Exit(3, softly=True)))).fault.exit_code == 3
        assert isinstance(await ask(play(Print("raw", fd=2), Tell(1, 2))), Done)
    assert "said\nsaid" in caplog.text
    assert "raw" in caplog.text


@RUNNERS
async def test_attempts_take_turns(runner) -> None:
    """Each attempt plays its own take, and the last one stays."""
    async with center(runner, retry=Retry(attempts=4)) as open_center:
        script = in_turn(play(Raise()), play(Postpone(0.0)), play(Identify()))
        assert (await open_center.submit(script))["attempt"] == 3
        always = await open_center.submit_outcome(in_turn(play(Raise("OSError")), play(Raise("KeyError"))))
        assert [attempt.fault.type for attempt in always.attempts] == ["OSError"] + ["KeyError"] * 3


@RUNNERS
async def test_deaths_are_real(runner) -> None:
    """Exit and Die end the process, with that code and that signal."""
    async with center(runner, crash_budget=1) as open_center:
        exited = await open_center.submit_outcome(play(Exit(9)))
        died = await open_center.submit_outcome(play(Die(signal.SIGABRT)))
    assert (exited.fault.exit_code, died.fault.signal) == (9, signal.SIGABRT)
    with pytest.raises(WorkerDied):
        died.unwrap()


@pytest.mark.parametrize("hang", [Hang(), Hang(spinning=True), Hang(deaf=True)])
@RUNNERS
async def test_hanging_is_for_ever(runner, hang) -> None:
    """A hang is ended by its deadline only, whether it sleeps, spins, or swallows its cancellation."""
    async with leaves_nothing(), center(runner) as open_center:
        failed = await open_center.submit_outcome(play(hang), timeout=0.2)
    assert isinstance(failed, Failed)
    assert failed.fault.cause == "timed_out"


async def test_a_daemon_is_one(tmp_path) -> None:
    """A daemon lives in a session of its own, is not its runner's child, and dies with the worker."""
    file = str(tmp_path / "daemon")
    async with center(ScriptedRunner) as open_center:
        runner = (await open_center.submit(play(Daemon(file), Identify())))["pid"]
        daemon = int((tmp_path / "daemon").read_text())
        assert is_alive(daemon)
        assert os.getsid(daemon) != os.getsid(runner)
        assert os.getpgid(daemon) != runner
    assert not is_alive(daemon)


async def test_a_rehearsal_is_played_around_the_shards(tmp_path) -> None:
    """A Rehearsal as the shared param says what setup and teardown do, in processes and in this one."""
    for kind in (DataParallelDispatchCenter, LocalDispatchCenter):
        before, after = (tmp_path / f"{kind.__name__}-{when}" for when in ("before", "after"))
        rehearsal = Rehearsal(setup=[Touch(str(before))], teardown=[Touch(str(after))])
        config = DispatchConfig(data_parallel=1)
        async with kind(ScriptedRunner, shared_param=rehearsal, config=config) as open_center:
            await open_center.submit(play(Succeed()))
            assert before.exists()
            assert not after.exists()
        assert await until(after.exists)


async def test_a_waiter_leaves_with_the_directory(tmp_path) -> None:
    """WaitFor ends when nobody can make its file any more: an abandoned thread does not stay."""
    directory = tmp_path / "gone"
    directory.mkdir()
    async with LocalDispatchCenter(ScriptedRunner) as open_center, anyio.create_task_group() as tasks:
        tasks.start_soon(open_center.submit, play(WaitFor(str(directory / "never"))))
        await anyio.wait_all_tasks_blocked()
        directory.rmdir()
        with anyio.fail_after(10):
            await open_center.submit(play(Succeed()))


async def test_an_unready_runner_says_so() -> None:
    """UnreadyRunner is the runner whose setup raises."""
    with pytest.raises(StartupFailed, match=UnreadyRunner.reason):
        await center(UnreadyRunner).open()


async def test_a_script_is_plain_data() -> None:
    """Scripts compare by what they say; a step that cannot be played where it stands is a clear error."""
    assert play(Succeed(1)) == play(Succeed(1)) == Script([[Succeed(1)]])
    assert in_turn(play(Raise()), play()) == Script([[Raise()], []])
    with pytest.raises(ValueError, match="Sleep cannot be played here"):
        _do(Sleep(1))


async def test_a_scripted_runner_can_be_called_by_hand() -> None:
    """Without a worker a scripted runner is an object with a do_run."""
    runner = ScriptedRunner()
    assert isinstance(runner, Runner)
    began = time.monotonic()
    assert runner.do_run(Shard(play(Sleep(0.02), Succeed(4)))) == 4
    assert time.monotonic() - began >= 0.02
    assert await AsyncScriptedRunner().do_run(Shard(play(Sleep(0.0), Succeed(5)))) == 5
