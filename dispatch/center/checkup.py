"""Could workers run this here? Each thing that is looked at comes back with what was found, and a cure if it is ill."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dispatch.center.data_parallel import usable_cpus
from dispatch.terms.errors import ConfigError, DispatchError, RunnerError
from dispatch.terms.event import Event, WorkerReady
from dispatch.wire.codec import Codec
from dispatch.worker.runner import Description, Target, describe, reference

if TYPE_CHECKING:
    from dispatch.center.base import DispatchCenter

__all__ = ("Finding", "checkup")

STARTERS = ("asyncio.run", "anyio.run", "trio.run", "uvloop.run")  # and anything.start()
FILES_EACH = 8  # descriptors that a worker costs its parent, generously
ROOM = 64 * 1024 * 1024  # bytes of temporary space under which shared params are at risk


class Finding(Struct, frozen=True):
    """One thing that was looked at. `ill` stops a run, `doubtful` may hurt it; then `cure` says what helps."""

    what: str
    state: Literal["well", "doubtful", "ill"]
    says: str
    cure: str = ""


async def checkup(center: DispatchCenter[Any, Any]) -> AsyncIterator[Finding]:
    """Look at a centre's declarations, then at this machine, and last start one worker and let it go.

    Takes as long as a worker takes to start, `policy.startup_timeout` at most.
    """
    declarations = list(_declarations(center))
    for finding in declarations:
        yield finding
    for finding in _machine(center):
        yield finding
    if all(finding.state != "ill" for finding in declarations):
        yield await _worker(center)


def _declarations(center: DispatchCenter[Any, Any]) -> Iterator[Finding]:
    try:
        target = center.check()[0]
        yield Finding("name", "well", f"workers import it as {reference(target)}")
        told = describe(target)
        yield from _source(target)
        yield from _annotations(told)
        Codec(told.name, told.payload_type, told.value_type, limit=center.config.max_value_bytes)
        strangers = sorted({*_strangers(told.payload_type), *_strangers(told.value_type)})
        if strangers:
            cure = "annotate with a Struct, a dataclass, a pydantic model or plain types"
            yield Finding("codec", "ill", f"{', '.join(strangers)} cannot be encoded", cure)
        else:
            yield Finding("codec", "well", "payloads and values can be encoded and checked")
    except RunnerError as error:
        yield Finding("runner", "ill", f"{error.runner}: {error.problem}", error.cure)
    except ConfigError as error:
        yield Finding(error.field, "ill", f"it is {error.got!r}", error.cure)


def _source(target: Target) -> Iterator[Finding]:
    """What a module does while it is imported is done in every worker too."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[target.__module__]))
    except (OSError, TypeError, SyntaxError):
        return  # no source: nothing to be seen
    for statement in tree.body:
        call = getattr(statement, "value", None)
        name = ast.unparse(call.func) if isinstance(call, ast.Call) else ""
        if name in STARTERS or name.endswith(".start"):
            found = (
                f"line {statement.lineno} calls {name}() while the module is imported, in every worker too"
            )
            yield Finding("import", "ill", found, "put it under: if __name__ == '__main__':")
            return
    yield Finding("import", "well", "importing the module starts nothing")


def _annotations(told: Description) -> Iterator[Finding]:
    yield Finding(
        "kind", "well", f"{'async' if told.is_async else 'sync'}, {told.concurrency} at a time in a worker"
    )
    for what, kind in (("payload", told.payload_type), ("value", told.value_type)):
        if kind is Any:
            cure = "annotate it to have it checked, and tuples, sets and classes kept"
            yield Finding(what, "doubtful", "not annotated: plain lists, dicts, numbers and text", cure)
        else:
            yield Finding(what, "well", getattr(kind, "__name__", str(kind)))


def _strangers(kind: Any) -> Iterator[str]:
    """The classes within an annotation that msgspec leaves to hooks, and that our hooks do not know."""
    todo, seen = [msgspec.inspect.type_info(kind)], set[int]()
    while todo:
        found: Any = todo.pop()
        if id(found) in seen or not isinstance(found, msgspec.inspect.Type | msgspec.inspect.Field):
            continue
        seen.add(id(found))
        if isinstance(found, msgspec.inspect.CustomType) and not hasattr(found.cls, "model_validate"):
            yield found.cls.__name__
        for name in found.__struct_fields__:
            part: Any = getattr(found, name)
            todo += part if isinstance(part, tuple) else (part,)


def _machine(center: DispatchCenter[Any, Any]) -> Iterator[Finding]:
    if sys.platform == "linux":
        yield Finding("platform", "well", f"Linux, Python {sys.version.split()[0]}")
    else:
        cure = "use Linux for memory_limit, isolation='fork', and to find daemons that workers leave"
        yield Finding("platform", "doubtful", f"{sys.platform}, Python {sys.version.split()[0]}", cure)
    usable, workers = usable_cpus(), len(center.init_runners())
    found = f"{workers} workers on {usable} usable CPUs (the machine has {os.cpu_count()})"
    if workers > usable:
        yield Finding("CPUs", "doubtful", found, "-j (data_parallel) no higher, if shards keep a CPU busy")
    else:
        yield Finding("CPUs", "well", found)
    yield from _limits(workers)
    if center.config.policy.isolation == "fork" and threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        cure = "start threads in setup's place only: a fork cannot take them along"
        yield Finding("threads", "doubtful", f"importing it started {names}", cure)


def _limits(workers: int) -> Iterator[Finding]:
    import resource  # not on Windows, where workers cannot run either

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 64 + FILES_EACH * workers
    if soft != resource.RLIM_INFINITY and soft < needed:
        cure = f"ulimit -n {needed}" + ("" if hard >= needed else " needs an administrator here; lower -j")
        yield Finding("open files", "ill", f"the limit is {soft}, and {workers} workers need {needed}", cure)
    else:
        yield Finding("open files", "well", f"the limit is {soft}")
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()  # noqa: S108  (only looked at)
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    says = f"{free // 1_000_000:,} MB free in {folder}"
    if free < ROOM:
        yield Finding("temporary space", "doubtful", says, "shared params go there: make room")
    else:
        yield Finding("temporary space", "well", says)


async def _worker(center: DispatchCenter[Any, Any]) -> Finding:
    """Start one worker, `setup` included, and let it go."""
    center.config = replace(center.config, data_parallel=1)
    ready: list[WorkerReady] = []

    def hear(event: Event) -> None:
        if isinstance(event, WorkerReady):
            ready.append(event)

    center.on_event = hear
    try:
        async with center:
            pass
    except DispatchError as error:
        told = str(error.__cause__ or "").strip().strip('"').strip()
        cure = "what is imported here must be importable there: see the traceback" if told else ""
        return Finding("a worker", "ill", "\n".join(filter(None, [str(error), told])), cure)
    took = f" after {ready[0].seconds:.2f} s" if ready else ""
    says = f"it imported everything and was ready{took}"
    return Finding("a worker", "well", says)
