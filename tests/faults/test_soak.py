"""The soak in short; `make soak` is the long form."""

import asyncio

import pytest

from dispatch.testing.traces import leaves_nothing
from tests.faults.soak import soak


@pytest.mark.asyncio
@pytest.mark.both_loops
async def test_a_short_soak() -> None:
    """However often its runners and nannies are killed, a run ends with one right outcome for every shard."""
    seed = 20261122 + isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
    async with leaves_nothing(within=5):
        soaked = await soak(700, seed=seed, every=0.1)
    assert sum(soaked.kills.values()) >= 3
