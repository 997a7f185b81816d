"""An exception as a fault, whatever it does to prevent that; a death as a fault."""

import signal
import threading

import msgspec
import pytest

from dispatch import Failed, GiveUp, RemoteError, RetryLater
from dispatch.wire.codec import encode
from dispatch.wire.frames import Ended
from dispatch.worker.evidence import LONGEST, clip, end_fault, fault_of, own_stack, startup_fault


def raised(error: BaseException) -> BaseException:
    """The error, raised once, so that it has a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001  (that is what for)
        return caught


class TwoArguments(Exception):
    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")


class BadStr(Exception):
    def __str__(self):
        raise ZeroDivisionError


class ExitingStr(Exception):
    def __str__(self):
        raise SystemExit(3)


class BadArgs(Exception):
    @property
    def args(self):
        raise ZeroDivisionError


class NoLuck(type):
    def __getattribute__(cls, name):
        if name == "__qualname__":
            raise ZeroDivisionError
        return super().__getattribute__(name)


class BadName(Exception, metaclass=NoLuck):
    pass


class Liar(Exception):
    @property
    def __class__(self):
        raise ZeroDivisionError


class BadNotes(Exception):
    @property
    def __notes__(self):
        raise ZeroDivisionError


class BadAfter(RetryLater):
    after = "soon"

    def __init__(self):
        Exception.__init__(self)


class BadRepr:
    def __repr__(self):
        raise ZeroDivisionError


class Endless(Exception):
    def __str__(self):
        return str(self)


class OwnGiveUp(GiveUp):
    pass


HOSTILE = {  # made in the test: pytest looks at what it is given, and these do not like that
    "two arguments": lambda: TwoArguments(7, "seven"),
    "bad str": lambda: BadStr("x"),
    "exiting str": lambda: ExitingStr("x"),
    "bad args": lambda: BadArgs("x"),
    "bad name": lambda: BadName("x"),
    "liar": lambda: Liar("x"),
    "bad notes": lambda: BadNotes("x"),
    "bad after": BadAfter,
    "endless": lambda: Endless("x"),
    "bad repr": lambda: Exception(BadRepr()),
    "lock": lambda: Exception(threading.Lock()),
    "no text": lambda: Exception("\ud800 is no text"),
    "long": lambda: Exception("x" * 10_000_000),
    "many": lambda: Exception(*range(100_000)),
    "group": lambda: ExceptionGroup(
        "g", [ValueError("x" * 10**6), BadStr(), ExceptionGroup("z", [KeyError(1)])]
    ),
    "base group": lambda: BaseExceptionGroup("several", [KeyboardInterrupt()]),
    "interrupt": KeyboardInterrupt,
    "generator exit": GeneratorExit,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_exception_can_be_told(name) -> None:
    """Whatever an exception does, there is a fault for it that travels, of bounded size, with its type."""
    error = HOSTILE[name]()
    fault = fault_of(raised(error), output="printed")
    assert fault.cause == "raised"
    assert fault.type == type.__getattribute__(type(error), "__name__")
    assert fault.output == "printed"
    body = encode(fault)
    assert len(body) < 5 * LONGEST
    arrived = msgspec.msgpack.decode(body, type=type(fault))
    with pytest.raises(Exception):  # noqa: B017, PT011  (which one is the next test's)
        Failed(fault=arrived).unwrap()


@pytest.mark.parametrize(
    ("error", "back"),
    [
        (ValueError("plain"), ValueError("plain")),
        (KeyError("k", 1), KeyError("k", 1)),
        (FileNotFoundError(2, "No such file", "/x"), FileNotFoundError(2, "No such file", "/x")),
    ],
)
def test_plain_arguments_come_back(error, back) -> None:
    """What was raised with plain arguments is the same exception on the other side."""
    made = Failed(fault=fault_of(raised(error))).error()
    assert type(made) is type(back)
    assert (made.args, str(made)) == (back.args, str(back))


def test_a_constructor_is_not_called_again() -> None:
    """An exception whose constructor takes other arguments comes back as itself, with its message."""
    made = Failed(fault=fault_of(raised(TwoArguments(7, "seven")))).error()
    assert type(made) is TwoArguments
    assert str(made) == "7: seven"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), ExceptionGroup("g", [OSError()])]
)
def test_what_could_end_the_host_does_not_come_back(error) -> None:
    """What is no plain Exception is a RemoteError on the other side, and so is everything where that is asked for."""
    assert type(Failed(fault=fault_of(raised(error))).error()) is RemoteError
    assert type(Failed(fault=fault_of(raised(ValueError()), rebuild=False)).error()) is RemoteError


def test_a_long_message_is_cut_and_says_so() -> None:
    """Of a long text both ends remain, and the number of characters between them."""
    text = clip("a" * LONGEST + "m" * 1_000_000 + "z" * LONGEST)
    assert text.startswith("a" * 100)
    assert text.endswith("z" * 100)
    assert f"[... {1_000_000 + LONGEST:,} characters cut ...]" in text
    assert clip("short \ud800") == "short \\ud800"


def test_the_traceback_begins_with_the_users_code() -> None:
    """A traceback shows the user's frames and the chain of causes, and none of the worker's."""
    namespace = {}
    exec(compile("def lane(run): run()", "/x/dispatch/worker/sync_lane.py", "exec"), namespace)

    def run():
        try:
            _ = {}["missing"]
        except KeyError as error:
            raise ValueError("chained") from error

    with pytest.raises(ValueError, match="chained") as caught:
        namespace["lane"](run)
    text = fault_of(caught.value).traceback
    assert "KeyError: 'missing'" in text
    assert "direct cause" in text
    assert "in run" in text
    assert "/dispatch/worker/" not in text


def test_orders_of_the_runner_are_kept() -> None:
    """GiveUp and its kind are final; RetryLater carries its seconds; anything else is neither."""
    for error, final, after in [
        (GiveUp("no"), True, None),
        (OwnGiveUp("no"), True, None),
        (RetryLater(after=2.5), False, 2.5),
        (ValueError(), False, None),
    ]:
        fault = fault_of(raised(error))
        assert (fault.final, fault.after) == (final, after)


@pytest.mark.parametrize(("code", "told"), [(3, 3), (None, 0), ("bye", 1), (0, 0)])
def test_a_soft_exit_keeps_its_code(code, told) -> None:
    """A SystemExit is told with the code that the process would have had."""
    assert fault_of(raised(SystemExit(code))).exit_code == told
    assert fault_of(raised(ValueError(code))).exit_code is None


def test_a_failed_start_is_final() -> None:
    """What fails before a worker is ready is of cause startup, says where, and is not tried again."""
    fault = startup_fault(raised(RetryLater(after=1)), output="half way")
    assert (fault.cause, fault.final, fault.after, fault.output) == ("startup", True, None, "half way")
    assert "RetryLater" in fault.traceback


def ended(**facts) -> Ended:
    """An end, of which a test says what matters."""
    plain = {
        "life": 1,
        "pid": 412,
        "why": "",
        "signal": None,
        "exit_code": None,
        "seq": 1,
        "started": 10.0,
        "at": 12.5,
    }
    return Ended(**{**plain, "stack": "", "output": "", **facts})


@pytest.mark.parametrize(
    ("facts", "cause", "says"),
    [
        ({"exit_code": 7}, "crashed", "worker 412 exited with code 7"),
        ({"signal": signal.SIGSEGV}, "crashed", "died of SIGSEGV"),
        ({"signal": 63}, "crashed", "died of signal 63"),
        ({"why": "stopped", "signal": signal.SIGSTOP}, "crashed", "stopped itself"),
        ({"why": "nanny"}, "crashed", "its nanny died"),
        ({"why": "timed_out", "signal": 9}, "timed_out", "killed after 2.50 s"),
        ({"why": "startup", "signal": 9}, "startup", "startup_timeout"),
        ({"why": "memory", "signal": 9}, "out_of_memory", "memory_limit"),
    ],
)
def test_a_death_is_a_fault(facts, cause, says) -> None:
    """How a process ended is a cause, a sentence, and the exact signal or exit code."""
    fault = end_fault(ended(stack="File x", output="last words", **facts))
    assert fault.cause == cause
    assert says in fault.message
    assert (fault.signal, fault.exit_code) == (facts.get("signal"), facts.get("exit_code"))
    assert (fault.stack, fault.output) == ("File x", "last words")


def test_nonsense_is_a_crash() -> None:
    """A worker that was killed for what it sent has crashed, whatever killed it."""
    fault = end_fault(ended(why="killed", signal=9), nonsense=True)
    assert fault.cause == "crashed"
    assert "no frame" in fault.message


def test_a_stack_ends_where_our_own_begins() -> None:
    """Of faulthandler's dump the user's frames of every thread remain."""
    dump = """Fatal Python error: Segmentation fault

Current thread 0x01 (most recent call first):
  File "/home/user/work.py", line 3 in inner
  File "/home/user/work.py", line 9 in do_run
  File "/x/dispatch/worker/sync_lane.py", line 125 in _work
  File "/usr/lib/runpy.py", line 88 in _run_code

Thread 0x02 (most recent call first):
  File "/home/user/other.py", line 1 in waits

Extension modules: msgspec._core (total: 1)
"""
    stack = own_stack(dump)
    assert "line 3 in inner" in stack
    assert "line 9 in do_run" in stack
    assert "other.py" in stack
    for ours in ("sync_lane", "runpy", "Extension modules"):
        assert ours not in stack
