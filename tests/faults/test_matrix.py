"""One fault in one of 200 shards on 2 workers: that shard says what it was, the other 199 never notice."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from dispatch import OutOfMemory, Report, ShardTimeout, Undeliverable, WorkerDied
from tests.faults import culprits
from tests.faults.culprits import FLOOD, Culprit, Task
from tests.faults.scene import Lateness, failed, run, uncharged

pytestmark = pytest.mark.asyncio

SHARDS, GUILTY = 200, 77
LIMIT = 1 << 20  # bytes of a value


async def matrix(act: Any, **policy: Any) -> Report[Any]:
    """A run in which one shard does this; the others are checked to be Done, right, and at their first attempt."""
    shards = [Task(number, act.__name__ if number == GUILTY else "") for number in range(SHARDS)]
    report = await run(Culprit, shards, max_value_bytes=LIMIT, **{"crash_budget": 1, **policy})
    uncharged(report, but=[GUILTY])
    for outcome in report.outcomes:
        if outcome.index != GUILTY:
            assert outcome.value.double == 2 * outcome.index
            assert outcome.value.attempt == 1
    assert report.total == SHARDS
    return report


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (culprits.segfaults, signal.SIGSEGV),
        (culprits.overflows_the_stack, signal.SIGSEGV),
        (culprits.kills_itself, signal.SIGKILL),
        (culprits.aborts, signal.SIGABRT),
    ],
)
async def test_a_shard_that_dies_of_a_signal(act: Any, number: int) -> None:
    """A shard that dies of a signal is crashed with exactly that signal, and Python's own crashes leave the stack."""
    outcome = failed(await matrix(act), GUILTY)
    fault = outcome.fault
    assert (fault.cause, fault.signal, fault.exit_code) == ("crashed", number, None)
    assert signal.Signals(number).name in fault.message
    assert len(outcome.attempts) == 1
    if number != signal.SIGKILL:
        assert f"in {act.__name__}" in fault.stack
        assert "/dispatch/worker/" not in fault.stack
    with pytest.raises(WorkerDied):
        outcome.unwrap()


@pytest.mark.parametrize(("act", "code"), [(culprits.exits, 1), (culprits.exits_well, 0)])
async def test_a_shard_that_exits_its_process(act: Any, code: int) -> None:
    """A shard that leaves by os._exit is crashed with exactly that exit code, 0 included."""
    outcome = failed(await matrix(act), GUILTY)
    assert (outcome.fault.cause, outcome.fault.signal, outcome.fault.exit_code) == ("crashed", None, code)
    assert len(outcome.attempts) == 1


@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_a_shard_that_stops_itself(timeout: float | None, lateness: Lateness) -> None:
    """A shard that sends itself SIGSTOP is killed within a second, with and without a timeout."""
    outcome = failed(await matrix(culprits.stops_itself, timeout=timeout), GUILTY)
    assert (outcome.fault.cause, outcome.fault.signal) == ("crashed", signal.SIGSTOP)
    assert outcome.attempts[-1].seconds < 1 + lateness.slack


@pytest.mark.parametrize(
    ("act", "kind", "code"),
    [
        (culprits.leaves, "SystemExit", 3),
        (culprits.raises_system_exit, "SystemExit", 0),
        (culprits.raises_keyboard_interrupt, "KeyboardInterrupt", None),
        (culprits.raises_generator_exit, "GeneratorExit", None),
        (culprits.recurses, "RecursionError", None),
    ],
)
async def test_a_shard_that_leaves_by_an_exception(act: Any, kind: str, code: int | None) -> None:
    """SystemExit and its kind fail one attempt like any exception, and the worker lives on."""
    report = await matrix(act)
    fault = failed(report, GUILTY).fault
    assert (fault.cause, fault.type, fault.exit_code, fault.signal) == ("raised", kind, code, None)
    assert f"in {act.__name__}" in fault.traceback
    assert [len(worker.pids) for worker in report.workers] == [1] * len(report.workers)


@pytest.mark.parametrize(
    "act", [culprits.spins, culprits.backtracks, culprits.sleeps, culprits.waits_for_a_byte, culprits.deaf]
)
async def test_a_shard_that_never_returns(act: Any, lateness: Lateness) -> None:
    """A shard that hangs, also in a C call that keeps the GIL, ends within 0.2 s of its deadline and says where."""
    outcome = failed(await matrix(act, timeout=0.4), GUILTY)
    assert outcome.fault.cause == "timed_out"
    assert f"in {act.__name__}" in outcome.fault.stack
    assert 0.4 <= outcome.attempts[-1].seconds < 0.4 + 0.2 + lateness.slack
    with pytest.raises(ShardTimeout):
        outcome.unwrap()


@pytest.mark.parametrize(
    "act", [culprits.waits_in_the_kernel, culprits.undoes_our_handlers, culprits.becomes_another_program]
)
async def test_a_shard_that_cannot_say_where_it_hangs(act: Any, lateness: Lateness) -> None:
    """It waits for a vforked child, undid our signal handler or is another program by now: in time, without a stack."""
    outcome = failed(await matrix(act, timeout=0.4), GUILTY)
    assert outcome.fault.cause == "timed_out"
    assert 0.4 <= outcome.attempts[-1].seconds < 0.4 + 0.2 + lateness.slack


@pytest.mark.parametrize(
    "act", [culprits.forks_and_returns, culprits.forks_and_raises, culprits.forks_and_leaves]
)
@pytest.mark.parametrize("runner", [Culprit, culprits.Juggler])
async def test_a_shard_whose_fork_comes_back(act: Any, runner: Any) -> None:
    """The child ends as a program would, and is no second worker: the shard is Done, and its worker goes on."""
    shards = [Task(number, act.__name__ if number == GUILTY else "") for number in range(SHARDS)]
    report = await run(runner, shards, crash_budget=1, timeout=20.0)
    uncharged(report)
    assert [outcome.value.double for outcome in report.outcomes] == [2 * number for number in range(SHARDS)]
    assert [len(worker.pids) for worker in report.workers] == [1] * len(report.workers)


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (culprits.raises_two_arguments, "TwoArguments", "7: seven"),
        (culprits.raises_a_lock, "ValueError", "lock object at"),
        (culprits.raises_the_unspeakable, "Unspeakable", "its __str__ raised RuntimeError"),
        (culprits.raises_at_length, "ValueError", "characters cut"),
        (culprits.raises_a_group, "ExceptionGroup", "two at once (2 sub-exceptions)"),
    ],
)
async def test_a_shard_that_raises(act: Any, kind: str, message: str) -> None:
    """Whatever a shard raises is told with type, message and traceback, cut where it is long, and said so."""
    outcome = failed(await matrix(act), GUILTY)
    fault = outcome.fault
    assert (fault.cause, fault.type) == ("raised", kind)
    assert message in fault.message
    assert f"in {act.__name__}" in fault.traceback
    assert len(fault.message) < 20_000
    assert len(fault.traceback) < 20_000
    try:
        outcome.unwrap()
    except Exception as raised:  # noqa: BLE001  (whatever it was)
        assert f"in {act.__name__}" in str(raised.__cause__)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (culprits.returns_a_lock, ["type lock"]),
        (culprits.returns_a_generator, ["type generator"]),
        (culprits.returns_itself, ["refers to itself", "list"]),
        (culprits.returns_too_much, [f"max_value_bytes={LIMIT}", "bytes"]),
        (culprits.returns_a_great_number, ["type int"]),
        (culprits.returns_a_deep_lock, ["lock", "$['rows'][1]['lock']"]),
        (culprits.returns_another_shape, ["double"]),
    ],
)
async def test_a_shard_that_returns_what_cannot_travel(act: Any, words: list[str]) -> None:
    """A value that cannot be encoded is undeliverable, and the fault names the type and the path to it."""
    report = await matrix(act)
    outcome = failed(report, GUILTY)
    assert outcome.fault.cause == "undeliverable"
    for word in words:
        assert word in outcome.fault.message
    assert [len(worker.pids) for worker in report.workers] == [1] * len(report.workers)
    with pytest.raises(Undeliverable):
        outcome.unwrap()


@pytest.mark.parametrize(
    "act",
    [
        culprits.reads_stdin,
        culprits.leaves_a_child,
        culprits.leaves_a_daemon,
        culprits.leaves_a_thread,
        culprits.sets_an_alarm,
        culprits.changes_directory,
        culprits.changes_the_locale,
        culprits.changes_the_umask,
    ],
)
async def test_a_shard_that_does_more_than_its_work(act: Any) -> None:
    """A shard that disturbs its process is Done all the same, and so are the others."""
    report = await matrix(act)
    uncharged(report)
    assert [len(worker.pids) for worker in report.workers] == [1] * len(report.workers)


async def test_a_shard_that_floods_its_output(caplog: pytest.LogCaptureFixture) -> None:
    """Of 100 MB on fd 1 and fd 2 the first 64 KiB reach the parent, tagged with the shard, and the rest is counted."""
    with caplog.at_level("INFO", logger="dispatch.runner"):
        uncharged(await matrix(culprits.floods))
    [record] = [record for record in caplog.records if record.name == "dispatch.runner"]
    text, cut = record.args
    assert record.dispatch_shard == str(GUILTY)
    assert len(text) <= 64 * 1024
    assert len(text) + int(cut.split()[1].replace(",", "")) == FLOOD


@pytest.mark.parametrize("act", [culprits.floods_and_raises, culprits.floods_and_exits])
async def test_the_last_words_of_a_shard_that_failed(act: Any) -> None:
    """The last 8 KiB of what a shard printed are attached to its fault, whether it raised or died."""
    fault = failed(await matrix(act), GUILTY).fault
    assert fault.output.endswith("last words")
    assert len(fault.output) <= 8 * 1024


async def test_a_shard_that_swallows_memory() -> None:
    """A shard past memory_limit is out_of_memory, though it swallows every MemoryError."""
    outcome = failed(await matrix(culprits.swallows_memory, memory_limit=128 << 20), GUILTY)
    assert outcome.fault.cause == "out_of_memory"
    assert "memory_limit" in outcome.fault.message
    with pytest.raises(OutOfMemory):
        outcome.unwrap()
