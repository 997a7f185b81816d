"""What is left behind is found: processes that ran away, sockets, files; and the front door of dispatch.testing."""

import os
import socket
import subprocess
import sys
import tempfile

import pytest

from dispatch import testing
from dispatch.testing import leaves_nothing, proof, until
from dispatch.testing.proof import expected, require
from dispatch.testing.traces import is_alive, processes

pytestmark = pytest.mark.asyncio
RUNAWAY = """if True:
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            os.close(1)
            time.sleep(30)
        os._exit(0)
    os.wait()
"""


async def test_nothing_left_is_nothing_said() -> None:
    """What goes within the time is not left."""
    async with leaves_nothing():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
    child.wait()


async def test_a_process_that_ran_away_is_found() -> None:
    """A double-forked daemon of another session is named, with its pid and its command line."""
    with pytest.raises(AssertionError, match=r"left behind: process (\d+) \(.*python") as caught:
        async with leaves_nothing(within=0.1):
            done = subprocess.run([sys.executable, "-c", RUNAWAY], stdout=subprocess.PIPE, check=True)
            daemon = int(done.stdout)
            assert daemon in processes()
    os.kill(daemon, 9)
    assert str(daemon) in str(caught.value)
    assert await until(lambda: not is_alive(daemon))


async def test_sockets_and_files_are_found() -> None:
    """An open socket, a nameless file, an address and a file of ours are left behind, each by its name."""
    leaks = []
    with pytest.raises(AssertionError) as caught:
        async with leaves_nothing(within=0.1):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(f"\0dispatch-{os.getpid()}-left")
            named = tempfile.NamedTemporaryFile(prefix="dispatch-left-")  # noqa: SIM115  (left, on purpose)
            nameless = tempfile.TemporaryFile()  # noqa: SIM115  (so is this)
            leaks += [sock, named, nameless]
    for leak in leaks:
        leak.close()
    for what in ("socket:", "(deleted)", f"@dispatch-{os.getpid()}-left", "dispatch-left-"):
        assert what in str(caught.value)


async def test_what_was_there_before_is_not_blamed() -> None:
    """Only what is new is left behind."""
    with socket.socket(socket.AF_UNIX):
        async with leaves_nothing(within=0.1):
            pass


async def test_an_error_comes_first() -> None:
    """What the block raises is not hidden by what it left."""
    with socket.socket() as sock, pytest.raises(LookupError):
        async with leaves_nothing(within=0.1):
            sock.detach()
            raise LookupError


async def test_the_dead_are_not_alive() -> None:
    """Neither a zombie nor a number that nobody has is alive."""
    child = subprocess.Popen(["/bin/true"])
    assert await until(lambda: not is_alive(child.pid))
    child.wait()
    assert not is_alive(2**22)
    assert is_alive(os.getpid())


async def test_waiting_is_bounded(monkeypatch) -> None:
    """`until` says whether it came true, and does not wait longer than it may."""
    monkeypatch.setattr(proof, "PATIENCE", 0.05)
    assert await until(lambda: True)
    assert not await until(lambda: False)
    assert not await until(lambda: False, within=0.01)


async def test_a_check_speaks() -> None:
    """What is required and does not hold is an AssertionError with its detail; so is an error that does not come."""
    require(1, "fine")
    with pytest.raises(AssertionError, match="not so"):
        require(0, "not so")
    with expected(KeyError, "no error") as errors:
        raise KeyError("k")
    assert errors[0].args == ("k",)
    with pytest.raises(AssertionError, match="no error"), expected(KeyError, "no error"):
        pass
    with pytest.raises(LookupError), expected(KeyError, "no error"):
        raise LookupError


async def test_every_public_name_resolves() -> None:
    """Every name in `__all__` can be had, and an unknown one is an AttributeError."""
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = testing.no_such_name


async def test_scripts_cost_a_worker_no_centre() -> None:
    """What a worker imports to play scripts brings neither a centre nor an event loop."""
    code = """if True:
        import sys
        import dispatch.testing.script
        print([name for name in sys.modules if name in ("asyncio", "anyio") or "dispatch.center" in name])
    """
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"[]\n"
