"""Runners for the nanny's tests. Workers import this, so it imports nothing of pytest's."""

import os
import threading
import time
from typing import Any

from dispatch import Runner, Shard


def parent_of(pid: int) -> int:
    """A process's parent, 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


class NeverReady(Runner[Any]):
    """Its setup does not end."""

    def setup(self) -> None:
        threading.Event().wait()

    def do_run(self, shard: Shard[Any]) -> None:
        """Never called."""


class Greedy(Runner[Any]):
    """Takes as many bytes as it is told, and keeps them."""

    def do_run(self, shard: Shard[Any]) -> int:
        kept = bytearray()
        while True:
            kept += b"x" * 4 * 1024 * 1024
            time.sleep(0.001)


class LeavesOrphans(Runner[Any]):
    """Each shard leaves a process behind that ends at once, and nobody waits for it."""

    def do_run(self, shard: Shard[Any]) -> int:
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
        return os.getppid()
