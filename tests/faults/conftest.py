"""Every test here is also a test of guarantee 3: when it is over, nothing that it started is left."""

import os
import time
from collections.abc import Iterator

import pytest

from dispatch.testing.traces import Traces
from tests.faults.scene import A_LOOK, MARK, Lateness


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process, socket or file outlives a test, however it ended."""
    os.environ[MARK] = f"{os.getpid()}-{os.urandom(8).hex()}"
    before = Traces.now()
    yield
    until = time.monotonic() + 3
    while (left := Traces.now().beyond(before)) and time.monotonic() < until:
        time.sleep(A_LOOK)
    assert not left, f"left behind: {left}"


@pytest.fixture
def lateness() -> Iterator[Lateness]:
    """How late this machine is while the test runs: what a bound on a time is widened by, and no more."""
    with Lateness() as measured:
        yield measured
