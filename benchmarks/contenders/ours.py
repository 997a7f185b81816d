"""dispatch, as its README says: default settings, unless a row asks what one of them costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import msgspec

from benchmarks.contenders.base import Contender, Weigh
from benchmarks.harness.work import length_of, piece_of
from dispatch import DataParallelDispatchCenter, DispatchConfig, Done, Policy


class Blob(msgspec.Struct):
    """A blob that workers see where it is mapped."""

    data: memoryview


class BlobCenter(DataParallelDispatchCenter):
    """Shares a blob."""

    def get_shared_param(self) -> Blob:
        return Blob(self._shared_param)

    @staticmethod
    def restore_shared_param(param: Blob) -> memoryview:
        return param.data


class TableCenter(DataParallelDispatchCenter):
    """Shares a dict of strings."""

    def get_shared_param(self) -> dict[str, str]:
        return self._shared_param  # type: ignore[no-any-return]

    @staticmethod
    def restore_shared_param(param: dict[str, str]) -> dict[str, str]:
        return param


def shared_piece(index: int, blob: memoryview) -> int:
    """A look at one piece."""
    return piece_of(blob, index)


def shared_length(index: int, table: dict[str, str]) -> int:
    """A look at one string."""
    return length_of(table, index)


_CENTERS = {
    "kept_piece": (BlobCenter, shared_piece),
    "kept_length": (TableCenter, shared_length),
}


class Ours(Contender):
    """`door`: stream or run. `resume="none"` reuses nothing. What else is given goes into the policy."""

    title = "dispatch"
    chunks = (1,)
    starts = ("spawn",)

    def __init__(
        self,
        fn: Callable[..., Any],
        workers: int,
        *,
        start: str = "",
        shared: Any = None,
        door: str = "stream",
        work_dir: str | None = None,
        resume: Literal["done", "none"] = "done",
        **policy: Any,
    ) -> None:
        super().__init__(fn, workers, start=start, shared=shared)
        self._door = door
        config = DispatchConfig(
            data_parallel=workers, work_dir=work_dir, resume=resume, policy=Policy(**policy)
        )
        kind, runner = _CENTERS.get(getattr(fn, "__name__", ""), (DataParallelDispatchCenter, fn))
        self.center: DataParallelDispatchCenter[Any, Any] = kind(runner, shared_param=shared, config=config)

    async def __aenter__(self) -> Ours:
        await self.center.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.center.aclose()

    async def fold(self, payloads: Iterable[Any], *, chunk: int = 1, weigh: Weigh = int) -> tuple[int, float]:
        count, total = 0, 0.0
        if self._door == "run":
            report = await self.center.run(payloads)
            for value in report.values():
                count += 1
                total += weigh(value)
            return count, total
        async with self.center.stream(payloads) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done):
                    count += 1
                    total += weigh(outcome.value)
        return count, total

    def call(self, payload: Any) -> Awaitable[Any]:
        return self.center.submit(payload)
