"""A run that is killed again and again, from a process that has imported everything and starts no thread.

argv: work_dir, total, seconds of a shard. It reads lines "RUN DELAY": the run of that number is forked off and killed
after so many seconds (no delay: it may end), then "RUN over" is said. A run of odd number is given those seconds from
its first shard on, so that also a slow machine comes that far. A run appends "RUN INDEX" to WORK_DIR.ran when a
shard is executed, and "RUN INDEX" to WORK_DIR.seen when its caller has the outcome.
"""

import asyncio
import os
import signal
import sys
import time

from dispatch import DataParallelDispatchCenter, DispatchConfig, Done

RUN = "DISPATCH_TESTING_RUN"  # in the environment, which is no part of a run's identity


def append(path: str, index: int) -> None:
    """One line, in one piece."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{os.environ[RUN]} {index}\n".encode())
    os.close(fd)


def traced(payload: list[int | float | str]) -> int:
    """Twice the first; says that it was executed."""
    index, seconds, path = payload
    append(f"{path}.ran", int(index))
    time.sleep(float(seconds))
    return 2 * int(index)


async def run(work_dir: str, total: int, seconds: float) -> None:
    """One run, whose caller says what it has seen."""
    config = DispatchConfig(data_parallel=2, work_dir=work_dir)
    shards = ([n, seconds, work_dir] for n in range(total))
    async with (
        DataParallelDispatchCenter(traced, config=config) as center,
        center.stream(shards) as outcomes,
    ):
        async for outcome in outcomes:
            if isinstance(outcome, Done):
                assert outcome.value == 2 * outcome.index
                append(f"{work_dir}.seen", outcome.index)


def killed(number: str, delay: str) -> None:
    """Fork a run off, and kill it."""
    child = os.fork()
    if not child:
        os.environ[RUN] = number
        asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
        os._exit(0)
    if delay:
        until = time.monotonic() + 20
        while int(number) % 2 and time.monotonic() < until and not _has_begun(number):
            time.sleep(0.005)
        time.sleep(float(delay))  # the fault itself: a moment at random
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(number, "over", flush=True)


def _has_begun(number: str) -> bool:
    try:
        with open(f"{sys.argv[1]}.ran") as file:
            return any(line.startswith(f"{number} ") for line in file)
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    for line in sys.stdin:
        killed(*line.rstrip("\n").split(" "))
