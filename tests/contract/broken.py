"""Engines and centres that each break one promise, so that the checks can be seen to catch them."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import Any, ClassVar

import msgspec

from dispatch import CenterClosed, DataParallelDispatchCenter, LocalDispatchCenter, Policy, Retry
from dispatch.engines.inline import InlineEngine
from dispatch.engines.process import ProcessEngine
from dispatch.testing.stage import RecordingHost
from dispatch.wire import frames


class Through:
    """A host in front of the real one; what it does not define goes straight through."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)


def telling(engine: type[Any], between: type[Any]) -> type[Any]:
    """An engine that tells its host through another one."""

    class Telling(engine):
        async def open(self, tasks: Any, host: Any) -> None:
            await super().open(tasks, between(host))

    Telling.__name__ = between.__name__
    return Telling


def is_kind(body: bytes, *kinds: type[Any]) -> bool:
    """Whether a runner's frame is of one of these kinds."""
    probe = RecordingHost()
    probe.on_frame(0, body)
    return isinstance(probe.told[0].said, kinds)


class NeverReady(Through):
    def on_frame(self, worker: int, body: bytes) -> None:
        if not is_kind(body, frames.Ready):
            self.host.on_frame(worker, body)


class FromAThread(Through):
    def on_frame(self, worker: int, body: bytes) -> None:
        thread = Thread(target=self.host.on_frame, args=(worker, body))
        thread.start()
        thread.join()


class SilentAboutFailedStarts(Through):
    def on_frame(self, worker: int, body: bytes) -> None:
        if not is_kind(body, frames.NotReady):
            self.host.on_frame(worker, body)


class EndsFirst(Through):
    """Keeps outcomes back until the worker has ended."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self.kept: list[Any] = []

    def on_frame(self, worker: int, body: bytes) -> None:
        if is_kind(body, frames.Results):
            self.kept.append((worker, body))
        else:
            self.host.on_frame(worker, body)

    def on_ended(self, worker: int, ended: Any, fault: Any) -> None:
        self.host.on_ended(worker, ended, fault)
        for kept in self.kept:
            self.host.on_frame(*kept)


class EndsTwice(Through):
    def on_ended(self, worker: int, ended: Any, fault: Any) -> None:
        self.host.on_ended(worker, ended, fault)
        self.host.on_ended(worker, ended, fault)


class WrongExitCode(Through):
    def on_ended(self, worker: int, ended: Any, fault: Any) -> None:
        if ended.exit_code is not None:
            ended = msgspec.structs.replace(ended, exit_code=ended.exit_code + 1)
        self.host.on_ended(worker, ended, fault)


class NoStack(Through):
    def on_ended(self, worker: int, ended: Any, fault: Any) -> None:
        self.host.on_ended(worker, msgspec.structs.replace(ended, stack=""), fault)


class ByeKills(InlineEngine):
    def send(self, worker: int, frame: Any) -> None:
        if isinstance(frame, frames.Bye):
            self.kill(worker)
        else:
            super().send(worker, frame)


class DeafToFences(InlineEngine):
    """Answers that the fence is up, and lets everything through."""

    def fence(self, worker: int, upto: int, *, kill: Any = ()) -> None:
        last = self._workers[worker].slot.read()[0]
        asyncio.get_running_loop().call_soon(self._host.on_fenced, worker, frames.Fenced(upto, last))


class FenceAlwaysKills(InlineEngine):
    def fence(self, worker: int, upto: int, *, kill: Any = ()) -> None:
        if kill:
            self.kill(worker)
        else:
            super().fence(worker, upto)


class OneLife(InlineEngine):
    def launch(self, start: Any) -> None:
        if self._lives == 0:
            super().launch(start)


class DeadMenRaise(InlineEngine):
    def kill(self, worker: int) -> None:
        assert self._workers[worker]
        super().kill(worker)


class KillsAll(InlineEngine):
    def kill(self, worker: int) -> None:
        for each in list(self._workers):
            super().kill(each)


class KeepsTheReleased(ProcessEngine):
    def release(self, worker: int) -> None:
        pass


class Leaves(InlineEngine):
    """Closes nothing; the test does that afterwards."""

    made: ClassVar[list[InlineEngine]] = []

    async def aclose(self) -> None:
        self.made.append(self)

    @classmethod
    async def tidy(cls) -> None:
        while cls.made:
            await super(Leaves, cls.made.pop()).aclose()


class LeakyOpening(InlineEngine):
    """Opens a socket, and forgets it when it is cancelled."""

    leaked: ClassVar[list[socket.socket]] = []

    async def open(self, tasks: Any, host: Any) -> None:
        self.leaked.append(socket.socket())
        await asyncio.sleep(0.01)
        self.leaked.pop().close()
        await super().open(tasks, host)

    @classmethod
    async def tidy(cls) -> None:
        while cls.leaked:
            cls.leaked.pop().close()


# Centres.


class Loses(LocalDispatchCenter):
    """A stream without its third outcome."""

    @asynccontextmanager
    async def stream(self, shards: Any = None, *, ordered: bool = False) -> Any:
        async with super().stream(shards, ordered=ordered) as outcomes:
            yield (outcome async for outcome in outcomes if outcome.index != 2)


class Repeats(LocalDispatchCenter):
    async def run(self, shards: Any = None, **options: Any) -> Any:
        report = await super().run(shards, **options)
        report.outcomes.append(report.outcomes[0])
        return report


class Reverses(LocalDispatchCenter):
    async def run(self, shards: Any = None, **options: Any) -> Any:
        report = await super().run(shards, **options)
        report.outcomes.reverse()
        return report


class Eager(LocalDispatchCenter):
    """Reads its source to the end before the first shard runs."""

    @asynccontextmanager
    async def stream(self, shards: Any = None, *, ordered: bool = False) -> Any:
        shards = self.iter_shards() if shards is None else shards
        read = [each for each in shards] if hasattr(shards, "__iter__") else [each async for each in shards]  # noqa: C416  (to the end)
        async with super().stream(read, ordered=ordered) as outcomes:
            yield outcomes


class Brakeless(LocalDispatchCenter):
    def __init__(self, *args: Any, config: Any, **options: Any) -> None:
        super().__init__(*args, config=msgspec.structs.replace(config, max_pending=10_000), **options)


class StandsStill(LocalDispatchCenter):
    """Reads a little more each time somebody looks away."""

    @asynccontextmanager
    async def stream(self, shards: Any = None, *, ordered: bool = False) -> Any:
        source, read = iter(shards), []

        async def nibble() -> None:
            with suppress(Exception):
                while True:
                    read.append(next(source))
                    await asyncio.sleep(0.02)

        def rest() -> Any:
            while True:
                yield read.pop(0) if read else next(source)

        task = asyncio.create_task(nibble())
        try:
            async with super().stream(rest(), ordered=ordered) as outcomes:
                yield outcomes
        finally:
            task.cancel()


def retrying(change: int) -> type[LocalDispatchCenter]:
    """A centre that allows more attempts than were asked for, or fewer."""

    class Retrying(LocalDispatchCenter):
        def __init__(self, *args: Any, config: Any, **options: Any) -> None:
            attempts = max(1, config.policy.retry.attempts + change)
            policy = Policy(retry=Retry(attempts=attempts))
            super().__init__(*args, config=msgspec.structs.replace(config, policy=policy), **options)

    return Retrying


class AnswersTheOneBefore(LocalDispatchCenter):
    before: Any = None

    async def submit(self, payload: Any, **options: Any) -> Any:
        answer, self.before = self.before, await super().submit(payload, **options)
        return answer


class NeverClosed(LocalDispatchCenter):
    async def submit(self, payload: Any, **options: Any) -> Any:
        with suppress(CenterClosed):
            return await super().submit(payload, **options)


class OneAtATime(LocalDispatchCenter):
    """A run waits until the stream is over."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lock = asyncio.Lock()

    @asynccontextmanager
    async def stream(self, *args: Any, **options: Any) -> Any:
        async with self.lock, super().stream(*args, **options) as outcomes:
            yield outcomes

    async def run(self, *args: Any, **options: Any) -> Any:
        async with self.lock:
            return await super().run(*args, **options)


class ColdWorkers(DataParallelDispatchCenter):
    """Other workers for every run."""

    async def run(self, *args: Any, **options: Any) -> Any:
        await self.aclose()
        await self.open()
        return await super().run(*args, **options)


class LeavesItsEngine(LocalDispatchCenter):
    def make_engine(self) -> Any:
        return Leaves()


class PostsTwice(LocalDispatchCenter):
    async def run(self, *args: Any, **options: Any) -> Any:
        report = await super().run(*args, **options)
        await self.post_process(report)
        return report


class SwallowsSourceErrors(LocalDispatchCenter):
    def iter_shards(self) -> Any:
        with suppress(LookupError):
            yield from self.shards


class AnyId(LocalDispatchCenter):
    """Takes the ids away."""

    def iter_shards(self) -> Any:
        for shard in self.shards:
            yield shard.payload


class ClosesAtOnce(LocalDispatchCenter):
    async def __aexit__(self, *_: object) -> None:
        await self.aclose(grace=0)


class NeverDrains(LocalDispatchCenter):
    def drain(self) -> None:
        pass


class ChargesInnocents(DataParallelDispatchCenter):
    """Tells that a worker which exited had died of a signal."""

    def make_engine(self) -> Any:
        return telling(ProcessEngine, WrongExitCode)()
