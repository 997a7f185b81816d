"""How many shards a frame carries, as numbers: nothing here runs or waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.scheduling.batching import (
    FRAME_BYTES,
    MOST,
    TARGET,
    Pace,
    frame_size,
    may_prefetch,
    should_replace,
    task_room,
)

PLENTY = 100_000  # ready shards, so that nothing is near its end
US, MS = 1e-6, 1e-3


def pace_of(seconds: float | None, *, size: int = 0, more: bool = False) -> Pace:
    """Return the pace of a door whose shards all take `seconds` and `size` bytes."""
    pace = Pace()
    if seconds is not None:
        pace.ran(1, seconds)
    if size:
        pace.sized(1, size)
    pace.more = more
    return pace


# ---------------------------------------------------------------------------------------- the mean


def test_a_pace_begins_unknown_and_takes_the_first_frame_at_its_word() -> None:
    """The first outcomes set the mean, whatever their number."""
    pace = Pace()
    assert pace.seconds is None
    pace.ran(4, 2.0)
    assert pace.seconds == 0.5


def test_few_outcomes_move_the_mean_a_fifth_and_many_replace_it() -> None:
    """One outcome weighs 20 %, a frame of 64 or more weighs all."""
    pace = pace_of(1.0)
    pace.ran(1, 2.0)
    assert pace.seconds == pytest.approx(1.2)
    pace.ran(64, 64 * 3.0)
    assert pace.seconds == pytest.approx(3.0)


def test_a_door_that_turns_slow_is_noticed_within_a_dozen_outcomes() -> None:
    """After twelve shards of a second, a door that was at a microsecond sends them one by one."""
    pace = pace_of(US)
    for _ in range(12):
        pace.ran(1, 1.0)
    assert pace.seconds is not None
    assert pace.seconds > 0.9
    assert frame_size(pace, ready=PLENTY, workers=2) == 1


def test_the_mean_of_sizes_follows_by_a_fifth() -> None:
    """Payload sizes have a mean of their own."""
    pace = pace_of(None, size=1000)
    assert pace.size == 1000
    pace.sized(10, 20_000)
    assert pace.size == pytest.approx(1200)


# -------------------------------------------------------------------------------- the frame's size


@pytest.mark.parametrize(
    ("seconds", "shards"),
    [(0.0, MOST), (US, MOST), (100 * US, 40), (MS, 4), (3 * MS, 1), (50 * MS, 1), (60.0, 1)],
)
def test_a_frame_holds_four_milliseconds_of_work(seconds: float, shards: int) -> None:
    """Shards of a microsecond travel by the hundreds, of a millisecond by four, of 50 ms alone."""
    assert TARGET == 4 * MS
    assert frame_size(pace_of(seconds), ready=PLENTY, workers=2) == shards


def test_an_unknown_pace_sends_one_shard_at_a_time() -> None:
    """Nothing is known of the first shard, so nothing waits behind it."""
    assert frame_size(pace_of(None), ready=PLENTY, workers=1) == 1
    assert frame_size(pace_of(None, more=True), ready=PLENTY, workers=1, idle=1) == 1


@pytest.mark.parametrize(
    ("size", "shards"), [(10, MOST), (FRAME_BYTES // 8, 8), (FRAME_BYTES, 1), (10**9, 1)]
)
def test_big_payloads_make_small_frames(size: int, shards: int) -> None:
    """A frame of fast shards holds about FRAME_BYTES, and one shard at least."""
    assert frame_size(pace_of(US, size=size), ready=PLENTY, workers=2) == shards


def test_the_last_frames_shrink_with_what_is_left() -> None:
    """Each frame takes half of a worker's share of what remains, down to single shards."""
    left, sizes = 1000, []
    while left:
        sizes.append(frame_size(pace_of(US), ready=left, workers=2))
        left -= sizes[-1]
    assert sizes[:4] == [250, 187, 140, 105]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-4:] == [1, 1, 1, 1]


def test_while_more_will_come_idle_workers_share_what_is_ready() -> None:
    """A source that goes on is no end: one idle worker may take all that is ready, two take half each."""
    pace = pace_of(US, more=True)
    assert frame_size(pace, ready=200, workers=4, idle=1) == 200
    assert frame_size(pace, ready=200, workers=4, idle=2) == 100
    assert frame_size(pace, ready=200, workers=4, idle=0) == 200
    assert frame_size(pace, ready=3, workers=4, idle=4) == 1


@given(
    seconds=st.none() | st.floats(0, 1e6),
    size=st.integers(0, 10**9),
    more=st.booleans(),
    ready=st.integers(1, 10**6),
    workers=st.integers(1, 512),
    idle=st.integers(0, 512),
)
def test_a_frame_is_never_empty_nor_larger_than_what_is_ready(
    *, seconds: float | None, size: int, more: bool, ready: int, workers: int, idle: int
) -> None:
    """Whatever the door, a frame carries from one shard to MOST, and none that is not there."""
    number = frame_size(pace_of(seconds, size=size, more=more), ready=ready, workers=workers, idle=idle)
    assert 1 <= number <= min(MOST, ready)


# ----------------------------------------------------------------------------------- a frame ahead


def test_a_busy_worker_gets_no_shard_of_unknown_length() -> None:
    """Nothing is queued behind a first shard that may take an hour."""
    assert not may_prefetch(pace_of(None), ready=PLENTY, workers=1)


@pytest.mark.parametrize("ready", [1, 4, PLENTY])
def test_short_shards_are_always_sent_ahead(ready: int) -> None:
    """Shards under half a millisecond wait for nobody: the worker never does."""
    assert may_prefetch(pace_of(0.4 * MS), ready=ready, workers=2)


def test_the_last_long_shards_are_not_sent_ahead() -> None:
    """Of shards of 50 ms, the last two a worker stay here for whoever is free first."""
    assert not may_prefetch(pace_of(50 * MS), ready=4, workers=2)
    assert may_prefetch(pace_of(50 * MS), ready=5, workers=2)


def test_while_more_will_come_a_busy_worker_waits_for_a_full_frame() -> None:
    """A frame ahead is worth its cost when it is full, or when a single shard fills it."""
    assert not may_prefetch(pace_of(MS, more=True), ready=3, workers=1)
    assert may_prefetch(pace_of(MS, more=True), ready=4, workers=1)
    assert may_prefetch(pace_of(50 * MS, more=True), ready=1, workers=1)


# ----------------------------------------------------------------------------------- async workers


@pytest.mark.parametrize(
    ("seconds", "in_flight", "room"),
    [
        (None, 0, 10),
        (None, 10, 0),
        (1.0, 0, 10),
        (1.0, 4, 6),
        (MS, 0, 50),
        (MS, 50, 0),
        (US, 0, 10 + MOST),
        (0.0, 0, 10 + MOST),
        (1.0, 600, 0),
    ],
)
def test_an_async_worker_takes_its_places_and_four_milliseconds_beyond(
    seconds: float | None, in_flight: int, room: int
) -> None:
    """Ten places: slow shards fill them and no more, fast ones queue a little behind them."""
    assert task_room(pace_of(seconds), concurrency=10, in_flight=in_flight) == room


# --------------------------------------------------------------------------------------- recycling


@pytest.mark.parametrize(
    ("served", "mean", "startup", "now"),
    [
        (0, 1.0, 1.0, False),  # a hundred seconds are left
        (98, 1.0, 1.0, False),  # two seconds are left, one and a half are wanted
        (98, 0.7, 1.0, True),
        (99, 1.0, 1.0, True),
        (0, 0.0, 1.0, True),  # shards that take no time: at once
        (0, 0.01, 1.0, True),  # a second is left
        (100, 1.0, 0.0, True),  # the limit is reached
        (250, 1.0, 1.0, True),  # and passed
    ],
)
def test_a_successor_is_started_in_time(*, served: int, mean: float, startup: float, now: bool) -> None:
    """A worker's successor is begun when what remains of its 100 shards lasts one and a half start-ups."""
    assert should_replace(served, 100, mean=mean, startup=startup) is now
