"""A shared param is encoded once for each opening, and decoded once in each worker."""

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig

pytestmark = [pytest.mark.asyncio, pytest.mark.both_loops]


class Counted:
    """Writes down each time it is encoded or decoded, and in which process (the hooks of pydantic's models)."""

    def __init__(self, log: str, add: int) -> None:
        self.log, self.add = log, add

    def model_dump(self, **options: Any) -> dict[str, Any]:
        write(self.log, "encoded")
        return {"log": self.log, "add": self.add}

    @classmethod
    def model_validate(cls, plain: dict[str, Any]) -> "Counted":
        write(plain["log"], "decoded")
        return cls(**plain)


def write(log: str, what: str) -> None:
    """One line, whole, whoever writes at the same time."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{what} {os.getpid()}\n".encode())
    os.close(fd)


def added(number: int, shared: Counted) -> tuple[int, int]:
    """Uses the shared param, and tells which worker did."""
    return number + shared.add, os.getpid()


async def test_one_encoding_and_one_decoding_in_each_worker(tmp_path: Path) -> None:
    """10,000 shards on 2 workers encode the param once and decode it twice; another opening does the same again."""
    log = tmp_path / "log"
    center = DataParallelDispatchCenter(
        added, range(5000), shared_param=Counted(str(log), 7), config=DispatchConfig(data_parallel=2)
    )
    for opening in (1, 2):
        async with center:
            with anyio.fail_after(20):
                while any(worker.state != "ready" for worker in center.snapshot().workers):
                    await anyio.sleep(0.01)
            for _ in range(2):
                values = (await center.run()).values()
                assert [value for value, _ in values] == list(range(7, 5007))
            lines = [line.split() for line in log.read_text().splitlines()]
            encoders = [int(pid) for what, pid in lines if what == "encoded"]
            decoders = [int(pid) for what, pid in lines if what == "decoded"]
            assert encoders == [os.getpid()] * opening
            assert len(decoders) == len(set(decoders)) == 2 * opening
            assert {pid for _, pid in values} <= set(decoders)


async def test_nothing_shared_is_no_file() -> None:
    """Without a shared param no file is opened for one."""

    def files() -> set[str]:
        """The files, without sockets and pipes, that this process holds open."""
        held = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return {os.readlink(fd) for fd in held if os.path.isfile(fd)}

    before = files()
    async with DataParallelDispatchCenter(abs, config=DispatchConfig(data_parallel=1)) as center:
        assert await center.submit(-3) == 3
        assert files() == before
    async with DataParallelDispatchCenter(
        added, shared_param=Counted(os.devnull, 0), config=DispatchConfig(data_parallel=1)
    ):
        assert len(files() - before) == 1
    assert files() == before
