"""What runners may ask, and how it is answered: arguments by annotation, errors as faults, ids that pair."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from msgspec import Raw, Struct

from dispatch.terms.outcome import Fault
from dispatch.wire.calls import Calls, CallTable, remote, remote_names
from dispatch.wire.frames import Answer, Call

pytestmark = pytest.mark.asyncio


class Key(Struct):
    """An argument and a result with fields."""

    model: str
    number: int = 0


class Limit(pydantic.BaseModel):
    """An argument that pydantic checks."""

    tokens: int = pydantic.Field(gt=0)


class Base:
    """What every centre of the tests answers."""

    @remote
    def within(self, limit: Annotated[int, msgspec.Meta(ge=0)]) -> int:
        """Answer."""
        return limit

    @remote
    def inherited(self) -> str:
        """Answer."""
        return "base"


class Center(Base):
    """A centre of many answers."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    @remote
    async def next_key(self, model: str, *, number: int = 7) -> Key:
        """Answer on the loop."""
        await asyncio.sleep(0)
        return Key(model, number)

    @remote
    def take(self, key: Key, limit: Limit | None = None, *rest: int, **more: str) -> None:
        """Remember what came."""
        self.asked.append((key, limit, rest, more))

    @remote
    def plain(self, anything, other=None) -> Any:
        """Give back what came, in no type."""
        return [anything, other]

    @remote
    def fail(self) -> None:
        """Raise."""
        raise LookupError("nothing there")

    @remote
    def odd(self) -> Any:
        """Return what cannot travel."""
        return {"lock": [threading.Lock()]}

    @remote
    def later(self) -> Awaitable[str]:
        """Return something to wait for, without being async itself."""
        return asyncio.ensure_future(asyncio.sleep(0, "later"))

    def secret(self) -> str:
        """Not for runners."""
        return "secret"


def fault_of(error: BaseException) -> Fault:
    """Return the fault for an exception, as short as can be."""
    return Fault(cause="raised", type=type(error).__name__, message=str(error))


async def ask(method: str, *args: Any, center: Any = None, **kwargs: Any) -> Answer:
    """Ask a centre as a runner would."""
    call = Calls(1 << 20).ask(method, args, kwargs)
    return await CallTable(center or Center()).answer(call, fault_of=fault_of)


async def value_of(method: str, *args: Any, **kwargs: Any) -> Any:
    """Return the plain value of an answer that is no fault."""
    answer = await ask(method, *args, **kwargs)
    assert answer.fault is None
    return msgspec.msgpack.decode(answer.value)


# ---------------------------------------------------------------------------------------- answering


async def test_a_method_is_answered_by_name() -> None:
    """Positional and named arguments, an async method and a sync one, one that returns an awaitable."""
    assert await value_of("next_key", "gpt", number=2) == {"model": "gpt", "number": 2}
    assert await value_of("next_key", model="gpt") == {"model": "gpt", "number": 7}
    assert await value_of("plain", 1, other=[2]) == [1, [2]]
    assert await value_of("later") == "later"
    assert await value_of("inherited") == "base"


async def test_arguments_arrive_in_the_types_of_their_annotations() -> None:
    """A Struct and a pydantic model arrive as such; what is not annotated, *args and **kwargs arrive plain."""
    center = Center()
    await ask("take", Key("a", 1), Limit(tokens=5), 1, 2, center=center, note="x")
    await ask("take", {"model": "b"}, center=center)
    assert center.asked == [(Key("a", 1), Limit(tokens=5), (1, 2), {"note": "x"}), (Key("b"), None, (), {})]
    assert await value_of("plain", (1, Key("c"))) == [[1, {"model": "c", "number": 0}], None]


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "kind", "says"),
    [
        (
            "nothing",
            (),
            {},
            "AttributeError",
            "Center has no @remote method 'nothing' (it has: fail, inherited, ",
        ),
        ("secret", (), {}, "AttributeError", "Center has no @remote method 'secret'"),
        ("__init__", (), {}, "AttributeError", "Center has no @remote method '__init__'"),
        ("next_key", (), {}, "TypeError", "missing a required argument: 'model'"),
        ("next_key", ("a", "b"), {}, "TypeError", "too many positional arguments"),
        ("next_key", ("a",), {"nope": 1}, "TypeError", "got an unexpected keyword argument 'nope'"),
        ("next_key", (1,), {}, "ValidationError", "Expected `str`, got `int`"),
        ("take", ({"model": 1},), {}, "ValidationError", "Expected `str`, got `int` - at `$.model`"),
        ("take", (Key("a"), {"tokens": 0}), {}, "ValidationError", "greater than 0"),
        ("within", (-5,), {}, "ValidationError", "Expected `int` >= 0"),
        ("fail", (), {}, "LookupError", "nothing there"),
        ("odd", (), {}, "NotImplementedError", "objects of type lock cannot be encoded"),
    ],
)
async def test_what_goes_wrong_is_the_askers(
    *, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], kind: str, says: str
) -> None:
    """A missing method, bad arguments, an exception, a value that cannot travel: a fault for the runner, no more."""
    answer = await ask(method, *args, **kwargs)
    assert answer.fault is not None
    assert answer.fault.type == kind
    assert says in answer.fault.message


async def test_a_centre_without_remote_methods_says_so() -> None:
    """Who asks it is told that there is nothing to ask."""
    answer = await ask("next_key", center=object())
    assert answer.fault is not None
    assert "has no @remote method 'next_key' (it has: none)" in answer.fault.message


async def test_cancelling_an_answer_cancels_the_method() -> None:
    """A cancellation is not an answer: it goes through."""
    begun = asyncio.Event()

    class Slow:
        @remote
        async def wait(self) -> None:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(ask("wait", center=Slow()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_garbage_for_arguments_is_a_fault() -> None:
    """A call whose arguments are no arrays and maps is answered like any other bad call."""
    call = Call(3, "plain", Raw(b"\xc1"), Raw(b"\x80"))
    answer = await CallTable(Center()).answer(call, fault_of=fault_of)
    assert answer.call == 3
    assert answer.fault is not None


# ------------------------------------------------------------------------------------------- asking


async def test_questions_are_numbered_and_answers_carry_the_number() -> None:
    """Each question has an id of its own, and its answer the same one."""
    calls, table = Calls(1 << 20), CallTable(Center())
    asked = [calls.ask("plain", (n,), {}) for n in range(3)]
    answers = [await table.answer(call, fault_of=fault_of) for call in reversed(asked)]
    assert [call.call for call in asked] == [1, 2, 3]
    assert [answer.call for answer in answers] == [3, 2, 1]
    assert [msgspec.msgpack.decode(answer.value)[0] for answer in answers] == [2, 1, 0]


async def test_a_question_that_is_passed_on_gets_a_new_number() -> None:
    """Who asks for another uses ids of its own, and changes nothing else."""
    calls = Calls(1 << 20)
    calls.ask("plain", (1,), {})
    passed = calls.renumber(Call(99, "plain", Raw(b"\x91\x07"), Raw(b"\x80")))
    assert (passed.call, passed.method, bytes(passed.args), bytes(passed.kwargs)) == (
        2,
        "plain",
        b"\x91\x07",
        b"\x80",
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((1, threading.Lock()), {}, r"center.plain: the arguments of type tuple .*: lock at \$\[1\]"),
        ((1,), {"other": 10**100}, r"center.plain: the arguments of type dict .*: int at \$\['other'\]"),
        (("\udc80",), {}, r"center.plain: .* str at \$\[0\]"),
    ],
    ids=range(3),
)
async def test_an_argument_that_cannot_travel_is_a_type_error(
    args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    """It is raised where the question is asked, names the culprit, and uses up no number."""
    calls = Calls(1 << 20)
    with pytest.raises(TypeError, match=says):
        calls.ask("plain", args, kwargs)
    assert calls.ask("plain", (), {}).call == 1


async def test_the_remote_methods_of_a_class_are_known_without_making_one() -> None:
    """A centre that lacks an answer can be told before it opens."""
    assert remote_names(Center) == {
        "fail",
        "inherited",
        "later",
        "next_key",
        "odd",
        "plain",
        "take",
        "within",
    }
    assert remote_names(object) == frozenset()
