"""One suite over every engine: what engines/base.py promises. Each promise is a function of dispatch.testing."""

import pytest

from dispatch.engines.inline import InlineEngine
from dispatch.engines.process import ProcessEngine
from dispatch.testing import ENGINE_PROMISES, FaultyChannel, check_engine

by_name = {"ids": lambda promise: promise.__name__}


class RelayedEngine(ProcessEngine):
    """The process engine with a relay between workers and centre that carries every frame as it is."""

    def __init__(self) -> None:
        self.relay = FaultyChannel(lambda passing: None)
        super().__init__(relay=self.relay)

    async def aclose(self) -> None:
        await super().aclose()
        await self.relay.aclose()
        assert self.relay.passed["hi"] >= 2 * self.relay.passed["ready"]


@pytest.mark.asyncio
@pytest.mark.both_loops
@pytest.mark.parametrize("promise", ENGINE_PROMISES, **by_name)
@pytest.mark.parametrize("engine", [InlineEngine, ProcessEngine])
async def test_an_engine_keeps_its_promise(engine, promise) -> None:
    """Every engine of ours keeps every promise of an engine."""
    await check_engine(engine, promises=[promise])


@pytest.mark.asyncio
@pytest.mark.parametrize("promise", ENGINE_PROMISES[:6], **by_name)
async def test_a_relay_that_does_nothing_is_not_felt(promise) -> None:
    """An engine keeps its promises with a relay in between: what it is told by then is told in the same order."""
    await check_engine(RelayedEngine, promises=[promise])
