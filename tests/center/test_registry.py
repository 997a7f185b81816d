"""Names of centres: ours, registered ones, and those of installed packages."""

import asyncio
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dispatch import (
    ConfigError,
    DataParallelDispatchCenter,
    DispatchCenter,
    DispatchConfig,
    DummyDispatchCenter,
    LocalDispatchCenter,
    RunnerType,
    register,
)
from dispatch.center import registry
from tests.center.facts import ROOT
from tests.center.runners import double


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (RunnerType.DUMMY, DummyDispatchCenter),
        ("local", LocalDispatchCenter),
        (RunnerType.DATA_PARALLEL, DataParallelDispatchCenter),
    ],
)
def test_a_name_stands_for_a_centre(name: Any, kind: type) -> None:
    """`DispatchCenter.init` makes the centre that `config.runner_type` names, as text or as a RunnerType."""
    config = DispatchConfig(runner_type=name)
    center = DispatchCenter.init(config, double, [1, 2], shared_param=3)
    assert type(center) is kind
    assert (center.runner, center.shards, center.config) == (double, [1, 2], config)


def test_without_a_configuration_work_goes_to_processes() -> None:
    """The default of `runner_type` is data_parallel."""
    assert type(DispatchCenter.init(None, double)) is DataParallelDispatchCenter


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    """And with the two ways to add one."""
    with pytest.raises(
        ConfigError, match="known are data_parallel, dummy, local; others by @register or"
    ) as caught:
        DispatchCenter.init(DispatchConfig(runner_type="datta_parallel"))
    assert "runner_type is 'datta_parallel'" in str(caught.value)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_places", dict(registry._places))
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))


@pytest.mark.usefixtures("names")
def test_a_class_may_be_registered() -> None:
    """`@register("name")` makes it known, twice is once, and a name that is taken stays where it is."""

    @register("quiet")
    class Quiet(LocalDispatchCenter):
        """Prints nothing."""

    assert register("quiet")(Quiet) is Quiet
    config = DispatchConfig(runner_type="quiet")
    assert type(DispatchCenter.init(config, double)) is Quiet
    assert asyncio.run(DispatchCenter.init(config, double, [1, 2]).run()).values() == [2, 4]
    for name in ("quiet", "local"):
        with pytest.raises(ConfigError, match=f"register is '{name}': the name is taken by "):
            register(name)(DummyDispatchCenter)


@pytest.mark.usefixtures("names")
def test_a_name_that_leads_nowhere_is_told() -> None:
    """The place that it stands for, and what happened there."""
    registry._places["lost"] = "no_such_module:Center"
    registry._places["gone"] = "dispatch.center.local:Gone"
    with pytest.raises(
        ConfigError, match="it stands for no_such_module:Center, which failed to load: No module"
    ):
        DispatchCenter.init(DispatchConfig(runner_type="lost"))
    with pytest.raises(ConfigError, match="has no attribute 'Gone'"):
        DispatchCenter.init(DispatchConfig(runner_type="gone"))


# Someone else's package: one file, which touches nothing of ours.

LOUD = '''
"""A centre that says what it did."""

from dispatch import DataParallelDispatchCenter, Report


class LoudCenter(DataParallelDispatchCenter):
    """Three workers, whatever the configuration says."""

    def init_runners(self) -> list:
        return [super().init_runners()[0]] * 3

    async def post_process(self, report: Report) -> None:
        await super().post_process(report)
        print(f"LOUD: {report.counts}")
'''

PROGRAM = '''
import asyncio, os
from dispatch import DataParallelDispatchCenter, DispatchCenter, DispatchConfig, remote
from tests.center.runners import Asker, double

class Mine(DataParallelDispatchCenter):
    """A user's own centre, put on the installed one."""
    runner = Asker
    @remote
    def add(self, a: int, b: int) -> int:
        return a + b
    @remote
    def refuse(self, why: str) -> int:
        raise ValueError(why)

async def main():
    config = DispatchConfig.load({"runner_type": "loud", "data_parallel": 1})
    center = DispatchCenter.init(config, double, range(3))
    print(type(center).__module__, type(center).__name__, len(center.init_runners()))
    print((await center.run()).values())
    mine = Mine.init(config, shards=[1, 2])
    print(isinstance(mine, Mine), len(mine.init_runners()), (await mine.run()).values())

if __name__ == "__main__":
    asyncio.run(main())
'''


def install(folder: Path) -> Path:
    """Build the wheel of a tiny package and install it; where it is."""
    wheel = folder / "loud_center-1.0-py3-none-any.whl"
    info = "loud_center-1.0.dist-info"
    files = {
        "loud_center.py": LOUD,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: loud-center\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[dispatch.centers]\nloud = loud_center:LoudCenter\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    site = folder / "site"
    if (
        find_spec("pip") is None
    ):  # an environment without an installer: unpacking is what one does with a wheel
        zipfile.ZipFile(wheel).extractall(site)
        return site
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "-qq", "--target", str(site)]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True, timeout=50)
    return site


def test_an_installed_package_brings_a_centre(tmp_path: Path) -> None:
    """One file and an entry point in the group `dispatch.centers`; users' own centres run on it as well."""
    site = install(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    environ = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "program.py")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "loud_center LoudCenter 3",
        "LOUD: {'done': 3}",
        "[0, 2, 4]",
        "LOUD: {'done': 2}",
        "True 3 [6, 9]",
    ]
