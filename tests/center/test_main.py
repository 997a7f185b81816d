"""The main script: workers import it, so what stands in it must be found there and must not start again.

Each script runs in development mode with warnings as errors; nothing but what is expected may be on stderr.
"""

from pathlib import Path

import pytest

from tests.center.facts import ended

MAP = """
import asyncio, os, dispatch
def twice(x: int) -> int:
    print("child", os.getpid(), flush=True)
    return 2 * x
{guard}
    print(asyncio.run(dispatch.map(twice, [1, 2, 3], config=dispatch.DispatchConfig(data_parallel=1))))
"""
GUARDED = MAP.format(guard="if __name__ == '__main__':")
UNGUARDED = MAP.format(guard="if True:")


def last_line(text: str) -> str:
    """What a traceback ends with."""
    return text.strip().splitlines()[-1]


def test_a_function_of_the_main_script_is_found(tmp_path: Path) -> None:
    """A guarded script may map a function of its own, and prints nothing else."""
    path = tmp_path / "script.py"
    path.write_text(GUARDED)
    assert ended(str(path)) == (0, "[2, 4, 6]\n", "")


def test_an_unguarded_script_is_told_to_guard_itself(tmp_path: Path) -> None:
    """The error names the line that is missing; no worker starts the centre again, and nothing is left behind."""
    path = tmp_path / "script.py"
    path.write_text(UNGUARDED)
    code, out, err = ended(str(path))
    assert (code, out) == (1, "")
    assert "StartupFailed" in last_line(err)
    assert "put the start under: if __name__ == '__main__':" in last_line(err)
    assert "ResourceWarning" not in err
    assert err.count("Traceback (most recent call last)") == 1


LOGS = """
import asyncio, logging, sys, dispatch
logging.basicConfig(format="%(message)s")
for name in ("mine", "dispatch.runner"):
    logging.getLogger(name).setLevel(logging.INFO)
opened = open({path!r}, "a", buffering=1)
def tell(x: int) -> int:
    logging.getLogger("mine").info("from shard %d", x)
    print("into the script's file", x, file=opened)
    return x
if __name__ == "__main__":
    center = dispatch.DataParallelDispatchCenter(tell, [7], config=dispatch.DispatchConfig(data_parallel=1))
    asyncio.run(center.run())
    opened.close()
    with open({path!r}) as again:
        print(again.read(), end="")
"""


def test_what_the_main_script_opened_works_in_workers(tmp_path: Path) -> None:
    """Its log handlers reach the parent, as `dispatch.runner`; its files are written, and by nobody else."""
    path, file = tmp_path / "script.py", tmp_path / "file"
    path.write_text(LOGS.format(path=str(file)))
    code, out, err = ended(str(path))
    assert (code, out) == (0, "into the script's file 7\n")
    assert err.splitlines() == ["from shard 7"]


def test_a_function_of_an_interactive_main_is_refused() -> None:
    """Neither `python -c` nor a script on stdin can be imported by workers: told before one is started."""
    sentence = (
        "twice: it is defined in an interactive __main__ that workers cannot import; move it to a module"
    )
    code, _, err = ended("-c", GUARDED)
    assert code == 1
    assert last_line(err).endswith(sentence)
    code, _, err = ended("-", stdin=GUARDED)
    assert code == 1
    assert last_line(err).endswith(sentence)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import sys; sys.argv[1]", "IndexError: list index out of range"),
        ("assert __name__ == '__main__'", "AssertionError"),
        ("from .sibling import thing", "ImportError: attempted relative import"),
    ],
)
def test_a_script_that_workers_cannot_import_is_told_why(tmp_path: Path, line: str, reason: str) -> None:
    """The reason that the worker met, the script, and the cure, once."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sibling.py").write_text("thing = 1")
    (package / "__main__.py").write_text(f"{line}\n{GUARDED}")
    code = f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['x', 'argument']\n"
    (tmp_path / "start.py").write_text(
        code + "runpy.run_module('package', run_name='__main__', alter_sys=True)"
    )
    status, out, err = ended(str(tmp_path / "start.py"))
    assert (status, out) == (1, "")
    assert "StartupFailed" in last_line(err)
    assert reason in last_line(err)
    assert "__main__.py): it must import cleanly under another name, without arguments" in last_line(err)
