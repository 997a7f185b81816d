"""DummyDispatchCenter: executes nothing, and says what a run would do."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from dispatch.center.base import P, R
from dispatch.center.concrete import Concrete
from dispatch.terms.errors import CenterClosed
from dispatch.terms.outcome import Cancelled, Outcome
from dispatch.terms.report import Counts, Plan, PlannedShard, Report
from dispatch.terms.shard import Entry, Origin, Shard, Shards, is_shard
from dispatch.wire.codec import Codec, NotDeliverable
from dispatch.wire.shared import publish
from dispatch.worker.runner import describe

if TYPE_CHECKING:
    from dispatch.center.typed import Opened
    from dispatch.engines.base import Engine

__all__ = ("DummyDispatchCenter",)

NO_WORKERS = "needs workers, and a dummy centre, which executes nothing, has none"
BUNCH = 256  # shards seen before the event loop gets a turn


class DummyDispatchCenter(Concrete[P, R]):
    """Consumes the shards and encodes each; every outcome is Cancelled, and `report.plan` says what was seen.

    With a `work_dir` the plan is also written there, as plan.json.
    """

    def make_engine(self) -> Engine:
        """None: a dummy centre starts no worker."""
        raise CenterClosed("make_engine", NO_WORKERS)

    def _workers(self) -> int:
        from dispatch.center.data_parallel import usable_cpus

        return self.config.data_parallel or usable_cpus()

    async def open(self) -> None:
        """Check the declarations; start nothing."""
        self.check()

    async def aclose(self, grace: float | None = None) -> None:
        """Nothing was started."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing was started."""

    def _need_open(self, door: str) -> Opened:
        raise CenterClosed(door, NO_WORKERS)

    async def run(
        self,
        shards: Shards[P] | None = None,
        *,
        collect: bool = True,
        handle_signals: bool = False,
    ) -> Report[R]:
        """Encode every shard; the report's outcomes are Cancelled, and its `plan` is filled."""
        from asyncio import sleep  # workers import this module too, and need no event loop

        began = monotonic()
        targets = self.check()
        told = [describe(target) for target in targets]
        codecs = {
            each.name: Codec(each.name, each.payload_type, each.value_type, limit=self.config.max_value_bytes)
            for each in told
        }
        planner = _Planner(
            codecs,
            Plan(runners=tuple(each.name for each in told), shared_param_bytes=await self._shared_bytes()),
        )
        source = self.iter_shards() if shards is None else shards
        if isinstance(source, AsyncIterable):
            async for payload in source:
                planner.see(payload)
        else:
            for number, payload in enumerate(source, 1):
                planner.see(payload)
                if not number % BUNCH:
                    await sleep(0)
        cancelled = len(planner.outcomes)
        report: Report[R] = Report(
            outcomes=planner.outcomes if collect else [],
            counts=Counts(cancelled=cancelled) if cancelled else Counts(),
            total=cancelled,
            total_known=True,
            seconds=monotonic() - began,
            plan=planner.plan,
        )
        self._keep(planner.plan)
        await self.post_process(report)
        return report

    @asynccontextmanager
    async def stream(
        self, shards: Shards[P] | None = None, *, ordered: bool = False
    ) -> AsyncGenerator[AsyncIterator[Outcome[R]]]:
        """The Cancelled outcomes of every shard."""
        report = await self.run(shards)

        async def outcomes() -> AsyncIterator[Outcome[R]]:
            for outcome in report.outcomes:
                yield outcome

        yield outcomes()

    async def _shared_bytes(self) -> int | None:
        param = self.get_shared_param()
        if inspect.isawaitable(param):
            param = await param
        if param is None:
            return None
        shared = publish(param)
        shared.close()
        return shared.size

    def _keep(self, plan: Plan) -> None:
        if self.config.work_dir is None:
            return
        os.makedirs(self.config.work_dir, exist_ok=True)
        path = os.path.join(self.config.work_dir, "plan.json")
        with open(path + ".part", "w") as file:
            json.dump(msgspec.to_builtins(plan), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".part", path)


class _Planner:
    """Sees shards go by."""

    def __init__(self, codecs: dict[str, Codec], plan: Plan) -> None:
        self._codecs, self.plan = codecs, plan
        self.outcomes: list[Any] = []
        self._ids: set[str] = set()

    def see(self, payload: Any) -> None:
        shard = payload if is_shard(payload) else Shard(payload)
        index = len(self.outcomes)
        name = shard.id or str(index)
        codec = self._codecs.get(shard.runner or self.plan.runners[0])
        problem, data = "", b""
        if shard.id in self._ids:
            problem = "another shard has this id"
        elif codec is None:
            problem = f"no runner is called {shard.runner}"
        elif shard.timeout is not None and not shard.timeout > 0:
            problem = f"its timeout is {shard.timeout}"
        else:
            try:
                data = codec.encode(shard.payload)
                codec.decode_payload(data)
            except NotDeliverable as error:
                problem = str(error)
        if shard.id:
            self._ids.add(shard.id)
        digest = blake2b(data, digest_size=16).hexdigest()
        self.plan.shards.append(PlannedShard(id=name, size=len(data), digest=digest, problem=problem))
        origin = Origin(0, next(iter(self._codecs.values())).decode_payload)
        entry = Entry(index, data, origin, id=shard.id, unencoded=shard.payload)
        self.outcomes.append(Cancelled(entry=entry))
