"""A service: the centre stays open, workers stay warm, and anyone in the event loop may submit.

A submit is an awaited call: its value comes back, or what it raised is raised here.
"""

import asyncio
import os
from fractions import Fraction

import msgspec

from dispatch import DataParallelDispatchCenter, DispatchConfig, ShardTimeout


class Answer(msgspec.Struct):
    """The worth of an expression, and which process found it."""

    value: float
    pid: int


def evaluate(expression: str) -> Answer:
    """The worth of `a / b`, or of `forever`, which takes that long."""
    while expression == "forever":
        pass
    over, under = expression.split("/")
    return Answer(float(Fraction(int(over), int(under))), os.getpid())


async def client(center: DataParallelDispatchCenter, number: int) -> list[Answer]:
    """One of many who submit at the same time, each awaiting answer after answer."""
    return [await center.submit(f"{number} / {under}") for under in range(1, 11)]


async def main() -> None:
    """Serve twenty clients, then two who ask for what cannot be had."""
    async with DataParallelDispatchCenter(evaluate, config=DispatchConfig(data_parallel=2)) as center:
        served = await asyncio.gather(*(client(center, number) for number in range(20)))
        answers = [answer for answers in served for answer in answers]
        print(f"{len(answers)} answers from {len({answer.pid for answer in answers})} workers")
        try:
            await center.submit("1 / 0")
        except ZeroDivisionError as error:
            print(f"raised here, as there: {error!r}")
        try:
            await center.submit("forever", timeout=0.2)
        except ShardTimeout as error:
            print(f"stopped: {type(error).__name__}")
        print(f"and still open: {(await center.submit('1 / 4')).value}")


if __name__ == "__main__":
    asyncio.run(main())
