"""Things to do in a fork, because they are not for the process that runs the tests."""

import faulthandler
import os
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import msgspec

from dispatch.worker.output import Capture
from dispatch.worker.slot import Slot


def fork() -> int:
    """`os.fork`, without Python's warning that other tests have left threads: what we do there needs none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # pytest's: a death that is wanted is not told
    return pid


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What `work` returns in a process of its own. Raises AssertionError with what went wrong there."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        _work(work, writer)
    os.close(writer)
    with open(reader, "rb") as file:
        told = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    result = msgspec.msgpack.decode(told)
    if isinstance(result, dict) and "error" in result:
        raise AssertionError(result["error"])
    return result


def captured_in_a_fork(captured: tuple[int, Slot], work: Callable[[Capture], Any]) -> Any:
    """The same in a process whose output is captured in a file, as a runner's is."""

    def capture_and_work() -> Any:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        return work(Capture(*captured))

    return in_a_fork(capture_and_work)


def _work(work: Callable[[], Any], writer: int) -> None:
    try:
        result = work()
    except BaseException:  # noqa: BLE001  (told to the parent)
        result = {"error": traceback.format_exc()}
    with open(writer, "wb") as file:
        file.write(msgspec.msgpack.encode(result))
    os._exit(0)
