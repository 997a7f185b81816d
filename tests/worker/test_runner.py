"""What is known of a runner before a worker starts: its description, the name that workers import, early errors."""

import functools
import math
import sys
import types
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec
import pytest

from dispatch import Runner, RunnerError, Shard
from dispatch.worker.runner import as_runner, describe, is_runner, load, reference

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

T = TypeVar("T")
C = TypeVar("C")


class Sample(msgspec.Struct):
    question: str


class Score(msgspec.Struct):
    right: bool


class Keys(Protocol):
    def next_key(self, model: str) -> str: ...


class Questions(Keys, Protocol):
    def how_many(self) -> int: ...

    def anything(self, *args): ...

    def _private(self) -> int: ...


class Scorer(Runner[Questions]):
    version = 3

    def do_run(self, shard: Shard[Sample]) -> Score:
        return Score(bool(shard.payload))


class Patient(Runner):
    concurrency = 5

    async def do_run(self, shard):
        return shard


class Inherits(Scorer):
    pass


class Generically(Runner, Generic[T]):
    def do_run(self, shard: Shard[T]) -> T:
        return shard.payload


class Asking(Runner[C]):
    def do_run(self, shard: Shard[Sample]) -> Score:
        return Score(bool(shard.payload))


class Between(Asking[Questions]):
    pass


class Outer:
    class Inner(Runner):
        """A runner within a class."""

        def do_run(self, shard: Shard) -> None: ...


def double(number: int) -> float:
    """Twice the number."""
    return 2.0 * number


async def scaled(number: int, table: dict[str, int], extra: str = "") -> list[int]:
    """The number times the shared factor."""
    return [number * table["factor"]]


def test_a_runner_is_described_by_its_annotations() -> None:
    """The payload's type, the value's, and what the runner may ask come from its annotations."""
    told = describe(Scorer)
    assert (told.name, told.payload_type, told.value_type) == ("Scorer", Sample, Score)
    assert (told.is_async, told.concurrency, told.version) == (False, 1, "3")
    assert told.questions == {"next_key": str, "how_many": int, "anything": Any}


def test_what_is_not_annotated_is_anything() -> None:
    """Missing annotations, a bare Shard and type variables mean plain types."""
    for runner in (Patient, Outer.Inner, Generically):
        assert describe(runner).payload_type is Any
    assert describe(Patient).value_type is Any
    assert describe(Generically).value_type is Any
    assert (describe(Patient).is_async, describe(Patient).concurrency) == (True, 5)
    assert describe(Patient).questions == {}


def test_a_subclass_asks_what_its_base_may_ask() -> None:
    """A subclass of a runner keeps its types and its questions."""
    assert describe(Inherits).questions == describe(Scorer).questions
    assert describe(Inherits).payload_type is Sample
    assert describe(Between).questions == describe(Scorer).questions
    assert describe(Asking).questions == {}


def test_a_function_is_described_by_its_parameters() -> None:
    """One required parameter is the payload, a second one the shared param; defaults do not count."""
    told = describe(double)
    assert (told.payload_type, told.value_type, told.takes_shared) == (int, float, False)
    told = describe(scaled)
    assert (told.payload_type, told.value_type, told.is_async) == (int, list[int], True)
    assert (told.takes_shared, told.shared_type) == (True, dict[str, int])


@pytest.mark.parametrize("builtin", [math.sqrt, len, functools.partial(scaled, 1)])
def test_a_callable_without_annotations_takes_a_payload(builtin) -> None:
    """A builtin or a callable object takes one payload of any type."""
    assert describe(builtin).payload_type is Any


class NoShard(Runner):
    def do_run(self) -> None: ...


class Empty(Runner):
    pass


class Nobody(Runner):
    concurrency = 0

    async def do_run(self, shard): ...


class Wordy(Runner):
    concurrency = "4"

    async def do_run(self, shard): ...


class SyncCrowd(Runner):
    concurrency = 2

    def do_run(self, shard): ...


class Unresolvable(Runner):
    def do_run(self, shard: "Shard[OnlyForTypeCheckers]") -> None: ...


class Hidden(Protocol):
    def secret(self) -> "OnlyForTypeCheckers": ...


class AsksTheHidden(Runner[Hidden]):
    def do_run(self, shard): ...


def unresolvable(payload: "OnlyForTypeCheckers") -> None:
    """See the test."""


def three(one, two, three):
    """See the test."""


def keyword_only(payload, *, model):
    """See the test."""


def nothing():
    """See the test."""


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Sample, "Sample: it is a class, but not a Runner; subclass dispatch.Runner"),
        (Empty, "Empty: it has no do_run; define do_run"),
        (NoShard, "takes no shard"),
        (Nobody, "concurrency is 0; it must be a whole number from 1"),
        (Wordy, "concurrency is '4'"),
        (SyncCrowd, "concurrency is 2, but do_run is not async; write async def do_run"),
        (
            Unresolvable,
            "Unresolvable: its annotations cannot be resolved: .*OnlyForTypeCheckers.*outside TYPE_CHECKING",
        ),
        (AsksTheHidden, "AsksTheHidden's secret: its annotations cannot be resolved"),
        (unresolvable, "unresolvable: its annotations cannot be resolved"),
        (three, "three: it has 3 required parameters; take one parameter"),
        (keyword_only, "required keyword-only parameters; give them defaults"),
        (nothing, "0 required parameters"),
        (42, "neither a Runner class nor a function"),
    ],
)
def test_what_can_never_work_is_refused_early(target, says) -> None:
    """A runner that no worker could use is an error that names it, says what is wrong, and how to mend it."""
    with pytest.raises(RunnerError, match=says):
        describe(target)


@pytest.mark.parametrize("target", [Scorer, Outer.Inner, double, scaled, math.sqrt])
def test_a_reference_leads_back(target) -> None:
    """What a reference names is the very class or function."""
    name = reference(target)
    assert name == f"{target.__module__}:{target.__qualname__}"
    assert load(name) is target


def shadowed() -> None:
    """See the test."""


first_shadowed = shadowed


def shadowed(payload) -> None:
    """See the test."""


class Defined:
    @staticmethod
    def inside():
        def local(payload): ...

        return local


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (lambda payload: payload, "a lambda has no name"),
        (Defined.inside(), "defined inside a function.*move it to the top of a module"),
        (first_shadowed, "workers would import .*shadowed, and that is something else"),
        (functools.partial(double, 1), "no importable name"),
    ],
)
def test_what_workers_could_not_import_is_refused(target, says) -> None:
    """A lambda, a local, a shadowed name or a nameless object is an error that says how to mend it."""
    with pytest.raises(RunnerError, match=f"(?s){says}"):
        reference(target)


@pytest.mark.parametrize("file", [None, "<stdin>"])
def test_an_interactive_main_is_refused(monkeypatch, file) -> None:
    """A function of a `__main__` that is not a file is refused; of one that is a file, it is not."""
    main = types.ModuleType("__main__")
    main.typed_in = types.FunctionType(double.__code__, {}, "typed_in")
    main.typed_in.__module__, main.typed_in.__qualname__ = "__main__", "typed_in"
    monkeypatch.setitem(sys.modules, "__main__", main)
    if file is not None:
        main.__file__ = file
    with pytest.raises(RunnerError, match="interactive __main__"):
        reference(main.typed_in)
    main.__file__ = __file__
    assert reference(main.typed_in) == "__main__:typed_in"


def test_a_function_stands_for_a_runner() -> None:
    """A function's runner calls it with the payload, and with the shared param if it takes one."""
    runner = as_runner(double)()
    assert runner.do_run(Shard(4)) == 8.0
    runner = as_runner(scaled)()
    runner.shared_param = {"factor": 10}
    coroutine = runner.do_run(Shard(4))
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    assert stopped.value.value == [40]


def test_a_runner_stands_for_itself() -> None:
    """A Runner class is used as it is, and only a Runner class is one."""
    assert as_runner(Scorer) is Scorer
    assert is_runner(Scorer)
    assert not is_runner(double)
    assert not is_runner(Sample)


def test_progress_without_a_worker_is_no_error() -> None:
    """A runner that is used on its own, in a test of the user's, may report progress to nobody."""
    runner = Scorer()
    runner.progress(1, 2)
    assert runner.setup() is None
    assert runner.teardown() is None
