"""Bad input: what could never work is told at the earliest moment, with what is wrong and how to mend it.

Shards that make no sense stand in test_run.py and test_submit.py, scripts in test_main.py.
"""

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest

from dispatch import (
    ConfigError,
    DataParallelDispatchCenter,
    DispatchConfig,
    LocalDispatchCenter,
    Runner,
    RunnerError,
    Shard,
    remote,
)
from tests.center.facts import descendants
from tests.center.runners import Asker, AsyncActor, Job, Upper, double

if TYPE_CHECKING:
    from decimal import Decimal

ONE = DispatchConfig(data_parallel=1)


class NoRun(Runner):
    """Has no do_run."""


class NoShard(Runner):
    """Its do_run takes nothing."""

    def do_run(self) -> int:  # type: ignore[override]
        """Run what?"""
        return 1


class Wide(Runner):
    """Asks for tasks without being async."""

    concurrency = 2

    def do_run(self, shard: Shard[int]) -> int:
        """One at a time, whatever it says."""
        return shard.payload


class Unresolvable(Runner):
    """Its annotation exists for type checkers only."""

    def do_run(self, shard: "Shard[Decimal]") -> int:
        """Never runs."""
        return 1


class WantsMore(Protocol):
    """Asks what TwoKinds does not answer."""

    def next_key(self, model: str) -> str: ...


class Demanding(Runner[WantsMore]):
    """Has a question."""

    def do_run(self, shard: Shard[str]) -> str:
        """Ask it."""
        return self.center.next_key(shard.payload)


def keyword_only(x: int, *, strict: bool) -> int:
    """Cannot be called with a payload alone."""
    return x


def three(a: int, b: int, c: int) -> int:
    """Takes too much."""
    return a + b + c


def uses_decimal(x: "Decimal") -> int:
    """Its annotation exists for type checkers only."""
    return int(x)


def ambiguous(x: list[int] | tuple[int, ...]) -> int:
    """Takes what no decoder can tell apart."""
    return len(x)


def local_function() -> Any:
    """A function that workers cannot import."""

    def inner(x: int) -> int:
        return x

    return inner


def local_annotation() -> type[Runner]:
    """A runner whose annotation is local."""

    class Sample(msgspec.Struct):
        text: str

    class Inner(Runner):
        def do_run(self, shard: Shard[Sample]) -> int:
            return 1

    Inner.do_run.__annotations__["shard"] = "Shard[Sample]"
    return Inner


REFUSED = [
    (None, "runner is None: pass runner=..., or set the class attribute 'runner'"),
    (17, "it is neither a Runner class nor a function; pass one of the two"),
    (Job, "it is a class, but not a Runner; subclass dispatch.Runner, or pass a function"),
    (NoRun, "runner NoRun: it has no do_run; define do_run(self, shard)"),
    (NoShard, "runner NoShard: its do_run takes no shard; define do_run(self, shard)"),
    (Wide, "concurrency is 2, but do_run is not async; write async def do_run"),
    (lambda x: x, "a lambda has no name that workers could import; write a def in a module"),
    (local_function(), "it is defined inside a function, where workers cannot import it; move it to the top"),
    (local_annotation(), "its annotations cannot be resolved: name 'Sample' is not defined"),
    (Unresolvable, "its annotations cannot be resolved: name 'Decimal' is not defined; import it at the top"),
    (uses_decimal, "its annotations cannot be resolved: name 'Decimal' is not defined; import it at the top"),
    (ambiguous, "its annotations cannot be encoded"),
    (keyword_only, "it has required keyword-only parameters; give them defaults"),
    (three, "it has 3 required parameters; take one parameter (the payload), or two"),
    (Demanding, "it asks its centre for next_key; DataParallelDispatchCenter has no such @remote method"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("target", "sentence"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_runner_that_could_not_work_is_refused(target: Any, sentence: str) -> None:
    """The error comes when the centre opens, says what is wrong and how to mend it, and nothing was started."""
    before = descendants()
    with pytest.raises(ConfigError) as caught:
        await DataParallelDispatchCenter(target, [1], config=ONE).run()
    assert sentence in str(caught.value)
    assert descendants() <= before


class Answering(DataParallelDispatchCenter[int, int]):
    """Answers one of two questions, and calls the other something else."""

    runner = Asker

    @remote
    def add(self, a: int, b: int) -> int:
        """A plain def answers as well as an async one."""
        return a + b


@pytest.mark.asyncio
async def test_a_missing_answer_is_told_when_the_centre_opens() -> None:
    """The error names what the runner asks for, and what the centre has."""
    with pytest.raises(RunnerError, match="it asks its centre for refuse; Answering has no such @remote"):
        await Answering(config=ONE).open()


class Nothing(DataParallelDispatchCenter[str, str]):
    """Returns no runner."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self._found = found

    def init_runners(self) -> Any:
        """Whatever the test says."""
        return self._found


@pytest.mark.asyncio
@pytest.mark.parametrize("found", [None, [], Upper], ids=["None", "empty", "class"])
async def test_init_runners_must_return_runners(found: Any) -> None:
    """None, an empty list and a class that is not in a list are told, with what it must return."""
    with pytest.raises(
        ConfigError, match=r"Nothing.init_runners\(\) is .*: it must return the runner classes"
    ):
        await Nothing(found).run()


class InProcess(LocalDispatchCenter[str, str]):
    """Several runners in this process."""

    def __init__(self, runner: Any, others: list[Any]) -> None:
        super().__init__(runner)
        self._others = others

    def init_runners(self) -> list[Any]:
        """All of them."""
        return [self.runner, *self._others]


def namesake() -> type[Runner]:
    """A runner that shares its name with the module's Upper."""
    return type("Upper", (Upper,), {"__module__": "tests.center.elsewhere"})


@pytest.mark.asyncio
async def test_two_runners_of_one_name_are_refused() -> None:
    """Shards, codecs and the record know a runner by its name, so each class must have its own."""
    other = namesake()
    with pytest.raises(RunnerError, match="runner Upper: two runners of this centre have this name"):
        InProcess(runner=Upper, others=[other]).check()
    assert InProcess(runner=Upper, others=[Upper]).check() == [Upper, Upper]


def test_a_shard_cannot_be_subclassed() -> None:
    """What it had beside its fields would not reach the runner: so it is refused where it is written."""
    with pytest.raises(
        TypeError, match="Graded: a Shard cannot be subclassed; put what it has into the payload"
    ):
        type("Graded", (Shard,), {})


class HiddenParam(DataParallelDispatchCenter[int, int]):
    """Its shared param has an annotation for type checkers only."""

    runner = double

    def get_shared_param(self) -> "Decimal":
        """Never called."""
        raise AssertionError


class HiddenAnswer(DataParallelDispatchCenter[int, int]):
    """One of its answers has."""

    runner = double

    @remote
    def price(self, of: str) -> "Decimal":
        """Never asked."""
        raise AssertionError


@pytest.mark.asyncio
@pytest.mark.parametrize(("center", "method"), [(HiddenParam, "get_shared_param"), (HiddenAnswer, "price")])
async def test_the_annotations_of_a_centre_must_resolve(center: Any, method: str) -> None:
    """Told when it opens, before a worker would stumble over it."""
    before = descendants()
    with pytest.raises(RunnerError, match=f"annotations of {method} cannot be resolved: name 'Decimal'"):
        await center(shards=[1], config=ONE).run()
    assert descendants() <= before


def test_a_centre_wants_a_configuration() -> None:
    """A dict in the place of a DispatchConfig is refused by name."""
    with pytest.raises(ConfigError, match="it must be a DispatchConfig"):
        DataParallelDispatchCenter(double, config={"data_parallel": 2})  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data_parallel": 0}, "data_parallel is 0: it must be at least 1"),
        ({"policy": {"timeout": -1.0}}, "policy.timeout is -1.0: it must be more than 0"),
        ({"policy": {"timeout": 0.0}}, "policy.timeout is 0.0: it must be more than 0"),
        ({"max_pending": 0}, "max_pending is 0: it must be at least 1"),
        ({"data_paralel": 2}, "unknown field `data_paralel`"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields: dict[str, Any], sentence: str) -> None:
    """At once, by the name of its field."""
    with pytest.raises(ConfigError) as caught:
        DispatchConfig.load(fields)
    assert sentence in str(caught.value)


@pytest.mark.asyncio
async def test_fork_and_tasks_are_not_for_one_runner() -> None:
    """`isolation="fork"` with `concurrency` above one is refused: a fork copies one thread."""
    config = DispatchConfig.load({"data_parallel": 1, "policy": {"isolation": "fork"}})
    with pytest.raises(RunnerError, match="choose one of the two"):
        await DataParallelDispatchCenter(AsyncActor, config=config).open()
