"""What all tests share: the event loops.

An async test carries `@pytest.mark.asyncio` (strict mode) and runs once, on asyncio's own loop. A test of a
door, a channel or an engine must hold on uvloop too; it says so with one more mark, and runs twice:

    pytestmark = [pytest.mark.asyncio, pytest.mark.both_loops]      # a whole file


    @pytest.mark.asyncio
    @pytest.mark.both_loops
    async def test_submit_returns_the_value() -> None: ...          # [asyncio], then [uvloop]

Async fixtures (`@pytest_asyncio.fixture`) of such a test run on the same loop as the test. A test that needs
one loop in particular says `@pytest.mark.asyncio(loop_factories=["uvloop"])`. No event-loop policy is set.
"""

import asyncio

import pytest
import uvloop

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict:
    """Name the loops that a test runs on: asyncio's own, or both if it asks."""
    asks = item.get_closest_marker("asyncio").kwargs.get("loop_factories")
    if asks or item.get_closest_marker("both_loops"):
        return LOOPS
    return {"asyncio": LOOPS["asyncio"]}
