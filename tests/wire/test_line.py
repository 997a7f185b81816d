"""A worker's end of a connection: frames over a blocking socket, whole and in order, from any thread."""

import os
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from dispatch.wire import frames
from dispatch.wire.channel import listen
from dispatch.wire.codec import control_decoder
from dispatch.wire.frames import FrameError, encode
from dispatch.wire.line import Line

LIMIT = 10**7
read = control_decoder(frames.Output, frames.Bye)


@pytest.fixture
def ends() -> Iterator[tuple[Line, socket.socket]]:
    """Give a line and the bare socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    line = Line(ours, limit=LIMIT)
    yield line, theirs
    line.close()
    theirs.close()


def exactly(sock: socket.socket, number: int) -> bytes:
    """Read so many bytes."""
    data = bytearray()
    while len(data) < number:
        got = sock.recv(number - len(data))
        assert got
        data += got
    return bytes(data)


def body_of(sock: socket.socket) -> bytes:
    """Read one frame's body."""
    return exactly(sock, int.from_bytes(exactly(sock, 4), "little"))


def output(text: str) -> frames.Output:
    """Return a frame that carries a text."""
    return frames.Output(0, text, 0)


def test_frames_arrive_one_by_one_in_their_order(ends: tuple[Line, socket.socket]) -> None:
    """What came in one packet is given out frame by frame, and half a frame is waited for."""
    line, theirs = ends
    stream = b"".join(encode(output(text)) for text in ("a", "b", "c" * 300_000))
    late = threading.Thread(target=theirs.sendall, args=(stream[40:],))
    theirs.sendall(stream[:40])
    assert read(line.receive() or b"") == output("a")
    late.start()
    assert read(line.receive() or b"") == output("b")
    assert read(line.receive() or b"") == output("c" * 300_000)
    late.join()


def test_what_has_arrived_is_had_at_once(ends: tuple[Line, socket.socket]) -> None:
    """After poll says so, `received` gives all whole frames, none if there is half a one, and never waits for more."""
    line, theirs = ends
    whole = encode(output("x"))
    poll = select.poll()
    poll.register(line, select.POLLIN)
    theirs.sendall(whole + whole + whole[:5])
    assert poll.poll(30_000)
    assert [read(body) for body in line.received() or []] == [output("x")] * 2
    theirs.sendall(whole[5:7])
    assert poll.poll(30_000)
    assert line.received() == []
    theirs.sendall(whole[7:])
    assert poll.poll(30_000)
    assert [read(body) for body in line.received() or []] == [output("x")]


@pytest.mark.parametrize("begun", [b"", b"\x05", b"\x05\x00\x00\x00abc"])
def test_the_end_of_the_stream_is_none(ends: tuple[Line, socket.socket], begun: bytes) -> None:
    """A peer that is gone, also in the middle of a frame, is told by None, as often as one asks."""
    line, theirs = ends
    theirs.sendall(begun)
    theirs.close()
    assert line.receive() is None
    assert line.received() is None


def test_a_peer_that_was_reset_is_gone(ends: tuple[Line, socket.socket]) -> None:
    """A connection that broke with bytes unread is the end like any other."""
    line, theirs = ends
    line.send(output("never read"))
    theirs.close()
    assert line.receive() is None


def test_a_frame_over_the_limit_is_refused(ends: tuple[Line, socket.socket]) -> None:
    """Bytes that are no frame of ours are an error, not a hang."""
    line, theirs = ends
    theirs.sendall((LIMIT + 1).to_bytes(4, "little"))
    with pytest.raises(FrameError):
        line.receive()


def test_a_frame_is_sent_whole_however_slowly_it_is_read(ends: tuple[Line, socket.socket]) -> None:
    """More than a socket buffers is written when the other end reads, from one buffer or from several."""
    line, theirs = ends
    whole = encode(output("z" * 3_000_000))
    parts = [whole[:3], bytearray(whole[3:1_000_000]), b"", whole[1_000_000:], encode(frames.Bye())]
    writer = threading.Thread(target=line.write, args=(parts,))
    writer.start()
    assert body_of(theirs) == whole[4:]
    assert read(body_of(theirs)) == frames.Bye()
    writer.join(30)
    line.send(output("after"))
    assert read(body_of(theirs)) == output("after")


def test_a_buffer_that_was_written_can_be_used_again(ends: tuple[Line, socket.socket]) -> None:
    """When `write` returns, nothing refers to its buffers any more: a lane clears and fills them anew."""
    line, theirs = ends
    buffer = bytearray(encode(output("one")))
    line.write([buffer])
    buffer.clear()
    assert read(body_of(theirs)) == output("one")


def test_several_threads_may_send_at_once(ends: tuple[Line, socket.socket]) -> None:
    """Frames of four threads come whole, each thread's in its order, also when they do not fit the socket."""
    line, theirs = ends

    def say(name: int) -> None:
        for n in range(50):
            line.send(frames.Output(name, f"{n} " + "x" * 20_000, n))

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    told = [read(body_of(theirs)) for _ in range(200)]
    for thread in threads:
        thread.join(30)
    for name in range(4):
        assert [one.cut for one in told if one.seq == name] == list(range(50))
    assert all(one.text == f"{one.cut} " + "x" * 20_000 for one in told)


def test_a_line_is_busy_while_somebody_sends(ends: tuple[Line, socket.socket]) -> None:
    """A signal handler asks this, because it must not wait for a send that it has interrupted."""
    line, theirs = ends
    assert not line.busy
    writer = threading.Thread(target=line.send, args=(output("z" * 3_000_000),))
    writer.start()
    theirs.recv(1)  # it has begun, and cannot end before we read
    assert line.busy
    exactly(theirs, len(encode(output("z" * 3_000_000))) - 1)
    writer.join(30)
    assert not line.busy


def test_sending_to_nobody_is_an_error(ends: tuple[Line, socket.socket]) -> None:
    """A worker whose centre is gone learns it from the first frame that it cannot send."""
    line, theirs = ends
    theirs.close()
    with pytest.raises(OSError, match="pipe"):
        line.send(output("x"))


def test_closing_ends_the_stream(ends: tuple[Line, socket.socket]) -> None:
    """The other end sees the end, also while a copy of the socket lives in a child; closing twice is harmless."""
    line, theirs = ends
    copy = socket.socket(fileno=socket.dup(line.fileno()))
    line.close()
    assert theirs.recv(1) == b""
    copy.close()
    line.close()


def test_a_line_connects_to_where_a_centre_listens() -> None:
    """The address is all it takes; where nobody listens any more, connecting is an OSError and leaves no socket."""
    sock, address, remove = listen()
    line = Line.connect(address, limit=LIMIT)
    theirs, _ = sock.accept()
    line.send(output("hello"))
    assert read(body_of(theirs)) == output("hello")
    for open_one in (line, theirs, sock):
        open_one.close()
    remove()
    with pytest.raises(OSError, match=r"refused|No such file"):
        Line.connect(address, limit=LIMIT)


def test_the_socket_is_handed_over_with_what_was_read_ahead(ends: tuple[Line, socket.socket]) -> None:
    """An event loop that takes over gets the frames that came with the last one that was asked for."""
    line, theirs = ends
    theirs.sendall(b"".join(encode(output(text)) for text in "abc"))
    assert read(line.receive() or b"") == output("a")
    sock, early = line.hand_over()
    assert [read(body) for body in early] == [output("b"), output("c")]
    assert os.path.sameopenfile(sock.fileno(), line.fileno())
    sock.close()
