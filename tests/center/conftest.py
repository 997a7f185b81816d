"""Centres that stay open for all tests of a file; each file asks for the one it wants."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dispatch import DataParallelDispatchCenter, DispatchConfig
from tests.center.facts import Gate, NewGate
from tests.center.runners import Actor, AsyncActor, Job


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def center() -> AsyncIterator[DataParallelDispatchCenter[Job]]:
    """Two workers that do jobs."""
    async with DataParallelDispatchCenter(Actor, config=DispatchConfig(data_parallel=2)) as center:
        yield center


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def async_center() -> AsyncIterator[DataParallelDispatchCenter[Job]]:
    """One worker with an event loop, four jobs at once."""
    async with DataParallelDispatchCenter(AsyncActor, config=DispatchConfig(data_parallel=1)) as center:
        yield center


@pytest.fixture
def new_gate(tmp_path: Path) -> Iterator[NewGate]:
    """Makes gates; none stays shut after the test, whatever becomes of it."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
def gate(new_gate: NewGate) -> Gate:
    """One gate."""
    return new_gate()
