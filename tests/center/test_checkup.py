"""A checkup finds what would stop a run, each with its cure, and starts one worker."""

from pathlib import Path
from typing import Any

import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig, Policy, Runner, Shard
from dispatch.center.checkup import Finding, checkup
from tests.center.facts import on_one_loop
from tests.cli.targets import Broken, Grader, Unwritable, anything


async def findings(runner: Any, **config: Any) -> dict[str, Finding]:
    """What was found, by what was looked at."""
    center = DataParallelDispatchCenter(runner, config=DispatchConfig(**config))
    return {finding.what: finding async for finding in checkup(center)}


class Handles(Runner):
    """Returns what msgspec cannot carry."""

    def do_run(self, shard: Shard[int]) -> dict[str, list[Path | None]]:
        """A path."""
        return {"here": [Path(str(shard.payload))]}


@on_one_loop
async def test_a_runner_that_is_well() -> None:
    """Everything is well, and a worker was really started and left."""
    found = await findings(Grader, data_parallel=1)
    assert {finding.state for finding in found.values()} == {"well"}
    assert found["name"].says == "workers import it as tests.cli.targets:Grader"
    assert (found["payload"].says, found["value"].says) == ("Sample", "float")
    assert "was ready after 0." in found["a worker"].says


@on_one_loop
async def test_what_is_not_annotated_is_doubtful() -> None:
    """It runs, and the cure says what annotations would give."""
    found = await findings(anything, data_parallel=1)
    assert found["payload"].state == found["value"].state == "doubtful"
    assert "annotate" in found["payload"].cure
    assert found["a worker"].state == "well"


@on_one_loop
@pytest.mark.parametrize(
    ("runner", "says", "cure"),
    [
        (Unwritable, "its annotations cannot be resolved", "outside TYPE_CHECKING"),
        (lambda n: n, "a lambda has no name", "write a def"),
        (int, "it is a class, but not a Runner", "subclass dispatch.Runner"),
    ],
)
async def test_what_no_worker_could_use(runner: Any, says: str, cure: str) -> None:
    """It is ill with its cure, the machine is looked at all the same, and no worker is started."""
    found = await findings(runner, data_parallel=1)
    assert found["runner"].state == "ill"
    assert says in found["runner"].says
    assert cure in found["runner"].cure
    assert "CPUs" in found
    assert "a worker" not in found


@on_one_loop
async def test_a_type_that_cannot_travel() -> None:
    """A class that only a hook could encode is named, wherever in the annotation it stands."""
    found = await findings(Handles, data_parallel=1)
    assert found["codec"].state == "ill"
    assert found["codec"].says == "Path cannot be encoded"


@on_one_loop
async def test_a_worker_that_cannot_start() -> None:
    """What `setup` raised is found, with its traceback."""
    found = await findings(Broken, data_parallel=1)
    assert found["a worker"].state == "ill"
    assert "no GPU here" in found["a worker"].says
    assert "in setup" in found["a worker"].says


@on_one_loop
async def test_a_module_that_starts_a_run_when_it_is_imported(tmp_path: Path, monkeypatch: Any) -> None:
    """It would do so in every worker: ill, with the line and the cure. Under a guard it is well."""
    code = "from dispatch import DataParallelDispatchCenter\ndef work(n: int) -> int: return n\n"
    for name, line in (("open_door", "run()"), ("guarded", "if __name__ == '__main__':\n    run()")):
        text = code + "import asyncio\ndef nothing(*a): pass\nasyncio.run, kept = nothing, asyncio.run\n"
        (tmp_path / f"{name}.py").write_text(
            text + line.replace("run()", "asyncio.run(work)") + "\nasyncio.run = kept\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    import guarded
    import open_door

    found = await findings(open_door.work, data_parallel=1)
    assert found["import"].state == "ill"
    assert "line 6 calls asyncio.run() while the module is imported" in found["import"].says
    assert "__main__" in found["import"].cure
    assert (await findings(guarded.work, data_parallel=1))["import"].state == "well"


@on_one_loop
async def test_limits_of_the_machine(monkeypatch: Any) -> None:
    """More workers than CPUs are doubtful; too few open files for them are ill, with the number that is needed."""
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 4096))
    found = await findings(Unwritable, data_parallel=64)
    assert found["CPUs"].state == "doubtful"
    assert found["open files"].state == "ill"
    assert found["open files"].cure == "ulimit -n 576"


@on_one_loop
async def test_the_policy_is_looked_at() -> None:
    """What contradicts itself in the configuration is ill before a worker starts."""

    class Many(Runner):
        concurrency = 4

        async def do_run(self, shard: Shard[int]) -> int:
            return shard.payload

    Many.__qualname__ = "Many"
    found = await findings(Many, policy=Policy(isolation="fork"), data_parallel=1)
    assert [finding.state for finding in found.values()].count("ill") >= 1
