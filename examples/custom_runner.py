"""The worker's side of `custom_center`: what a runner may ask of its centre is a Protocol."""

from typing import Protocol

import msgspec

from dispatch import Runner, Shard


class Sample(msgspec.Struct):
    """A question, and the answer that is right."""

    question: str
    answer: str


class Score(msgspec.Struct):
    """Whether the model was right, and whose key paid for it."""

    correct: bool
    key: str


class Questions(Protocol):
    """What a ScoreRunner asks; ScoreCenter answers."""

    def next_key(self, model: str) -> str: ...


class ScoreRunner(Runner[Questions]):
    """Asks the centre for a key, "calls a model" with it, and compares."""

    shared_param: dict[str, str]

    def do_run(self, shard: Shard[Sample]) -> Score:
        """The call blocks this worker only, until the centre's event loop has answered."""
        key = self.center.next_key("tiny")
        said = self.shared_param.get(shard.payload.question, "no idea")
        return Score(correct=said == shard.payload.answer, key=key)
