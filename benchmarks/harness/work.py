"""What the workers are asked to do. Imported in every worker of every contender: the standard library only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

KEPT: Any = None  # what `keep` was given, in this process
PIECE = 32 * 1024


def noop(item: dict[str, Any]) -> dict[str, Any]:
    """Nothing: what came goes back, and the sum of its numbers tells whether all came back."""
    return item


number_of = itemgetter("n")


def items(number: int) -> list[dict[str, Any]]:
    """Payloads for `noop`: an int and a string of 40 characters."""
    return [{"n": index, "text": f"shard {index:034d}"} for index in range(number)]


def sum_below(number: int) -> float:
    """What the numbers of the first so many items come to."""
    return number * (number - 1) / 2


def spin(seconds: float) -> float:
    """Be busy for so many seconds of processor time: a processor that is shared makes it longer."""
    clock = time.thread_time
    until = clock() + seconds
    while clock() < until:
        pass
    return seconds


def big(size: int) -> bytes:
    """A result of `size` bytes."""
    return bytes(size)


def run_chunk(fn: Callable[[Any], Any], payloads: Sequence[Any]) -> list[Any]:
    """Chunking by hand, for pools that know none."""
    return [fn(payload) for payload in payloads]


def keep(param: Any) -> None:
    """A worker's initializer: keep what all shards share."""
    global KEPT  # noqa: PLW0603  (that is how initializers of pools hand things on)
    KEPT = param


def piece_of(blob: Any, index: int) -> int:
    """A look at one piece of a shared blob; all pieces together are the blob."""
    whole = memoryview(blob)
    start = index * PIECE % len(whole)
    return whole[start] + len(whole[start : start + PIECE].tobytes())


def length_of(table: dict[str, str], index: int) -> int:
    """A look at one string of a shared dict."""
    return len(table[f"key {index % len(table):07d}"])


def kept_piece(index: int) -> int:
    """`piece_of` what this process keeps."""
    return piece_of(KEPT, index)


def kept_length(index: int) -> int:
    """`length_of` what this process keeps."""
    return length_of(KEPT, index)


def die(note: str) -> None:
    """Write down the time, and end this process."""
    with open(note, "w", encoding="ascii") as file:
        file.write(repr(time.time()))
    os._exit(7)
