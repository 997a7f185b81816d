"""One opening of a centre: the session, its doors, and what is shared, from `open` to `close`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope

from dispatch.center.concrete import Concrete
from dispatch.center.run import RunDoor, SourceDoor
from dispatch.center.seat import Seat
from dispatch.center.session import Session
from dispatch.center.stream import Outcomes, StreamDoor
from dispatch.center.submit import CallDoor
from dispatch.engines.base import Engine, Start
from dispatch.record.bus import Bus
from dispatch.terms.errors import JournalError, RunnerError
from dispatch.terms.event import Event
from dispatch.terms.report import Report
from dispatch.wire.calls import CallTable
from dispatch.wire.codec import Codec
from dispatch.wire.shared import SharedFile, fingerprint, publish
from dispatch.worker.runner import Target, describe, reference
from dispatch.worker.spec import Lease

_log = logging.getLogger("dispatch")

if TYPE_CHECKING:
    from dispatch.center.base import DispatchCenter
    from dispatch.center.recorder import Recorder

__all__ = ("Opening",)

STOPPED_WITHIN = 2.0  # seconds that the shards of a door that is left get to be gone


class Opening:
    """What a centre is while it is open."""

    def __init__(
        self,
        center: DispatchCenter[Any, Any],
        targets: list[Target],
        engine: Engine | None,
        *,
        for_a_run: bool,
    ) -> None:
        """For the workers that `center.check()` names, on an engine that it has made already, or will make."""
        self._center, self._targets, self._engine = center, targets, engine
        self._for_a_run = for_a_run  # opened by a run or a stream, which comes next
        self._recorder: Recorder | None = None  # of that run
        self.bus = Bus()
        if center.on_event is not None:
            self.bus.join(center.on_event)
        self._keys = count(1)
        self._shared: SharedFile | None = None
        self._codecs: dict[str, Codec] = {}
        for target in self._targets:
            told = describe(target)
            codec = Codec(told.name, told.payload_type, told.value_type, limit=center.config.max_value_bytes)
            self._codecs.setdefault(told.name, codec)

    async def prepare(self) -> None:
        """Encode the shared param. Cancelling, or an error, leaves nothing behind but the engine."""
        center = self._center
        param = center.get_shared_param()
        if inspect.isawaitable(param):
            param = await param
        if param is not None:
            self._shared = publish(param)
        self._identity = self._identified(param)
        try:
            if self._for_a_run:  # who may not write there starts no workers
                self._recorder = await self._new_recorder()
            seats = [self._seat(number, target, param) for number, target in enumerate(self._targets)]
            calls = CallTable(center)
            self.session = Session(
                self._engine or center.make_engine(),
                seats,
                policy=center.config.policy,
                calls=calls,
                bus=self.bus,
            )
            self.session.on_over = self._unshare  # also when the event loop closes before anybody closes us
        except BaseException:
            self._unshare()
            await self._put_down()
            raise

    async def open(self) -> None:
        """Make the workers ready. Cancelling, or an error, leaves nothing behind."""
        try:
            await self.session.open()
        except BaseException:
            self._unshare()
            await self._put_down()
            raise
        center = self._center
        self.calls = CallDoor(self.session, next(self._keys), self._codecs, config=center.config)

    def _seat(self, number: int, target: Target, param: Any) -> Seat:
        center, config, told = self._center, self._center.config, describe(target)
        declared = getattr(type(center), "_declared", type(center))
        lease = Lease(
            runner=reference(target) if center.needs_import else told.name,
            center=reference(declared) if center.needs_import and _customised(declared) else "",
            shared=None if self._shared is None else (self._shared.path, self._shared.size),
            shared_type=_type_of(param, needed=center.needs_import),
            limit=config.max_value_bytes,
            seed=config.seed,
            cancel_grace=config.policy.cancel_grace,
            isolation=config.policy.isolation,
            memory_limit=config.policy.memory_limit,
            concurrency=0 if center.needs_import else 1,
        )
        start = Start(
            number=number,
            lease=lease,
            targets=(target, type(center) if _customised(declared) else None),
            env=config.env,
            startup_timeout=config.policy.startup_timeout,
        )
        return Seat(start, self._codecs[told.name], told.name)

    async def close(self, *, now: bool = False, grace: float | None = None) -> None:
        """See Session.close; the shared param's file goes too."""
        try:
            await self.session.close(now=now, grace=grace)
        finally:
            await self._put_down()

    # The journal.

    def _identified(self, param: Any) -> Any:
        """What outcomes depend on beside their shards; None where nothing is recorded."""
        if self._center.config.work_dir is None:
            return None
        from dispatch.record.journal import Identity

        told = [describe(target) for target in self._targets]
        shared = None if self._shared is None else fingerprint(param, self._shared)
        return Identity(runners={each.name: each.version for each in told}, shared=shared)

    async def _new_recorder(self) -> Recorder | None:
        """Own the work_dir, if there is one."""
        if self._identity is None:
            return None
        from dispatch.center.recorder import Recorder

        return await Recorder.open(self._center.config, self._identity, self._codecs, bus=self.bus)

    async def _put_down(self) -> None:
        """The run that this was opened for never came."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            with CancelScope(shield=True):
                await recorder.close(finished=False)

    def _unshare(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    # Doors.

    async def run(
        self,
        shards: Iterable[Any] | AsyncIterable[Any] | None,
        *,
        collect: bool,
        doors: list[Any] | None = None,
    ) -> Report[Any]:
        """One run on this opening. Its door is put into `doors`, for who wants a report although it was cancelled."""
        source = self._source(shards)
        door: RunDoor[Any] = RunDoor(
            self.session, next(self._keys), self._codecs, config=self._center.config, collect=collect
        )
        if doors is not None:
            doors.append(door)
        async with self._through(door, source):
            await door.finished()
        if door.error is not None:
            raise door.error
        return door.report()

    @asynccontextmanager
    async def stream(
        self, shards: Iterable[Any] | AsyncIterable[Any] | None, *, ordered: bool
    ) -> AsyncGenerator[Outcomes[Any]]:
        """One stream on this opening."""
        source = self._source(shards)
        door: StreamDoor[Any] = StreamDoor(
            self.session, next(self._keys), self._codecs, config=self._center.config, ordered=ordered
        )
        async with self._through(door, source):
            yield Outcomes(door)

    def _source(
        self, shards: Iterable[Any] | AsyncIterable[Any] | None
    ) -> Iterable[Any] | AsyncIterable[Any]:
        """Asked for before there is a door: an `iter_shards` that raises leaves none behind."""
        return self._center.iter_shards() if shards is None else shards

    @asynccontextmanager
    async def _through(
        self, door: SourceDoor[Any], source: Iterable[Any] | AsyncIterable[Any]
    ) -> AsyncGenerator[None]:
        """Read the source while inside; on leaving stop what is not done, and tell the centre what became of it."""
        await self._record(door)
        failed = True
        try:
            async with _recorded(door):
                try:
                    async with _background(door.pump, source):
                        yield
                    failed = False
                finally:
                    if door.settled:
                        door.leave()
                    else:
                        await door.stopped(STOPPED_WITHIN)
        finally:
            if failed:
                await self._last_words(door)
            else:
                await self._center.post_process(door.report())

    async def _last_words(self, door: SourceDoor[Any]) -> None:
        """`post_process` for a caller that is on its way out: not for ever, and what it raises is logged."""
        patience = self._center.config.policy.grace + STOPPED_WITHIN
        with anyio.move_on_after(patience, shield=True):
            try:
                await self._center.post_process(door.report())
            except Exception:  # noqa: BLE001  (the reason for leaving goes before)
                _log.exception("post_process failed after a run that did")

    async def _record(self, door: SourceDoor[Any]) -> None:
        """Let the journal have what goes through a door, if there is a work_dir."""
        door.recorder, self._recorder = self._recorder, None
        try:
            if door.recorder is None:
                door.recorder = await self._new_recorder()
        except BaseException:
            door.leave()
            raise
        if door.recorder is not None:
            door.recorder.begin(self.session, door)

    def events(self) -> AsyncIterator[Event]:
        """See `Bus.events`."""
        return self.bus.events()


@asynccontextmanager
async def _recorded(door: SourceDoor[Any]) -> AsyncGenerator[None]:
    """On leaving, all that became of the door's shards is written, and the work_dir is free."""
    try:
        yield
    except BaseException:
        if door.recorder is not None:
            with suppress(JournalError):  # what is on its way out goes before
                await door.recorder.close(finished=False)
        raise
    if door.recorder is not None:
        await door.recorder.close(finished=door.finished_whole)


@asynccontextmanager
async def _background(work: Any, *args: Any) -> AsyncGenerator[None]:
    """Run `work(*args)` while inside, and end it on leaving. What the block raises comes out as it is."""
    task = asyncio.create_task(work(*args))
    try:
        yield
    finally:
        task.cancel()
        with CancelScope(shield=True):
            await asyncio.wait([task])


def _customised(center: type[Any]) -> bool:
    """Whether workers must import this centre: it brings its own restore_shared_param, or a type for it."""
    return (
        center.restore_shared_param is not Concrete.restore_shared_param
        or center.get_shared_param is not Concrete.get_shared_param
    )


def _type_of(param: Any, *, needed: bool) -> str:
    """A reference to the class of a shared param that no annotation describes; "" for plain values."""
    kind: type[Any] = param.__class__
    if param is None or kind.__module__ == "builtins" or kind.__module__ not in sys.modules:
        return ""
    try:
        return reference(kind)
    except RunnerError:
        if needed:
            raise
        return ""  # a local class, and workers that import nothing: they get plain values
