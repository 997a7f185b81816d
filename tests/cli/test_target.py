"""MODULE:NAME: what it may name, and what is said of what it may not."""

import sys
from pathlib import Path

import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig, LocalDispatchCenter
from dispatch.cli import target
from dispatch.terms.errors import ConfigError
from tests.cli import targets

T = "tests.cli.targets"


def test_a_runner_a_function_and_a_centre() -> None:
    """Each is found by its name, and becomes a centre on the engine of the configuration."""
    for name in ("Grader", "double", "Own"):
        found = target.find(f"{T}:{name}")
        assert found is getattr(targets, name)
        made = target.make(found, DispatchConfig(runner_type="local"), shared_param=None)
        assert isinstance(made, LocalDispatchCenter)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Grader", "write MODULE:NAME"),
        (f"{T}:", "write MODULE:NAME"),
        ("tests/cli/targets.py:Grader", "name the module, not its file: tests.cli.targets:Grader"),
        ("no_such_module:Grader", "there is no module no_such_module in "),
        (f"{T}.deeper:Grader", "there is no module tests.cli.targets.deeper"),
        (f"{T}:Nobody", "tests.cli.targets has no Nobody"),
        (f"{T}:Grader.nothing", "Grader has no nothing"),
        (f"{T}:made", "this is a centre that was made; name its class"),
    ],
)
def test_what_is_no_target(name: str, says: str) -> None:
    """Each is an error that says what to write."""
    with pytest.raises(ConfigError, match=says):
        target.find(name)


def test_the_current_directory_is_searched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m` does, whatever program was started."""
    (tmp_path / "only_here.py").write_text("def work(n: int) -> int:\n    return n\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert target.find("only_here:work")(3) == 3
    assert sys.path[0] == str(tmp_path)


def test_a_module_that_needs_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it fails to import is told by Python, and not taken for the module itself."""
    (tmp_path / "needy.py").write_text("import not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed"):
        target.find("needy:work")


def test_who_brings_shards() -> None:
    """A centre with an iter_shards or a constructor of its own; not a bare runner."""
    config = DispatchConfig()
    assert target.has_shards(target.make(targets.Own, config, shared_param=None))
    assert not target.has_shards(target.make(targets.double, config, shared_param=None))
    assert target.has_shards(DataParallelDispatchCenter(targets.double, [1]))


def test_two_shared_params() -> None:
    """A centre with a get_shared_param of its own refuses another."""
    with pytest.raises(ConfigError, match="get_shared_param of its own"):
        target.make(targets.Own, DispatchConfig(), shared_param=1)
