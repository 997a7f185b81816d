"""Exceptions that come back: in their original type where that is safe, and running no code of a worker's choice."""

import asyncio
import concurrent.futures
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from dispatch.terms.errors import RemoteError, RemoteTraceback
from dispatch.terms.outcome import Failed, Fault
from dispatch.terms.shard import Entry, Origin
from dispatch.worker.evidence import fault_of

ENTRY = Entry(4, b"\x07", Origin(1, bytes))


def rebuilt(error: BaseException) -> Exception:
    """Raise an exception, and return what its fault makes of it on the other side."""
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001  (also those that no runner should raise)
        return Failed(fault=fault_of(raised), entry=ENTRY).error()


class Wanting(Exception):
    """Its constructor takes other arguments than it keeps."""

    made = 0

    def __init__(self, code: int, *, reason: str) -> None:
        type(self).made += 1
        self.code = code
        super().__init__(f"{code}: {reason}")


class Nested:
    """A namespace."""

    class Inner(ValueError):
        """An exception with a dotted name."""


class Forgetful(Exception):
    """Its words are in an attribute that only `__init__` sets."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def __str__(self) -> str:
        return self.word


class Hostile(Exception):
    """Whoever asks it for its words is ended."""

    ending: type[BaseException] = SystemExit

    def __str__(self) -> str:
        raise self.ending


class Magic(Exception):
    """Being made anew would run code."""

    ran = 0

    def __new__(cls, *args: Any) -> Self:
        """Count."""
        cls.ran += 1
        return super().__new__(cls, *args)

    def __setstate__(self, state: Any) -> None:
        type(self).ran += 1


class LostFile(FileNotFoundError):
    """An OSError with a constructor of its own."""

    def __init__(self, path: str) -> None:
        super().__init__(2, "lost", path)


# ------------------------------------------------------------------------- original exceptions


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError(),
        ValueError("a", 1, None, 2.5),
        KeyError("k"),
        KeyError(("a", 1)[0]),
        IndexError(7),
        Nested.Inner("x"),
        MemoryError("much"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ImportError("no module"),
        asyncio.QueueEmpty("none"),
        concurrent.futures.CancelledError("a plain exception there"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_comes_back_in_its_type_with_its_arguments(error: Exception) -> None:
    """What the runner raised is what the caller catches: same type, same args, same words."""
    again = rebuilt(error)
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)


def test_an_os_error_comes_back_with_its_number_and_its_file() -> None:
    """The kind of OSError, `errno`, `strerror` and `filename` are those of the worker."""
    try:
        Path("/nowhere/to/be/found").read_bytes()
    except FileNotFoundError as error:
        again = Failed(fault=fault_of(error)).error()
        assert type(again) is FileNotFoundError
        assert (again.errno, again.strerror, again.filename) == (2, error.strerror, "/nowhere/to/be/found")
        assert str(again) == str(error)
        assert again.args == error.args
    broken = rebuilt(ConnectionResetError(104, "reset"))
    assert type(broken) is ConnectionResetError
    assert broken.errno == 104
    assert rebuilt(OSError("just words")).args == ("just words",)


def test_a_syntax_error_comes_back_with_its_place() -> None:
    """Code that does not compile says where."""
    try:
        compile("a = = 1", "candidate.py", "exec")
    except SyntaxError as error:
        again = Failed(fault=fault_of(error)).error()
        assert type(again) is SyntaxError
        assert (again.lineno, again.filename, again.msg) == (1, "candidate.py", error.msg)
        assert str(again) == str(error)


def test_an_exception_is_rebuilt_without_calling_its_constructor() -> None:
    """A constructor that wants other arguments is not called: the type and the words come back, attributes do not."""
    error = Wanting(7, reason="too late")
    before = Wanting.made
    again = rebuilt(error)
    assert type(again) is Wanting
    assert again.args == ("7: too late",)
    assert Wanting.made == before
    assert not hasattr(again, "code")


def test_an_os_error_with_a_constructor_of_its_own_comes_back() -> None:
    """Its own constructor is not called, the interpreter's is."""
    again = rebuilt(LostFile("/tmp/x"))
    assert type(again) is LostFile
    assert (again.errno, again.filename) == (2, "/tmp/x")


def test_making_it_anew_runs_no_code_of_its_class() -> None:
    """Neither `__new__` nor `__setstate__`: what a worker sends can run nothing here."""
    error = Magic("x")
    before = Magic.ran
    again = rebuilt(error)
    assert type(again) is Magic
    assert again.args == ("x",)
    assert Magic.ran == before


def test_arguments_that_do_not_travel_leave_the_words() -> None:
    """An exception whose args hold a lock comes back with its message instead."""
    again = rebuilt(LookupError(object))
    assert type(again) is LookupError
    assert again.args == ("<class 'object'>",)


def test_words_that_are_no_unicode_come_back_escaped() -> None:
    """A file name with stray bytes in an exception's words harms neither the frame that carries them nor the type."""
    again = rebuilt(ValueError("a\udc80b"))
    assert type(again) is ValueError
    assert str(again) == "a\\udc80b"


@pytest.mark.parametrize(
    "error", [Forgetful("remember me"), subprocess.CalledProcessError(1, "make")], ids=str
)
def test_words_that_only_a_constructor_makes_are_kept_otherwise(error: Exception) -> None:
    """An exception that cannot say its words without its constructor comes as RemoteError, which can."""
    again = rebuilt(error)
    assert type(again) is RemoteError
    assert str(again) == f"shard 4: {type(error).__name__}: {error}"


@pytest.mark.parametrize("ending", [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exception_that_attacks_its_reader_is_none(ending: type[BaseException]) -> None:
    """A `__str__` that raises, even SystemExit, ends neither worker nor caller: it is a RemoteError."""
    Hostile.ending = ending
    again = rebuilt(Hostile("x"))
    assert type(again) is RemoteError
    assert f"its __str__ raised {ending.__name__}" in str(again)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("stop"),
        BaseException("base"),
        StopIteration("a coroutine cannot raise it"),
        StopAsyncIteration(),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
        BaseExceptionGroup("two", [SystemExit(1)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_end_or_cancel_the_host_is_never_rebuilt(error: BaseException) -> None:
    """Only subclasses of Exception come back, and no groups: the others are a RemoteError that names them."""
    again = rebuilt(error)
    assert type(again) is RemoteError
    assert type(error).__name__ in str(again)


def test_a_group_tells_its_members() -> None:
    """The traceback of an ExceptionGroup names each exception in it."""
    again = rebuilt(ExceptionGroup("two", [ValueError("first"), KeyError("second")]))
    assert isinstance(again, RemoteError)
    assert isinstance(again.fault, Fault)
    assert "ValueError: first" in again.fault.traceback
    assert "KeyError: 'second'" in again.fault.traceback


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("wave", "Error"),
        ("no.such.module", "Error"),
        ("builtins", "NoSuchError"),
        ("builtins", "print"),
        ("builtins", "object"),
        ("builtins", "SystemExit"),
        ("builtins", ""),
        ("", ""),
        ("os", "path.sep"),
        ("tests.terms.test_rebuild", "Nested"),
        ("tests.terms.test_rebuild", "test_a_group_tells_its_members.<locals>.Error"),
        ("tests.terms.test_rebuild", "Nested.Inner.__class__"),
    ],
)
def test_a_name_that_is_no_loaded_exception_is_a_remote_error(module: str, kind: str) -> None:
    """What a worker calls it is looked up among what is loaded, and must be an exception."""
    assert module != "wave" or "wave" not in sys.modules
    error = Failed(fault=Fault(cause="raised", module=module, type=kind, message="m"), entry=ENTRY).error()
    assert type(error) is RemoteError
    assert str(error) == f"shard 4: {kind}: m"
    assert "wave" not in sys.modules


def test_a_lazy_module_is_not_made_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that imports when it is asked for a name is not asked: the name came from a worker."""
    asked: list[str] = []
    lazy = ModuleType("lazy_for_test")
    lazy.__getattr__ = lambda name: asked.append(name) or ValueError  # type: ignore[method-assign]  # PEP 562
    monkeypatch.setitem(sys.modules, "lazy_for_test", lazy)
    error = Failed(fault=Fault(cause="raised", module="lazy_for_test", type="Error", message="m")).error()
    assert type(error) is RemoteError
    assert asked == []


def test_a_fault_that_may_not_be_rebuilt_is_a_remote_error() -> None:
    """Under isolation="fork" nothing that a shard says is taken for more than words."""
    fault = fault_of(ValueError("x"), rebuild=False)
    assert type(Failed(fault=fault).error()) is RemoteError


def test_a_rebuilt_exception_shows_where_it_was_raised() -> None:
    """Its cause is the worker's traceback, so that whoever prints it sees the runner's line."""
    try:
        int("three")
    except ValueError as error:
        fault = fault_of(error)
    with pytest.raises(ValueError, match="three") as raised:
        Failed(fault=fault, entry=ENTRY).unwrap()
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    shown = "".join(traceback.format_exception(raised.value))
    assert "test_a_rebuilt_exception_shows_where_it_was_raised" in str(raised.value.__cause__)
    assert 'int("three")' in shown
    assert Path(__file__).name in shown
