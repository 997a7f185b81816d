"""The front door: light, complete, and lazy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FRONT_DOOR = Path(__file__).parents[1] / "dispatch"

# fmt: off
CONTRACT = {
    "Attempt", "Cancelled", "CenterClosed", "DataParallelDispatchCenter", "DispatchCenter", "DispatchConfig",
    "DispatchError", "Done", "DummyDispatchCenter", "Failed", "Fault", "GiveUp", "LocalDispatchCenter",
    "OutOfMemory", "Outcome", "Policy", "QueueFull", "RemoteError", "Report", "Retry", "RetryLater", "Runner",
    "RunnerType", "Shard", "ShardCancelled", "ShardTimeout", "StartupFailed", "Undeliverable", "WorkerDied",
    "map", "register", "remote", "stream",
}
# fmt: on

HEAVY = {"aiohttp", "argparse", "click", "pydantic", "ray", "rich", "sqlite3", "typer"}


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter loads for a statement, and had not loaded before it."""
    code = f"""if True:
        import json, sys
        before = set(sys.modules)
        {statement}
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=FRONT_DOOR.parent,
        # Without coverage, which loads sqlite3 itself.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_importing_a_runner_and_a_centre_loads_nothing_heavy() -> None:
    """Naming a runner and a centre loads no extra, no sqlite3 and no argparse."""
    loaded = loaded_by("from dispatch import Runner, DataParallelDispatchCenter")
    assert "dispatch" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_front_door_opens_no_room_by_itself() -> None:
    """`import dispatch` alone loads no other module of ours, nor anyio and msgspec."""
    loaded = loaded_by("import dispatch")
    assert {name for name in loaded if name.startswith(("dispatch.", "anyio", "msgspec"))} == set()


def test_every_public_name_resolves() -> None:
    """Every name in `__all__` can be had, and is the same object the second time."""
    import dispatch

    assert [name for name in dispatch.__all__ if getattr(dispatch, name) is not getattr(dispatch, name)] == []
    assert set(dispatch.__all__) <= set(dir(dispatch))


def test_the_contract_is_public() -> None:
    """Every name that the contract promises is in `__all__`, and none is there twice."""
    import dispatch

    assert CONTRACT - set(dispatch.__all__) == set()
    assert len(dispatch.__all__) == len(set(dispatch.__all__))


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    """The lazy front door refuses a name it does not know as any module would."""
    import dispatch

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dispatch.no_such_name


def test_type_checkers_are_told_that_we_are_typed() -> None:
    """The marker of PEP 561 stands beside the front door."""
    assert (FRONT_DOOR / "py.typed").is_file()


def test_the_front_door_is_short() -> None:
    """`dispatch/__init__.py` is under 60 lines."""
    assert len((FRONT_DOOR / "__init__.py").read_text().splitlines()) < 60
