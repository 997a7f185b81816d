"""What a shard changes in its process is put back: timers, working directory, umask, locale."""

import locale
import os
import signal

from dispatch.worker import tidy
from tests.worker.forks import in_a_fork


def watched(change):
    """What a process looks like after `setup`, after a change, and after that was put back."""

    def look():
        umask = os.umask(0)
        os.umask(umask)
        found = [
            os.getcwd(),
            umask,
            locale.setlocale(locale.LC_ALL, None),
            signal.getitimer(signal.ITIMER_REAL)[0],
        ]
        tidy.changed.clear()  # looking at it is a change, too
        return found

    def work():
        tidy.watch()
        os.chdir("/usr")
        os.umask(0o027)
        tidy.remember()
        before = look()
        change()
        told = sorted(tidy.changed)
        tidy.put_back()
        return [told, before, look(), sorted(tidy.changed)]

    return in_a_fork(work)


def everything():
    """What a careless shard does."""
    os.chdir("/")
    os.umask(0)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(100)


def test_everything_is_put_back() -> None:
    """After a shard that changed all of it, the process is as `setup` left it."""
    told, before, after, left = watched(everything)
    assert told == ["cwd", "locale", "timers", "umask"]
    assert before == after
    assert before[0] == "/usr"
    assert before[1] == 0o027
    assert left == []


def test_nothing_is_done_for_nothing() -> None:
    """A shard that changes nothing costs a look at an empty set."""
    told, before, after, _ = watched(lambda: None)
    assert told == []
    assert before == after


def test_a_change_by_descriptor_is_noticed() -> None:
    """`fchdir` and interval timers count, too."""

    def change():
        fd = os.open("/", os.O_RDONLY)
        os.fchdir(fd)
        signal.setitimer(signal.ITIMER_REAL, 100)

    told, before, after, _ = watched(change)
    assert told == ["cwd", "timers"]
    assert before == after


def test_a_directory_that_is_gone_is_not_gone_back_to(tmp_path) -> None:
    """If the directory of `setup` does not exist any more, the shard after it runs all the same."""

    def work():
        home = tmp_path / "home"
        home.mkdir()
        os.chdir(home)
        tidy.watch()
        tidy.remember()
        os.chdir("/")
        home.rmdir()
        tidy.put_back()
        return os.getcwd()

    assert in_a_fork(work) == "/"
