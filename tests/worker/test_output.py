"""What a runner prints: head, cut, tail; and floods."""

import os
import sys

import pytest

from dispatch.worker.output import FLOOD, HEAD, TAIL, await_dump, nameless_file, read_tail, trim
from dispatch.worker.slot import Slot
from tests.worker.forks import captured_in_a_fork


@pytest.fixture
def captured():
    """The file that fds 1 and 2 of a runner are, and its slot."""
    fd, slot = nameless_file("test-output"), Slot()
    slot.reset()
    yield fd, slot
    os.close(fd)


def test_a_nameless_file_appends_and_has_no_name(captured) -> None:
    """Whatever the offset, what is written goes to the end; no directory knows the file."""
    fd, _ = captured
    os.write(fd, b"one")
    os.lseek(fd, 0, 0)
    os.write(fd, b"two")
    assert os.pread(fd, 10, 0) == b"onetwo"
    assert not os.path.exists(os.readlink(f"/proc/self/fd/{fd}"))


def test_the_tail_is_the_last_bytes(captured) -> None:
    """A short file is its own tail, a long one ends in it; bytes that are no text are shown, not raised."""
    fd, _ = captured
    assert read_tail(fd) == ""
    os.write(fd, b"\xff" + b"a" * 10)
    assert read_tail(fd) == "\ufffd" + "a" * 10
    os.write(fd, b"b" * TAIL)
    assert read_tail(fd) == "b" * TAIL
    assert read_tail(fd, 3) == "bbb"


def test_a_dump_is_awaited_to_the_end_of_its_last_line(captured) -> None:
    """A dump comes in pieces: one that stops in the middle of a line is waited for, and no longer than it is wanted."""
    fd, _ = captured
    os.write(fd, b"an older dump\n")
    before = os.fstat(fd).st_size
    pieces = [
        b"",
        b"Current thread",
        b"",
        b"",
        b" 0x1 (most recent call first):\n  File",
        b"",
        b' "x.py", line 1\n',
    ]

    def writes_one() -> bool:
        if pieces:
            os.write(fd, pieces.pop(0))
        return True

    await_dump(fd, before, writes_one)
    assert read_tail(fd).endswith('most recent call first):\n  File "x.py", line 1\n')
    looks = iter([True, True, False])
    await_dump(fd, os.fstat(fd).st_size, lambda: next(looks))
    assert next(looks, None) is None


def test_everything_that_is_printed_is_captured(captured) -> None:
    """print, sys.stderr, and bare writes to fds 1 and 2 arrive in order, at once."""

    def shard(capture):
        print("one")
        print("two", file=sys.stderr)
        os.write(1, b"three\n")
        os.write(2, b"four\n")
        os.system("echo five")
        print("\ud800", end="")
        return capture.take()

    text, cut, tail = captured_in_a_fork(captured, shard)
    assert text == "one\ntwo\nthree\nfour\nfive\n\\ud800"
    assert (cut, tail) == (0, text)


def test_taking_starts_afresh(captured) -> None:
    """What was taken is not there the next time, and `touched` says whether to look."""

    def shards(capture):
        before = capture.touched
        print("first")
        touched, size, first = capture.touched, capture.size(), capture.take()
        return [before, touched, size, first, capture.touched, capture.take()]

    before, touched, size, first, after, second = captured_in_a_fork(captured, shards)
    assert (before, touched, size, after) == (False, True, 6, False)
    assert first == ["first\n", 0, "first\n"]
    assert second == ["", 0, ""]


def test_a_long_output_is_cut_behind_its_head(captured) -> None:
    """The first HEAD bytes arrive, the rest is counted, the last TAIL bytes are the tail."""

    def shard(capture):
        os.write(1, b"h" * HEAD + b"m" * 5000 + b"t" * TAIL)
        return capture.take()

    text, cut, tail = captured_in_a_fork(captured, shard)
    assert text == "h" * HEAD
    assert cut == 5000 + TAIL
    assert tail == "t" * TAIL


def test_a_flood_is_trimmed_and_its_bytes_are_counted(captured) -> None:
    """The nanny lets go of a flood's middle; head, tail and the count of what is missing are as without it."""
    fd, slot = captured

    def shard(capture):
        os.write(1, b"h" * HEAD)
        for _ in range(8):
            os.write(1, b"m" * FLOOD)
            trim(fd, slot)
        os.write(1, b"t" * TAIL)
        blocks = os.fstat(fd).st_blocks * 512
        return [*capture.take(), blocks, capture.take()]

    text, cut, tail, blocks, after = captured_in_a_fork(captured, shard)
    assert text == "h" * HEAD
    assert cut == 8 * FLOOD + TAIL
    assert tail == "t" * TAIL
    assert blocks < 2 * FLOOD
    assert after == ["", 0, ""]


def test_a_trickle_is_not_trimmed(captured) -> None:
    """Below FLOOD bytes nothing is touched."""
    fd, slot = captured
    os.write(fd, b"x" * (FLOOD - 1))
    trim(fd, slot)
    assert (os.fstat(fd).st_size, slot.cut) == (FLOOD - 1, 0)


def test_without_holes_a_flood_is_cut_all_the_same(captured, monkeypatch) -> None:
    """Where a file cannot have holes (macOS) it is cut back to its head and its tail."""
    monkeypatch.setattr("dispatch.worker.output.punch_hole", lambda *_: False)
    fd, slot = captured

    def shard(capture):
        os.write(1, b"h" * HEAD + b"m" * FLOOD + b"t" * TAIL)
        trim(fd, slot)
        return [os.fstat(fd).st_size, slot.cut, *capture.take(), slot.cut]

    size, cut, text, missing, tail, after = captured_in_a_fork(captured, shard)
    assert (size, cut, after) == (HEAD + TAIL, FLOOD, 0)
    assert (text, missing, tail) == ("h" * HEAD, FLOOD + TAIL, "t" * TAIL)


def test_stdin_is_the_null_device(captured) -> None:
    """A shard that reads its input finds its end at once."""
    assert captured_in_a_fork(captured, lambda capture: [sys.stdin.read(), sys.__stdin__.read()]) == ["", ""]
