"""How many shards the next frame carries: a target time, never a user's knob.

A frame is to hold TARGET seconds of work, so that a frame's fixed cost is spread and yet no shard waits long
behind another. Towards the end of the work frames shrink with what is left (guided self-scheduling:
Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987), so that no worker idles beside a full frame.
"""

from __future__ import annotations

__all__ = ("Pace", "frame_size", "may_prefetch", "should_replace", "task_room")

TARGET = 0.004  # seconds of work in one frame
MOST = 256  # shards in one frame: the parent handles a frame in one go, in a fraction of a millisecond
FRAME_BYTES = 256 * 1024
FRAMES_IN_FLIGHT = 2  # the second one waits in the worker's socket, so that the worker never waits for us


class Pace:
    """What a shard of one door takes, running means: `seconds`, and `size` in bytes; and whether `more` will come."""

    __slots__ = ("more", "seconds", "size")

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.size = 0.0
        self.more = False  # the door's source has not ended

    def ran(self, shards: int, seconds: float) -> None:
        """Learn from `shards` outcomes that ran `seconds` together. Recent ones weigh more."""
        mean = seconds / shards
        if self.seconds is None:
            self.seconds = mean
        else:
            self.seconds += (mean - self.seconds) * max(0.2, min(1.0, shards / 64))

    def sized(self, shards: int, size: int) -> None:
        """Learn from `shards` payloads of `size` bytes together."""
        mean = size / shards
        self.size = mean if not self.size else self.size + (mean - self.size) * 0.2


def frame_size(pace: Pace, *, ready: int, workers: int, idle: int = 0) -> int:
    """How many of `ready` shards go into the next frame; at least 1.

    While more shards will come, those that are ready are shared among the `idle` workers; the last ones among all
    `workers`, with as much again kept back.
    """
    by_share = ready / (max(1, idle) if pace.more else FRAMES_IN_FLIGHT * workers)
    return max(1, min(_full(pace), int(by_share)))


def _full(pace: Pace) -> int:
    """How many shards make TARGET seconds of work, in a frame of a decent size."""
    if pace.seconds is None:
        return 1
    by_time = TARGET / pace.seconds if pace.seconds > TARGET / MOST else MOST
    by_size = FRAME_BYTES / pace.size if pace.size > FRAME_BYTES / MOST else MOST
    return max(1, round(min(by_time, by_size)))


def may_prefetch(pace: Pace, *, ready: int, workers: int) -> bool:
    """Whether a busy worker gets a further frame: a full one while more will come, and no long shard at the end."""
    if pace.seconds is None:
        return False
    if pace.more:
        return ready >= _full(pace)
    return pace.seconds < TARGET / 8 or ready > 2 * workers


def task_room(pace: Pace, *, concurrency: int, in_flight: int) -> int:
    """How many more shards an async worker takes: its free places, and TARGET seconds of work beyond."""
    beyond = 0 if pace.seconds is None else int(min(MOST, TARGET * concurrency / max(pace.seconds, 1e-6)))
    return max(0, concurrency + beyond - in_flight)


def should_replace(served: int, limit: int, *, mean: float, startup: float) -> bool:
    """Whether to start a worker's successor now, so that it is ready when `limit` shards are served.

    `mean` seconds a shard takes, `startup` seconds the last start took; half as much again is kept in hand.
    """
    return (limit - served) * mean <= 1.5 * startup
