"""Messages between a warm worker and its fork, whatever else is written to the same socket."""

import os
import random
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.wire import frames
from dispatch.wire.codec import control_decoder
from dispatch.wire.frames import encode
from dispatch.wire.mailbox import Mailbox

LIMIT = 1000
read = control_decoder(frames.Progress, frames.Answer)


@pytest.fixture
def boxes() -> Iterator[tuple[Mailbox, Mailbox]]:
    """Give the two ends of a mailbox."""
    ours, theirs = Mailbox.pair(limit=LIMIT)
    yield ours, theirs
    ours.close()
    theirs.close()


def say(number: int) -> frames.Progress:
    """Return a message."""
    return frames.Progress(number, 1.0, None)


def noise(box: Mailbox, data: bytes) -> None:
    """Write to a mailbox's descriptor as code would that has found it."""
    at = 0
    while at < len(data):
        at += os.write(box.fileno(), data[at:])


def test_messages_go_both_ways_in_order(boxes: tuple[Mailbox, Mailbox]) -> None:
    """What one end sends the other receives, one by one or all that came."""
    ours, theirs = boxes
    for number in range(3):
        theirs.send(say(number))
    assert read(ours.receive() or b"") == say(0)
    assert [read(body) for body in ours.arrived()] == [say(1), say(2)]
    ours.send(say(9))
    assert read(theirs.receive() or b"") == say(9)


def test_asking_what_has_arrived_never_waits(boxes: tuple[Mailbox, Mailbox]) -> None:
    """Nothing, or half a message, is no message yet."""
    ours, theirs = boxes
    assert ours.arrived() == []
    whole = theirs._nonce + encode(say(1))
    noise(theirs, whole[:20])
    assert ours.arrived() == []
    noise(theirs, whole[20:])
    assert [read(body) for body in ours.arrived()] == [say(1)]


def test_the_other_end_that_is_gone_is_none(boxes: tuple[Mailbox, Mailbox]) -> None:
    """What it said last is still received; then there is nothing to wait for."""
    ours, theirs = boxes
    theirs.send(say(1))
    noise(theirs, b"half a mess")
    theirs.close()
    assert read(ours.receive() or b"") == say(1)
    assert ours.receive() is None
    assert ours.arrived() == []


def test_two_mailboxes_do_not_understand_each_other(boxes: tuple[Mailbox, Mailbox]) -> None:
    """Each pair has a nonce of its own: a message of an earlier fork is noise."""
    ours, theirs = boxes
    stale, other = Mailbox.pair(limit=LIMIT)
    noise(theirs, stale._nonce + encode(say(1)))
    theirs.send(say(2))
    assert [read(body) for body in ours.arrived()] == [say(2)]
    stale.close()
    other.close()


def test_a_forged_message_without_the_nonce_is_noise(boxes: tuple[Mailbox, Mailbox]) -> None:
    """A frame that is well-formed in all else, with a guessed nonce or none, says nothing."""
    ours, theirs = boxes
    for guess in (b"", b"\0" * 16, os.urandom(16), theirs._nonce[:-1] + b"?", theirs._nonce[1:]):
        noise(theirs, guess + encode(frames.Answer(0)))
    theirs.send(say(1))
    assert [read(body) for body in ours.arrived()] == [say(1)]


@pytest.mark.parametrize("size", [LIMIT + 1, 2**31, 2**32 - 1])
def test_a_message_over_the_limit_is_noise(boxes: tuple[Mailbox, Mailbox], size: int) -> None:
    """Also with the right nonce: the messages behind it are found again."""
    ours, theirs = boxes
    noise(theirs, theirs._nonce + size.to_bytes(4, "little") + b"x" * 100)
    theirs.send(say(1))
    assert [read(body) for body in ours.arrived()] == [say(1)]


@given(st.lists(st.binary(max_size=60) | st.none(), max_size=20), st.integers(0, 2**32))
def test_noise_between_messages_is_skipped(parts: list[bytes | None], seed: int) -> None:
    """Any bytes before, between and after messages, however the reads are cut: every message, and no other."""
    ours, theirs = Mailbox.pair(limit=LIMIT)
    dice, told, sent = random.Random(seed), list[frames.Progress](), list[frames.Progress]()
    for part in parts:
        if part is None:
            sent.append(say(len(sent)))
            theirs.send(sent[-1])
        else:
            noise(theirs, part)
        if dice.random() < 0.5:
            told += [read(body) for body in ours.arrived()]
    told += [read(body) for body in ours.arrived()]
    assert told == sent
    ours.close()
    theirs.close()


def test_a_message_behind_noise_may_be_cut_anywhere(boxes: tuple[Mailbox, Mailbox]) -> None:
    """Also inside its nonce: what may be the beginning of one is kept."""
    ours, theirs = boxes
    stream = b"noise" + theirs._nonce + encode(say(1))
    for cut in range(1, len(stream)):
        noise(theirs, stream[:cut])
        assert ours.arrived() == []
        noise(theirs, stream[cut:])
        assert [read(body) for body in ours.arrived()] == [say(1)]


def test_a_flood_keeps_nobody(boxes: tuple[Mailbox, Mailbox]) -> None:
    """Who writes noise faster than it is read costs some reads, no wait for its end, and no memory."""
    ours, theirs = boxes
    stop = threading.Event()

    def flood() -> None:
        junk = os.urandom(200_000)
        while not stop.is_set():
            try:
                noise(theirs, junk)
            except BrokenPipeError:
                return

    flooder = threading.Thread(target=flood)
    flooder.start()
    for _ in range(50):
        assert ours.arrived() == []
        assert len(ours._have) < 2_000_000
    stop.set()
    ours.close()
    flooder.join(30)
    assert not flooder.is_alive()


def test_a_flood_without_a_gap_is_left_at_some_point() -> None:
    """Also where there always is more to read, asking what has arrived comes to an end."""

    class Flood:
        """A socket on which something always waits."""

        def recv(self, size: int, flags: int) -> bytes:
            return b"x" * 1000

    assert Mailbox(Flood(), b"n" * 16, limit=LIMIT).arrived() == []  # type: ignore[arg-type]  # all it needs


def test_a_message_at_the_limit_passes_though_it_comes_in_pieces() -> None:
    """A value of many megabytes is one message."""
    ours, theirs = Mailbox.pair(limit=10_000_000)
    big = frames.Progress(1, 1.0, None), frames.Answer(7, fault=None)
    text = frames.Output(0, "x" * 5_000_000, 0)
    writer = threading.Thread(target=lambda: [theirs.send(one) for one in (big[0], text, big[1])])
    writer.start()
    bodies = [ours.receive() or b"" for _ in range(3)]
    writer.join(30)
    assert read(bodies[0]) == big[0]
    assert control_decoder(frames.Output)(bodies[1]) == text
    assert read(bodies[2]) == big[1]
    ours.close()
    theirs.close()


def test_a_mailbox_can_be_polled_by_its_descriptor(boxes: tuple[Mailbox, Mailbox]) -> None:
    """`fileno` is the socket's."""
    ours, theirs = boxes
    peer = socket.socket(fileno=os.dup(theirs.fileno()))
    assert peer.family == socket.AF_UNIX
    peer.close()
    assert ours.fileno() != theirs.fileno()
