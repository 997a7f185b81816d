"""The runner process before its lane: what cannot be made ready says why, once, with the worker's own traceback."""

import pytest

from dispatch.engines.base import Start
from dispatch.engines.process import ProcessEngine
from dispatch.terms.config import DispatchConfig
from dispatch.testing.stage import on_stage
from dispatch.wire import frames
from dispatch.wire.shared import publish
from dispatch.worker.spec import Lease
from tests.worker import starts

pytestmark = pytest.mark.asyncio

WRONG = {
    "no such module": ({"runner": "no.such.module:Runner"}, "ModuleNotFoundError", "No module named 'no'"),
    "no such name": ({"runner": "tests.worker.starts:Nobody"}, "AttributeError", "Nobody"),
    "a module that raises": (
        {"runner": "tests.worker.raises_on_import:Runner"},
        "ZeroDivisionError",
        "raises_on_import",
    ),
    "no runner": ({"runner": "tests.worker.starts:NotARunner"}, "RunnerError", "not a Runner"),
    "a constructor that raises": ({"runner": "tests.worker.starts:BadInit"}, "LookupError", "in __init__"),
    "a setup that exits": ({"runner": "tests.worker.starts:ExitsInSetup"}, "SystemExit", "in setup"),
    "a restore that raises": (
        {"runner": "tests.worker.starts:Fine", "center": "tests.worker.starts:BadRestore"},
        "LookupError",
        "in restore_shared_param",
    ),
}


def start(stage, **lease):
    """Launch a worker of this lease."""
    stage.engine.launch(
        Start(number=0, lease=Lease(**lease), targets=(None, None), env={}, startup_timeout=30.0)
    )


@pytest.mark.parametrize("what", WRONG)
async def test_why_a_worker_is_not_ready_is_told(what) -> None:
    """Import, constructor, setup, restore: whatever fails, its type, traceback and output are told, and it is final."""
    lease, kind, trace = WRONG[what]
    shared = publish({"a": 1})
    try:
        async with on_stage(ProcessEngine) as stage:
            start(stage, **lease, shared=(shared.path, shared.size))
            ended = await stage.see_end()
            [told] = stage.host.all(frames.NotReady)
            assert not stage.host.all(frames.Ready)
    finally:
        shared.close()
    assert (told.fault.cause, told.fault.type, told.fault.final) == ("startup", kind, True)
    assert trace in told.fault.traceback
    assert ended.exit_code == 0
    if what == "a setup that exits":
        assert told.fault.output == "about to exit\n"


async def test_a_shared_param_is_decoded_and_restored_once() -> None:
    """The shared param has the type that the centre's annotation says, and becomes what the centre makes of it."""
    shared = publish(starts.Table(rows=[1, 2, 3]))
    try:
        async with on_stage(ProcessEngine) as stage:
            lease = {"runner": "tests.worker.starts:Fine", "center": "tests.worker.starts:Restores"}
            start(stage, **lease, shared=(shared.path, shared.size))
            await stage.ready()
            stage.give(starts.payload(), starts.payload())
            await stage.see(lambda: len(stage.host.done()) == 2, "no outcome")
            assert [value for _, value in stage.host.done()] == [["Table", 6, 1], ["Table", 6, 1]]
    finally:
        shared.close()


@pytest.mark.parametrize(("center", "value"), [("", None), ("tests.worker.starts:TakesNone", ["None"])])
async def test_no_shared_param_is_none(center, value) -> None:
    """Without a shared param the runner has None, and a centre that restores is given None."""
    async with on_stage(ProcessEngine) as stage:
        start(stage, runner="tests.worker.starts:Fine", center=center)
        await stage.ready()
        stage.give(starts.payload())
        await stage.see(stage.host.done, "no outcome")
        assert stage.host.done()[0][1] == value
    assert DispatchConfig().policy.isolation == "worker"
