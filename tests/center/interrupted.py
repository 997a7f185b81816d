"""A program that `start()`s a centre; argv: the gate at which its first shard waits, `grace`, seconds of `setup`."""

import asyncio
import json
import sys
import time
from typing import Any

from dispatch import DataParallelDispatchCenter, DispatchConfig, Draining, Policy, Report, Runner, Shard
from tests.center.runners import Job, mark, work


class Waiter(Runner):
    """Takes its time to get ready if it is told to."""

    shared_param: dict[str, Any]

    def setup(self) -> None:
        """Say so, and wait."""
        mark(self.shared_param["gate"] + ".setup")
        time.sleep(self.shared_param["setup"])

    def do_run(self, shard: Shard[Job]) -> Any:
        """Work."""
        return work(shard.payload)

    def teardown(self) -> None:
        """Say so."""
        mark(self.shared_param["gate"] + ".teardown")


class Center(DataParallelDispatchCenter[Job, Any]):
    """Prints what its run comes to."""

    runner = Waiter

    async def get_shared_param(self) -> Any:
        """What the runner shares; from now on, listen."""
        self._listening = asyncio.create_task(self._listen())
        return self._shared_param

    async def _listen(self) -> None:
        """Say when the drain begins."""
        while self._opening is None:
            await asyncio.sleep(0.001)
        async for event in self.events():
            if isinstance(event, Draining):
                mark(self._shared_param["gate"] + ".draining")

    async def post_process(self, report: Report[Any]) -> None:
        """Once, interrupted or not."""
        print(json.dumps(report.counts), flush=True)


if __name__ == "__main__":
    gate, grace, setup = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    config = DispatchConfig(data_parallel=1, policy=Policy(grace=grace))
    param = {"gate": gate, "setup": setup}
    shards = [Job("gate", gate), *(Job(arg=n) for n in range(20))]
    center = Center(shards=shards, shared_param=param, config=config)
    report = center.start()
    print(f"ended well with {report.total} shards", flush=True)
