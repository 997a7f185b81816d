"""What a runner sees of its centre."""

import msgspec
import pytest
from msgspec import Raw

from dispatch import RemoteError
from dispatch.terms.outcome import Fault
from dispatch.wire.codec import encode
from dispatch.wire.frames import Answer
from dispatch.worker.link import Link, answer_value


class Key(msgspec.Struct):
    name: str


def test_a_call_is_a_question() -> None:
    """`center.name(...)` asks for the name with its arguments, and returns what the lane makes of it."""
    asked = []
    center = Link(lambda *question: asked.append(question) or "answer")
    assert center.next_key("tiny", retry=True) == "answer"
    assert asked == [("next_key", ("tiny",), {"retry": True})]
    assert center.next_key.__name__ == "next_key"


def test_private_names_are_not_asked_for() -> None:
    """Python's own look-ups (`__len__`, pickling, copying) do not become questions."""
    center = Link(lambda *question: pytest.fail("asked"))
    with pytest.raises(AttributeError):
        _ = center._private
    assert not hasattr(center, "__len__")


def test_an_answer_has_the_type_of_the_protocol() -> None:
    """A value is decoded into what the runner's Protocol says."""
    answer = Answer(1, Raw(encode(Key("k"))))
    assert answer_value(answer, Key) == Key("k")
    assert answer_value(answer, dict) == {"name": "k"}
    with pytest.raises(msgspec.ValidationError):
        answer_value(answer, int)


def test_what_the_centre_raised_is_raised() -> None:
    """An exception of a loaded module comes back as itself, any other as RemoteError, with its traceback."""
    known = Fault(cause="raised", type="KeyError", module="builtins", message="'k'", args=encode(("k",)))
    with pytest.raises(KeyError, match="k"):
        answer_value(Answer(1, fault=known), int)
    told = Fault(cause="raised", type="KeyError", module="builtins", message="'k'", traceback="in next_key")
    with pytest.raises(KeyError) as caught:
        answer_value(Answer(1, fault=told), int)
    assert "in next_key" in str(caught.value.__cause__)
    unknown = Fault(cause="raised", type="Strange", module="no.such", message="odd")
    with pytest.raises(RemoteError, match="odd"):
        answer_value(Answer(1, fault=unknown), int)
