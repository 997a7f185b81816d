"""Every command has help that fits a screen, with an example; both doors are the same program."""

import subprocess
import sys

import pytest

from tests.cli.terminal import ROOT, dispatch, environment

COMMANDS = ["run", "plan", "status", "stop", "show", "export", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen(command: str) -> None:
    """24 lines of 80 columns, the prompt included, with an example of this command."""
    said = dispatch(command, "--help")
    assert said.code == 0
    lines = said.out.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert f"Example: dispatch {command} " in said.out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_list_of_commands(arguments: list[str]) -> None:
    """Without a command, or with --help, every command is listed with a whole sentence."""
    said = dispatch(*arguments)
    shown = said.out + said.err
    listed = [line.split() for line in shown.split("Commands:\n")[1].splitlines() if line.startswith("  ")]
    assert [words[0] for words in listed if words][: len(COMMANDS)] == COMMANDS
    assert "..." not in shown.split("Commands:")[1]
    assert len(shown.splitlines()) < 24


def test_the_program_of_the_package_is_main() -> None:
    """What pyproject installs as `dispatch` is what `python -m dispatch` runs."""
    import tomllib

    from dispatch.cli import main

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"dispatch": f"{main.__module__}:{main.__name__}"}


def test_completion() -> None:
    """The shell is told which commands begin with these letters."""
    ended = subprocess.run(
        [sys.executable, "-m", "dispatch"],
        cwd=ROOT,
        env={
            **environment(),
            "_DISPATCH_COMPLETE": "complete_bash",
            "COMP_WORDS": "dispatch st",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout.split() == ["status", "stop"]


def test_without_the_extra() -> None:
    """One line says what is missing and how to get it; exit code 2."""
    code = "import sys; sys.modules['typer'] = None\nfrom dispatch.cli import main\nmain()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "dispatch: the command line needs typer: pip install 'dispatch-center[cli]'\n"
