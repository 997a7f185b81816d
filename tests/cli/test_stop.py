"""`dispatch stop`: what Ctrl-C does, from another terminal."""

from pathlib import Path
from typing import Any

from dispatch.cli import stop
from dispatch.record.archive import Owner
from tests.center.facts import descendants, until_true
from tests.cli.conftest import Going, Recorded
from tests.cli.terminal import Typed, dispatch


def test_drain(going: Going) -> None:
    """What runs is finished, nothing new starts; the command returns when the run has ended."""
    stopping = Typed("stop", going.work_dir)
    until_true(lambda: going.recorded.get("cancelled") == 39)
    going.open()
    said = stopping.ended()
    assert said.code == 0, said.err
    assert f"asked process {going.typed.process.pid} to drain" in said.err
    assert said.err.endswith("it has ended\n")
    ended = going.typed.ended()
    assert ended.code == 130
    assert ended.out.startswith("11 done of 50 shards")


def test_now(going: Going) -> None:
    """--now does not wait for what runs: it is killed, and recorded as cancelled."""
    pids = descendants(going.typed.process.pid)
    said = dispatch("stop", going.work_dir, "--now")
    assert said.code == 0, said.err
    ended = going.typed.ended()
    assert ended.code == 130
    assert ended.out.startswith("10 done of 50 shards")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_nothing_runs(recorded: Recorded) -> None:
    """A line says what became of the last run; exit code 1."""
    said = dispatch("stop", recorded.path)
    assert said.code == 1
    assert f"nothing runs in {recorded.path} (its last run is finished)" in said.err


def test_another_machine(recorded: Recorded, monkeypatch: Any, capsys: Any) -> None:
    """Nobody is signalled: the process of that number here is another; exit code 3."""
    elsewhere = Owner(pid=1, host="another-host", started_at=0.0)
    monkeypatch.setattr(stop.Archive, "owner", lambda _: elsewhere)
    assert stop.stop(str(recorded.path)) == 3
    assert "process 1 runs it on another-host; stop it there" in capsys.readouterr().err
