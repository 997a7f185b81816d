"""Whose event loop a centre runs on."""

import math

import pytest

from dispatch import ConfigError, DataParallelDispatchCenter


def test_a_loop_that_is_not_asyncios_is_refused() -> None:
    """A centre that is opened where asyncio runs no loop (trio, or none at all) says so, and starts nothing."""
    opening = DataParallelDispatchCenter(math.sqrt).open()
    with pytest.raises(ConfigError, match="runs on asyncio's loops"):
        opening.send(None)
