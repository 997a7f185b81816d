"""The bytes that a runner process and its nanny share."""

import math
import os

import pytest

from dispatch.worker.output import nameless_file
from dispatch.worker.slot import FENCE, RUN, Slot
from tests.worker.forks import fork


@pytest.fixture
def pair():
    """The two views of one slot: the runner's, the nanny's."""
    fd = nameless_file("test-slot")
    os.ftruncate(fd, 4096)
    yield Slot.mapped(fd), Slot.mapped(fd)
    os.close(fd)


def test_what_one_side_writes_the_other_reads(pair) -> None:
    """Both sides see the same attempt, its start and its deadline."""
    runner, nanny = pair
    runner.enter(7, 100.0, 105.5)
    assert nanny.read() == (7, 100.0, 105.5)
    assert nanny.running == 7
    runner.leave()
    assert nanny.read() == (7, 0.0, math.inf)
    assert nanny.running == 0


def test_an_idle_async_lane_keeps_its_deadline(pair) -> None:
    """Between two steps nothing holds the loop, and the nearest deadline still counts."""
    runner, nanny = pair
    runner.enter(7, 100.0, 105.5)
    runner.leave(105.5)
    assert nanny.read() == (7, 0.0, 105.5)
    assert nanny.running == 0


def test_a_fence_goes_the_other_way(pair) -> None:
    """The nanny raises the fence; the lane reads it as a word, without a call."""
    runner, nanny = pair
    nanny.fence = 12
    assert runner.words[FENCE] == runner.fence == 12


def test_the_lane_writes_the_same_bytes_by_itself(pair) -> None:
    """The struct that the sync lane packs is what `read` unpacks, and says how many outcomes it holds."""
    runner, nanny = pair
    RUN.pack_into(runner.memory, 0, 9, 1.0, 2.0, 5)
    assert nanny.read() == (9, 1.0, 2.0)
    assert nanny.held == 5


def test_the_rest_of_the_words_do_not_meet(pair) -> None:
    """Blame, cut output, phase and fence are apart from each other and from the attempt."""
    runner, nanny = pair
    runner.enter(1, 2.0, 3.0)
    nanny.fence, nanny.cut = 4, 5
    runner.blame(6, 7.5)
    runner.serving = True
    assert nanny.read() == (1, 2.0, 3.0)
    assert (runner.fence, runner.cut, nanny.blamed, nanny.blamed_since, nanny.serving) == (4, 5, 6, 7.5, True)
    runner.serving = False
    assert not nanny.serving


def test_a_new_life_begins_with_nothing(pair) -> None:
    """Of the life before nothing is left: no attempt, no fence, no blame; readiness is due at the deadline."""
    runner, nanny = pair
    runner.enter(1, 2.0, 3.0)
    runner.blame(1, 2.0)
    runner.serving = True
    nanny.fence, nanny.cut = 4, 5
    nanny.reset(deadline=60.0)
    assert runner.read() == (0, 0.0, 60.0)
    assert (runner.fence, runner.cut, runner.blamed, runner.serving, runner.held) == (0, 0, 0, False, 0)


def test_a_slot_can_do_without_a_file() -> None:
    """Where runner and watcher are one process, plain memory will do."""
    slot = Slot()
    slot.reset()
    slot.enter(3, 1.0, math.inf)
    slot.keep_from_forks()
    assert slot.running == 3


def test_a_fork_does_not_inherit_the_slot(pair) -> None:
    """After `keep_from_forks` a fork that touches the slot dies of it, and the slot is as it was."""
    runner, nanny = pair
    runner.enter(3, 1.0, math.inf)
    runner.keep_from_forks()
    pid = fork()
    if pid == 0:
        runner.enter(4, 1.0, math.inf)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    assert nanny.running == 3
