"""`dispatch.map`: a plain function over payloads in all processors; values come back in input order."""

import asyncio

import dispatch


def collatz(start: int) -> int:
    """The number of steps from `start` to 1."""
    steps = 0
    while start != 1:
        start = 3 * start + 1 if start % 2 else start // 2
        steps += 1
    return steps


if __name__ == "__main__":
    starts = range(1, 10_001)
    steps = asyncio.run(dispatch.map(collatz, starts))
    print(
        f"the longest of {len(steps)} walks takes {max(steps)} steps, from {starts[steps.index(max(steps))]}"
    )
