"""What the nanny asks of the operating system, on real processes."""

import os
import signal
import sys
import threading
import time
from functools import partial

import pytest

from dispatch.worker import kernel
from tests.worker.forks import fork, in_a_fork

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere there is no subreaper and no /proc"
)


def spawn(work) -> int:
    """Fork a process that does its work and then sleeps; its pid."""
    pid = fork()
    if pid == 0:
        try:
            work()
            time.sleep(60)
        finally:
            os._exit(1)
    return pid


def told(reader: int, number: int) -> list[int]:
    """So many pids that were written to a pipe."""
    found = b""
    while found.count(b"\n") < number:
        found += os.read(reader, 4096)
    return [int(line) for line in found.split()]


def a_family() -> tuple[int, list[int]]:
    """A group leader with a child, a stopped one, a deaf one, a `setsid` daemon; the leader and all of them."""
    reader, writer = os.pipe()

    def tell():
        os.write(writer, b"%d\n" % os.getpid())

    def stopped():
        tell()
        os.kill(os.getpid(), signal.SIGSTOP)

    def deaf():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        tell()

    def daemon():
        os.setsid()
        spawn(lambda: (os.setsid(), tell()))
        os._exit(0)

    def leader():
        os.setpgid(0, 0)
        for work in (tell, stopped, deaf, daemon):
            spawn(work)
        tell()

    pid = spawn(leader)
    return pid, told(reader, 5)


def state(pid: int) -> str:
    """A process's state in /proc; "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def test_a_whole_tree_is_killed_and_reaped() -> None:
    """Child, stopped child, deaf child and double-forked `setsid` daemon are gone, and no zombie is left of them."""

    def work():
        kernel.become_subreaper()
        leader, family = a_family()
        alive = [state(pid) for pid in family]
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        killed = kernel.kill_tree(leader)
        return [killed, alive, [state(pid) for pid in family], kernel.children()]

    killed, alive, after, children = in_a_fork(work)
    assert killed
    assert "" not in alive
    assert after == [""] * 5
    assert children == []


def test_a_family_that_grows_is_killed() -> None:
    """Processes that fork again while they are being killed are found until none is left."""

    def work():
        kernel.become_subreaper()
        reader, writer = os.pipe()

        def breed(generations=12):
            os.setsid()
            os.write(writer, b"%d\n" % os.getpid())
            while generations:
                time.sleep(0.002)
                generations -= 1
                spawn(partial(breed, generations // 2))

        leader = spawn(breed)
        told(reader, 4)
        return [kernel.kill_tree(leader, within=10.0), kernel.children()]

    assert in_a_fork(work) == [True, []]


def test_those_to_be_spared_live_on() -> None:
    """A child in `spare` is not killed with the others."""

    def work():
        spared = spawn(lambda: None)
        other = spawn(lambda: None)
        killed = kernel.kill_tree(0, spare=[spared])
        found = [killed, state(spared) in "SR", state(other), kernel.children() == [spared]]
        kernel.kill_tree(0)
        return found

    assert in_a_fork(work) == [True, True, "", True]


def test_without_children_there_is_nothing_to_do() -> None:
    """A process without children has killed its tree; strangers with the group's number are not looked for."""
    assert in_a_fork(lambda: kernel.kill_tree(os.getppid())) is True


def test_a_process_dies_with_its_parent() -> None:
    """After `die_with_parent` a process is killed when its parent is; one whose parent is gone already, exits."""

    def work():
        kernel.become_subreaper()
        reader, writer = os.pipe()

        def parent():
            me = os.getpid()

            def child():
                kernel.die_with_parent(me)
                os.write(writer, b"%d\n" % os.getpid())

            spawn(child)

        parent_pid = spawn(parent)
        child_pid = told(reader, 1)[0]
        os.kill(parent_pid, signal.SIGKILL)
        os.waitpid(parent_pid, 0)
        status = os.waitpid(child_pid, 0)[1]
        late = fork()
        if late == 0:
            kernel.die_with_parent(parent_pid)
            os._exit(0)
        return [os.waitstatus_to_exitcode(status), os.waitstatus_to_exitcode(os.waitpid(late, 0)[1])]

    assert in_a_fork(work) == [-signal.SIGKILL, 1]


def test_threads_are_counted() -> None:
    """A thread more is one more."""
    before = kernel.thread_count()
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert kernel.thread_count() == before + 1
    finally:
        over.set()
        thread.join()


def test_a_start_is_dated_in_wall_time() -> None:
    """A new process started now, and this one before it."""
    now = time.time()
    started = in_a_fork(kernel.started_at)
    assert now - 0.2 < started < time.time() + 0.2
    assert kernel.started_at() < now


def test_private_memory_counts_what_is_written() -> None:
    """Bytes that a process wrote are private; a file that it maps and reads is not."""
    from mmap import ACCESS_READ, mmap
    from tempfile import TemporaryFile

    size = 40 * 1024 * 1024

    def work():
        me = os.getpid()
        before = kernel.memory_of(me)
        with TemporaryFile() as file:
            file.truncate(size)
            mapped = mmap(file.fileno(), size, access=ACCESS_READ)
            sum(mapped[::4096])
            with_map = kernel.memory_of(me)
            own = bytearray(size)
            own[::4096] = b"x" * len(own[::4096])
            with_own = kernel.memory_of(me)
        return [before, with_map, with_own, len(own) + len(mapped)]

    before, with_map, with_own, _ = in_a_fork(work)
    assert with_map[0] - before[0] > 0.9 * size
    assert with_map[1] - before[1] < 0.5 * size
    assert with_own[1] - with_map[1] > 0.9 * size
    assert kernel.memory_of(2**22) == (0, 0)


def test_children_are_listed() -> None:
    """Those whose parent we are, and no grandchildren."""

    def work():
        reader, writer = os.pipe()

        def with_child():
            spawn(lambda: None)
            os.write(writer, b"1\n")

        child = spawn(with_child)
        told(reader, 1)
        listed = kernel.children() == [child]
        kernel.become_subreaper()
        kernel.kill_tree(child)
        return listed

    assert in_a_fork(work) is True


def test_a_hole_keeps_the_size() -> None:
    """A hole gives memory back, reads as zeros, and leaves the file as long as it was."""
    fd = os.memfd_create("test-hole")
    os.write(fd, b"x" * 1024 * 1024)
    assert kernel.punch_hole(fd, 4096, 1024 * 1024 - 4096)
    assert os.fstat(fd).st_size == 1024 * 1024
    assert os.fstat(fd).st_blocks * 512 < 64 * 1024
    assert os.pread(fd, 2, 4095) == b"x\0"
    os.close(fd)
