"""A run that was recorded, and one that goes on: what status, show, export and stop look at."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dispatch.record.archive import Archive
from tests.center.facts import until_true
from tests.cli.terminal import TARGETS, Said, Typed, dispatch


class Recorded(NamedTuple):
    """A work_dir, and what the run said that filled it."""

    path: Path
    said: Said


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Five shards with ids: one done, one that raised twice, one that hung, one that died, one with a big value."""
    folder = tmp_path_factory.mktemp("recorded")
    shards = [
        {"number": 1, "id": "good"},
        {"number": 2, "how": "raise", "id": "bad one"},
        {"number": 3, "how": "hang", "id": "stuck"},
        {"number": 4, "how": "die", "id": "dead"},
        {"number": 5, "id": "5"},
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(shard) + "\n" for shard in shards))
    work_dir = folder / "work"
    arguments = ("--shards", folder / "in.jsonl", "--id", "id", "--work-dir", work_dir)
    limits = ("-j", 2, "--timeout", 0.3, "--retries", 1)
    return Recorded(work_dir, dispatch("run", f"{TARGETS}:Grader", *arguments, *limits))


class Going:
    """A run of 50 shards, of which the eleventh waits at a gate; a drain has a minute."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        self.work_dir = folder / "work"
        shards = [{"number": n} for n in range(50)]
        shards[10] = {"number": 10, "how": f"wait {self.gate}"}
        (folder / "in.jsonl").write_text("".join(json.dumps(shard) + "\n" for shard in shards))
        self.arguments = (
            *("run", f"{TARGETS}:Grader", "--shards", folder / "in.jsonl"),
            *("--work-dir", self.work_dir, "--config", folder / "run.toml", "-j", 1),
        )
        (folder / "run.toml").write_text("[policy]\ngrace = 60\n")
        self.typed = Typed(*self.arguments)
        until_true(Path(f"{self.gate}.in").exists)
        until_true(lambda: self.recorded == {"done": 10})

    @property
    def recorded(self) -> dict[str, int]:
        """What the journal holds."""
        with Archive.open(self.work_dir) as archive:
            return archive.counts()

    def open(self) -> None:
        """Let it go on."""
        Path(f"{self.gate}.go").touch()


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Going]:
    """A run that goes on; it is over after the test."""
    run = Going(tmp_path)
    yield run
    run.open()
    run.typed.process.kill()
    run.typed.process.communicate()
