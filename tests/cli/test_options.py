"""Options over a file over defaults, and errors that name what was typed."""

from pathlib import Path
from typing import Any

import pytest

from dispatch import DispatchConfig, Policy, Retry
from dispatch.cli.options import Asked, BrokenTarget
from dispatch.terms.errors import ConfigError


def asked(**options: Any) -> Asked:
    """What was typed beside the target."""
    return Asked(target=options.pop("target", "tests.cli.targets:double"), **options)


def test_nothing_given_is_the_default() -> None:
    """Without options the configuration is the library's."""
    assert asked().configuration() == DispatchConfig()


def test_an_option_overrides_the_file(tmp_path: Path) -> None:
    """What is given replaces the file's; the file's other fields stay."""
    path = tmp_path / "run.toml"
    path.write_text(
        "data_parallel = 3\nseed = 9\n[policy]\ntimeout = 5\n[policy.retry]\nattempts = 4\nwait = 2\n"
    )
    given = asked(config=str(path), jobs=7, timeout=1.5, isolation="fork", work_dir="w", runner="local")
    assert given.configuration() == DispatchConfig(
        runner_type="local",
        data_parallel=7,
        work_dir="w",
        seed=9,
        policy=Policy(timeout=1.5, isolation="fork", retry=Retry(attempts=4, wait=2)),
    )
    assert asked(config=str(path), retries=0).configuration().policy.retry == Retry(attempts=1, wait=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"config": "/no/such/file"}, "--config is '/no/such/file': No such file"),
        ({"timeout": -1.0}, "policy.timeout is -1.0"),
        ({"jobs": 0}, "data_parallel is 0"),
        ({"work_dir": ""}, "--work-dir is '': name a directory"),
    ],
)
def test_a_wrong_option_is_named(options: Any, says: str) -> None:
    """Each by its own name, with what it may be."""
    with pytest.raises(ConfigError, match=says):
        asked(**options).configuration()


def test_a_wrong_field_of_the_file_is_named(tmp_path: Path) -> None:
    """An unknown field of the TOML file, or a wrong value, is an error that names it and the file."""
    path = tmp_path / "run.toml"
    for text, says in (
        (b"data_paralel = 3", "data_paralel"),
        (b"[policy]\ntimeout = -1", r"policy.timeout|\$\.policy"),
        (b"=", ""),
        (b"\xff", ""),
    ):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match=rf"--config is '{path}': .*({says})"):
            asked(config=str(path)).configuration()


def test_a_shared_param_is_json(tmp_path: Path) -> None:
    """It is read from its file; a file that is no JSON is named."""
    path = tmp_path / "params.json"
    path.write_text('{"a": [1]}')
    given = asked(target="tests.cli.targets:add", shared=str(path))
    assert given.center(DispatchConfig()).get_shared_param() == {"a": [1]}
    for data in (b"{", b'"\xff"'):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"--shared is '.*params.json': not JSON"):
            given.center(DispatchConfig())


def test_shards_must_come_from_somewhere() -> None:
    """A runner without --shards is refused; a centre that brings its own is not."""
    config = DispatchConfig()
    with pytest.raises(ConfigError, match="name a file of shards"):
        asked().shard_file(asked().center(config))
    own = asked(target="tests.cli.targets:Own")
    assert own.shard_file(own.center(config)) is None


def test_a_module_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback begins at the user's own file: nothing of ours or of importlib's stands before it."""
    (tmp_path / "raises.py").write_text("def load():\n    raise OSError('no weights')\n\nload()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenTarget) as broken:
        asked(target="raises:work").center(DispatchConfig())
    trace = str(broken.value)
    assert trace.endswith("OSError: no weights")
    assert trace.count("  File ") == 2
    assert "importlib" not in trace
