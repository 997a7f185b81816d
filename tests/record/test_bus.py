"""Events to listeners: all of them, in order, and no listener can hurt the run or the others."""

import logging
from contextlib import aclosing

import anyio
import pytest

from dispatch.record import bus as bus_module
from dispatch.record.bus import Bus
from dispatch.terms.event import Draining, Event, Opened


def event(at: float) -> Event:
    """Something that happened at a time."""
    return Opened(at=at, workers=1)


def test_every_listener_hears_everything_in_order() -> None:
    """Each event is told at once, to all, in the order of their joining."""
    bus, heard = Bus(), []
    bus.join(lambda event: heard.append(("first", event.at)))
    bus.join(lambda event: heard.append(("second", event.at)))
    for at in (1, 2):
        bus.say(event(at))
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_nobody_listens_until_somebody_does() -> None:
    """`heard` says whether it is worth while to say something costly."""
    bus, heard = Bus(), []
    assert not bus.heard
    bus.say(event(1))
    bus.join(heard.append)
    assert bus.heard
    bus.leave(heard.append)
    assert not bus.heard
    bus.say(event(2))
    assert heard == []


def test_leaving_twice_is_leaving_once() -> None:
    """A listener that has left, or never came, can leave."""
    bus, heard = Bus(), []
    bus.leave(heard.append)
    bus.join(heard.append)
    bus.leave(heard.append)
    bus.leave(heard.append)
    assert not bus.heard


def test_a_failing_listener_is_told_of_and_dropped(caplog) -> None:
    """What a listener raises is logged with its traceback; it hears no more, and the others do."""
    bus, heard = Bus(), []

    def fails(event: Event) -> None:
        heard.append("failing")
        raise ZeroDivisionError

    bus.join(fails)
    bus.join(heard.append)
    with caplog.at_level(logging.ERROR, "dispatch"):
        bus.say(event(1))
        bus.say(event(2))
    assert heard == ["failing", event(1), event(2)]
    [record] = caplog.records
    assert record.name == "dispatch"
    assert record.exc_info[0] is ZeroDivisionError


def test_a_listener_may_leave_while_it_hears() -> None:
    """One that leaves in the middle of an event does not cost another one that event."""
    bus, heard = Bus(), []

    def once(event: Event) -> None:
        heard.append("once")
        bus.leave(once)

    bus.join(once)
    bus.join(heard.append)
    bus.say(event(1))
    bus.say(event(2))
    assert heard == ["once", event(1), event(2)]


def test_what_ends_the_host_is_not_kept_back() -> None:
    """A KeyboardInterrupt in a listener is not a failing listener: it is raised on."""
    bus = Bus()

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    bus.join(interrupted)
    with pytest.raises(KeyboardInterrupt):
        bus.say(event(1))


@pytest.mark.asyncio
@pytest.mark.both_loops
async def test_events_can_be_awaited() -> None:
    """A reader gets what is said from its first step on, also while it is away, in order."""
    bus, found = Bus(), []

    async def read() -> None:
        async with aclosing(bus.events()) as events:
            async for each in events:
                found.append(each.at)
                if isinstance(each, Draining):
                    return

    bus.say(event(0))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            for at in (1, 2, 3):
                bus.say(event(at))
            await anyio.wait_all_tasks_blocked()
            bus.say(Draining(at=4))
    assert found == [1, 2, 3, 4]
    assert not bus.heard


@pytest.mark.asyncio
async def test_two_readers_do_not_share() -> None:
    """Each reader gets everything."""
    bus, found = Bus(), []

    async def read() -> None:
        async with aclosing(bus.events()) as events:
            found.append((await anext(events)).at)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            bus.say(event(1))
    assert found == [1, 1]


@pytest.mark.asyncio
async def test_a_reader_that_is_cancelled_has_left() -> None:
    """Cancelling a reader ends its listening."""
    bus = Bus()

    async def read() -> None:
        async with aclosing(bus.events()) as events:
            await anext(events)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert bus.heard
        tasks.cancel_scope.cancel()
    assert not bus.heard


@pytest.mark.asyncio
async def test_a_slow_reader_loses_the_oldest(monkeypatch) -> None:
    """Who is more than BACKLOG events behind gets the newest ones; memory does not grow."""
    monkeypatch.setattr(bus_module, "BACKLOG", 3)
    bus = Bus()
    async with aclosing(bus.events()) as events:
        async with anyio.create_task_group() as tasks:
            first = []

            async def one() -> None:
                first.append((await anext(events)).at)

            tasks.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            for at in range(10):
                bus.say(event(at))
        assert first == [7]
        assert [(await anext(events)).at for _ in range(2)] == [8, 9]
