"""Our processes stay out of anyio's pool, and the host's out of ours."""

import os

import anyio
import pytest
from anyio import BrokenWorkerProcess, to_process

from dispatch.engines import pool
from dispatch.engines.pool import Apart, bury
from dispatch.testing import until
from dispatch.testing.traces import is_alive
from tests.hosts_pool import closes_the_hosts_pool

pytestmark = [pytest.mark.asyncio, pytest.mark.both_loops]


async def test_anyio_still_has_the_names_that_we_need() -> None:
    """The private names of anyio's pool exist: without them we share it, which works, but not as well."""
    assert len(pool._variables) == 2


@closes_the_hosts_pool
async def test_a_call_of_ours_gets_a_process_of_its_own() -> None:
    """A call through Apart is served by a new process, and the host's goes on serving the host."""
    theirs = await to_process.run_sync(os.getpid)
    apart = Apart()
    apart.begin()
    try:
        ours = await to_process.run_sync(os.getpid, limiter=apart)
    finally:
        apart.end()
    assert ours != theirs
    assert await to_process.run_sync(os.getpid) == theirs
    os.kill(ours, 9)
    assert await until(lambda: not is_alive(ours))


@closes_the_hosts_pool
async def test_ending_twice_is_ending_once() -> None:
    """The host's pool is put back once, whether the call began or not."""
    apart = Apart()
    apart.end()
    apart.begin()
    apart.end()
    apart.end()
    theirs = await to_process.run_sync(os.getpid)
    assert await to_process.run_sync(os.getpid) == theirs


async def test_a_process_whose_call_failed_is_buried() -> None:
    """The process that an error came from is found, ended, and waited for."""
    apart = Apart()
    apart.begin()
    try:
        with pytest.raises(BrokenWorkerProcess) as caught:
            # not os._exit itself: under coverage it does not pickle
            await to_process.run_sync(exec, "import os; os._exit(3)", limiter=apart)
    finally:
        apart.end()
    with anyio.fail_after(5):
        await bury(caught.value)
    await bury(ValueError("of nobody"))
