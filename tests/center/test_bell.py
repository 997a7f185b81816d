"""Bells: who waits is woken, and nobody is later."""

import asyncio

import pytest

from dispatch.center.bell import Bell


@pytest.mark.asyncio
async def test_a_bell_wakes_who_waits_and_is_not_remembered() -> None:
    """All who wait are woken by one ring, one that gave up is passed over, and who comes later waits for the next."""
    bell = Bell()
    bell.ring()
    waits = [asyncio.create_task(bell.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waits[1].cancel()
    bell.ring()
    late = asyncio.create_task(bell.wait())
    await asyncio.wait(waits)
    assert [wait.cancelled() for wait in waits] == [False, True, False]
    assert not late.done()
    bell.ring()
    await late
