"""From the nanny to a runner process: by fork, or afresh where the nanny has threads. Both are the same process.

Run from scripts of their own, because a worker imports the main script again, and pytest's brings half the world.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"argparse", "asyncio", "pydantic", "rich", "sqlite3", "typer", "uvloop"}

SCRIPT = """
import json, os, sys, threading
{extra}
from dispatch import DataParallelDispatchCenter, DispatchConfig, Shard
from tests.worker.births import async_birth, birth

def mine(payload):
    return {{**birth(payload), "defined in": __name__}}

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "3"
    config = DispatchConfig(data_parallel=1, env={{"OF_OURS": "yes", "MKL_NUM_THREADS": "2"}})
    report = DataParallelDispatchCenter({runner}, [1, 2], config=config).start()
    json.dump([report.values(), os.getpid(), os.getpgid(0), sys.path], sys.stdout)
"""
A_THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.fixture
def run(tmp_path):
    """Run the script with this runner, and give what its two shards saw."""

    def run(runner: str, *, extra: str = "") -> tuple[dict, dict]:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(runner=runner, extra=extra))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        done = subprocess.run(
            [sys.executable, "-W", "error", script],
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            timeout=50,
            check=True,
        )
        (first, second), pid, group, path = json.loads(done.stdout)
        assert first["pid"] == second["pid"]
        return first, {"pid": pid, "group": group, "path": path}

    return run


def proper(facts: dict, parent: dict) -> None:
    """What holds for every runner process, however it was born."""
    assert facts["group"] == facts["pid"], "a process group of its own"
    assert facts["group"] != parent["group"]
    assert facts["oom"] == 1000, "the kernel picks it and not the host"
    assert facts["stdin"] == ""
    assert facts["fds"]["0"] == "/dev/null"
    assert facts["fds"]["1"] == facts["fds"]["2"]
    targets = [target for fd, target in facts["fds"].items() if int(fd) > 2]
    kinds = sorted(target.partition(":")[0] for target in targets if target != facts["fds"]["1"])
    assert kinds.count("socket") == 1, f"one line, to the centre: {facts['fds']}"
    assert not any("pipe" in target for target in targets), "nothing of anyio's"
    assert facts["handlers"] == ["default_int_handler", *["SIG_DFL"] * 5]
    assert facts["path"] == parent["path"]
    environment = facts["environment"]
    assert environment["OF_OURS"] == "yes"
    assert environment["OMP_NUM_THREADS"] == "3", "the user's own stays"
    assert environment["MKL_NUM_THREADS"] == "2", "the configuration's wins"
    assert environment["OPENBLAS_NUM_THREADS"] == "1"


def test_a_forked_runner_process_is_proper(run) -> None:
    """From a nanny without threads a runner is forked: its own group, lines and signals, nothing of its nanny's."""
    facts, parent = run("birth")
    proper(facts, parent)
    assert "anyio.to_process" in facts["command"]
    assert facts["threads"] == [1, 1]


def test_a_runner_is_spawned_where_the_nanny_has_threads(run) -> None:
    """A main script that starts a thread when it is imported gets runners that were started afresh, and are no less."""
    facts, parent = run("birth", extra=A_THREAD)
    proper(facts, parent)
    assert "dispatch.worker.birth" in facts["command"]
    assert facts["threads"] == [1, 1], "the thread stayed behind"


@pytest.mark.parametrize("extra", ["", A_THREAD], ids=["forked", "spawned"])
def test_a_runner_of_the_main_script_is_found(run, extra) -> None:
    """A function of the guarded main script runs in workers, under the name that anyio gives to the script there."""
    facts, parent = run("mine", extra=extra)
    assert facts["defined in"] == "__mp_main__"
    assert facts["pid"] != parent["pid"]


@pytest.mark.parametrize("extra", ["", A_THREAD], ids=["forked", "spawned"])
def test_a_worker_of_sync_shards_is_lean(run, extra) -> None:
    """A worker of a bare sync function loads no event loop, no database and no terminal."""
    facts, _ = run("birth", extra=extra)
    assert HEAVY & {name.partition(".")[0] for name in facts["modules"]} == set()
    assert [
        name for name in facts["modules"] if name.startswith(("dispatch.engines", "dispatch.record"))
    ] == []


def test_only_an_async_worker_loads_an_event_loop(run) -> None:
    """A worker of an async function loads asyncio and uvloop, and nothing else that is heavy."""
    facts, _ = run("async_birth")
    assert HEAVY & {name.partition(".")[0] for name in facts["modules"]} == {"asyncio", "uvloop"}
