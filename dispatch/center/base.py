"""The abstract centre: what a user declares, and the doors.

This module is imported in workers too, for `restore_shared_param`: at module level it imports terms, wire and
worker only; opening a centre imports the session and the engines.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, get_type_hints, overload

from dispatch.terms.config import DispatchConfig
from dispatch.terms.errors import CenterClosed, CenterOpen, ConfigError, RunnerError
from dispatch.terms.outcome import Outcome
from dispatch.terms.report import Report
from dispatch.terms.shard import Shard, Shards
from dispatch.worker.runner import Target

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import TypeVar

    from dispatch.center.starting import Starting
    from dispatch.center.typed import Async, AsyncSharing, Caller, Opened, Sharing, Sync
    from dispatch.engines.base import Engine
    from dispatch.terms.event import Event, Snapshot

    P = TypeVar("P", default=Any)
    R = TypeVar("R", default=Any)
    P2 = TypeVar("P2")
    R2 = TypeVar("R2")
else:
    from typing import TypeVar

    P = TypeVar("P")
    R = TypeVar("R")

__all__ = ("DispatchCenter",)


class DispatchCenter(ABC, Generic[P, R]):
    """Hands shards to runners, answers their calls, collects outcomes. Lives in the parent's event loop only.

    A subclass says which workers to start (`init_runners`) and what they share. `P` is what a shard's payload
    is, `R` what a runner returns.
    """

    runner: Target | None = None
    config: DispatchConfig
    on_event: Callable[[Event], None] | None = None  # hears every event of an opening; must not block

    if not TYPE_CHECKING:

        def __class_getitem__(cls, given: Any) -> Any:
            """`DispatchCenter[Sample]` is `DispatchCenter[Sample, Any]`, as type checkers read it."""
            given = given if isinstance(given, tuple) else (given,)
            missing = len(cls.__parameters__) - len(given)
            return super().__class_getitem__((*given, *[Any] * missing))

    @overload
    def __init__(
        self,
        runner: None = None,
        shards: Shards[P] = (),
        *,
        shared_param: Any = None,
        config: DispatchConfig | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        runner: Async[P, R] | AsyncSharing[P, Any, R],
        shards: Shards[P] = (),
        *,
        shared_param: Any = None,
        config: DispatchConfig | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        runner: Sync[P, R] | Sharing[P, Any, R],
        shards: Shards[P] = (),
        *,
        shared_param: Any = None,
        config: DispatchConfig | None = None,
    ) -> None: ...

    def __init__(
        self,
        runner: Target | None = None,
        shards: Shards[Any] = (),
        *,
        shared_param: Any = None,
        config: DispatchConfig | None = None,
    ) -> None:
        """`runner` is a Runner class or an importable function; `shards` payloads or Shards, of any length.

        Raises ConfigError if a field makes no sense.
        """
        if runner is not None:
            self.runner = runner
        self.shards = shards
        self.config = DispatchConfig() if config is None else config
        if not isinstance(self.config, DispatchConfig):
            raise ConfigError("config", self.config, "it must be a DispatchConfig")
        self._shared_param = shared_param
        self._opening: Opened | None = None
        self._closing: Opened | None = None  # the last that was asked to close
        self._lent: Opened | None = None  # the last that was opened for one run or stream
        self._starting: Starting | None = None  # the opening that is under way

    # What a subclass declares.

    @abstractmethod
    def init_runners(self) -> Sequence[Target]:
        """The workers to start, one entry each; the classes may differ."""

    @abstractmethod
    def get_shared_param(self) -> Any:
        """What all workers share; None: nothing. Called in the parent once per opening; may be `async def`.

        Its return annotation is the type that workers decode into.
        """

    @staticmethod
    @abstractmethod
    def restore_shared_param(param: Any) -> Any:
        """Called in each worker, once; what it returns is the runner's `shared_param`."""

    def iter_shards(self) -> Iterable[Any] | AsyncIterable[Any]:
        """The shards of a run that is given none; sync or async."""
        return self.shards

    async def post_process(self, report: Report[R]) -> None:
        """Called in the parent once per run, interrupted ones included."""

    def make_engine(self) -> Engine:
        """Where this centre's workers live. The default: processes on this machine; ConfigError on Windows."""
        if sys.platform == "win32":
            raise ConfigError(
                "platform", sys.platform, "worker processes need Unix; LocalDispatchCenter runs here"
            )
        from dispatch.engines.process import ProcessEngine

        return ProcessEngine()

    @classmethod
    def shared_type(cls) -> Any:
        """The type that workers decode the shared param into."""
        return cls.hints_of("get_shared_param").get("return", Any)

    @classmethod
    def hints_of(cls, method: str) -> dict[str, Any]:
        """The annotations of one of its methods. Raises RunnerError if they cannot be resolved."""
        try:
            return get_type_hints(getattr(cls, method), include_extras=True)
        except NameError as error:
            problem = f"the annotations of {method} cannot be resolved: {error}"
            raise RunnerError(cls.__qualname__, problem, "import the name outside TYPE_CHECKING") from None

    @overload
    @classmethod
    def init(
        cls,
        config: DispatchConfig | None = None,
        runner: None = None,
        shards: Shards[P] = (),
        *,
        shared_param: Any = None,
    ) -> Self: ...

    @overload
    @classmethod
    def init(
        cls,
        config: DispatchConfig | None,
        runner: Async[P2, R2] | AsyncSharing[P2, Any, R2],
        shards: Shards[P2] = (),
        *,
        shared_param: Any = None,
    ) -> DispatchCenter[P2, R2]: ...

    @overload
    @classmethod
    def init(
        cls,
        config: DispatchConfig | None,
        runner: Sync[P2, R2] | Sharing[P2, Any, R2],
        shards: Shards[P2] = (),
        *,
        shared_param: Any = None,
    ) -> DispatchCenter[P2, R2]: ...

    @classmethod
    def init(
        cls,
        config: DispatchConfig | None = None,
        runner: Target | None = None,
        shards: Shards[Any] = (),
        *,
        shared_param: Any = None,
    ) -> DispatchCenter[Any, Any]:
        """The centre that `config.runner_type` names; a subclass keeps its methods and takes that one's engine.

        Raises ConfigError if no centre has that name.
        """
        from dispatch.center.rebased import rebased
        from dispatch.center.registry import find

        config = DispatchConfig() if config is None else config
        kind: Any = rebased(cls, find(config.runner_type))
        made: DispatchCenter[Any, Any] = kind(runner, shards, shared_param=shared_param, config=config)
        return made

    # Doors.

    async def run(
        self,
        shards: Shards[P] | None = None,
        *,
        collect: bool = True,
        handle_signals: bool = False,
    ) -> Report[R]:
        """Run everything, then return what became of it; opens and closes the centre if it is not open.

        `collect=False` keeps counts and failures only. `handle_signals`: the first SIGINT or SIGTERM drains,
        the second stops, and the report says so. Raises StartupFailed if no worker can be made ready, and what
        the source of shards raised, after the shards before it are done. Cancelling stops the shards (SIGKILL).
        """
        if handle_signals:
            from dispatch.center.interrupts import run_with_signals

            opened = self._opened()
            return await run_with_signals(opened, shards, collect=collect, post_process=self.post_process)
        async with self._opened() as opening:
            return await opening.run(shards, collect=collect)

    @asynccontextmanager
    async def stream(
        self, shards: Shards[P] | None = None, *, ordered: bool = False
    ) -> AsyncGenerator[AsyncIterator[Outcome[R]]]:
        """Outcomes as they come, or in input order; opens and closes the centre if it is not open.

        A slow consumer stops the reading of shards. Leaving early stops what was read. Errors as in `run`. Its report,
        which `post_process` gets, has all counts and the first 1,000 outcomes that are not Done.
        """
        async with self._opened() as opening, opening.stream(shards, ordered=ordered) as outcomes:
            yield outcomes

    async def submit(self, payload: P | Shard[P], *, timeout: float | None = None, nowait: bool = False) -> R:
        """The value for one payload, on an open centre. `timeout` bounds one attempt's run time (seconds).

        Raises what the runner raised, or ShardTimeout, WorkerDied, OutOfMemory, Undeliverable, StartupFailed;
        CenterClosed if the centre is not open; QueueFull if `nowait` and `max_pending` shards wait; ConfigError if a
        Shard makes no sense. Cancelling withdraws the shard, or stops it where it runs.
        """
        outcome: Outcome[R] = await self._calls("submit").submit(payload, timeout=timeout, nowait=nowait)
        return outcome.unwrap()

    async def submit_outcome(
        self, payload: P | Shard[P], *, timeout: float | None = None, nowait: bool = False
    ) -> Outcome[R]:
        """The same as `submit`, as an outcome: raises only CenterClosed, QueueFull and ConfigError (a wrong Shard)."""
        outcome: Outcome[R] = await self._calls("submit_outcome").submit(
            payload, timeout=timeout, nowait=nowait
        )
        return outcome

    def _calls(self, door: str) -> Caller:
        return self._need_open(door).calls

    async def open(self) -> None:
        """Start the workers; they stay warm until `aclose`. Returns when the first is ready.

        Raises StartupFailed if none can be, ConfigError or RunnerError if the declarations are wrong, CenterOpen if
        the centre is open already, CenterClosed if somebody closes it meanwhile.
        """
        if self._opening is not None or self._starting is not None:
            raise CenterOpen
        await self._open()

    async def _open(self, *, for_a_run: bool = False) -> Opened:
        from dispatch.center.boot import boot, need_asyncio
        from dispatch.center.starting import Starting

        need_asyncio()
        self._starting = Starting()
        try:
            opening = await self._starting.through(boot(self, for_a_run=for_a_run))
            self._opening = opening
            return opening
        finally:
            self._starting = None

    async def aclose(self, grace: float | None = None) -> None:
        """Finish what was accepted, let the workers tear down, leave nothing behind. Closing twice is once.

        After `grace` seconds what remains is stopped. Cancelling stops at once. Ends an `open` that is under way.
        """
        if self._starting is not None:
            await self._starting.give_up()
        await self._close(self._opening, grace=grace)

    async def _close(self, opening: Opened | None, *, now: bool = False, grace: float | None = None) -> None:
        if (opening := opening or self._closing) is not None:
            if opening is self._opening:
                self._opening, self._closing = None, opening
            await opening.close(now=now, grace=grace)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(self._opening, now=error is not None)

    def start(self, *, collect: bool = True) -> Report[R]:
        """Blocking: an event loop (uvloop where installed), signal handling, then `run`.

        If it was interrupted, the report is printed to stderr and SystemExit(130) raised.
        """
        import anyio

        run = partial(self.run, collect=collect, handle_signals=True)
        report = anyio.run(run, backend_options={"use_uvloop": sys.platform != "win32"})
        if report.interrupted:
            print(report, file=sys.stderr)  # noqa: T201  (start() is the program's door)
            raise SystemExit(130)
        return report

    def drain(self) -> None:
        """Start no new shard: what waits is Cancelled, and after `policy.grace` what still runs.

        Raises CenterClosed if the centre is not open.
        """
        self._need_open("drain").session.drain()

    def snapshot(self) -> Snapshot:
        """Counts, rates, and what each worker does now. Raises CenterClosed if not open."""
        return self._need_open("snapshot").session.snapshot()

    def events(self) -> AsyncIterator[Event]:
        """What happens, from this call on, until the centre closes. Raises CenterClosed if not open."""
        return self._need_open("events").events()

    def _need_open(self, door: str) -> Opened:
        if self._opening is None:
            raise CenterClosed(door)
        return self._opening

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Opened]:
        """The opening that somebody keeps open, else one of our own: another run's closes when that run ends."""
        if self._opening is not None and self._opening is not self._lent:
            yield self._opening
        elif self._opening is not None or self._starting is not None:
            from dispatch.center.boot import own

            async with own(self) as opening:
                yield opening
        else:
            self._lent = mine = await self._open(for_a_run=True)
            failed = True
            try:
                yield mine
                failed = False
            finally:
                await self._close(mine, now=failed)

    # What the declarations come to.

    def check(self) -> list[Target]:
        """The targets of the workers to start. Raises ConfigError or RunnerError for what could never work."""
        from dispatch.center.declared import checked

        return checked(self)

    needs_import = True  # whether workers import runner and centre; not if they live in this process
