"""The house stands as drawn: who may import whom, and the laws of each room.

Laws are tables, in the first part of this file; checkers are plain functions from a house to sentences about
what is wrong in it; the last part feeds each checker a house that breaks its law. Everything is read from the
syntax tree: nothing of dispatch is imported here. To change a law, change its table, and say why.
"""

import ast
import graphlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

# ---------------------------------------------------------------------------------------------- the tables

# Left may import right; in functions and behind TYPE_CHECKING too. Nobody imports the front door.
ARROWS = {
    "terms": "",
    "scheduling": "terms",
    "record": "terms",
    "wire": "terms",
    "worker": "wire terms",
    "engines": "worker wire terms",
    "center": "engines worker wire scheduling record terms",
    "testing": "center engines worker wire scheduling record terms",
    "cli": "center record terms",
    "__main__": "cli",
    "dispatch": "center engines worker wire scheduling record terms testing",  # the front door
}

# What a room may import beside the standard library and ourselves.
THIRD_PARTY = {
    "terms": "msgspec",
    "scheduling": "msgspec",
    "record": "msgspec anyio rich",
    "wire": "msgspec anyio",
    "worker": "msgspec anyio uvloop",
    "engines": "msgspec anyio ray",
    "center": "msgspec anyio uvloop",
    "testing": "msgspec anyio",
    "cli": "msgspec anyio rich typer pyarrow",
    "__main__": "",
    "dispatch": "",
}

# What any room may import behind TYPE_CHECKING: type checkers bring it, we do not depend on it.
TYPING_ONLY = "typing_extensions"

# Imports of our own modules inside functions: from here, to these, and no others.
LAZY = {
    "dispatch": "center engines worker wire scheduling record terms testing",  # the front door resolves names
    "center.base": "center engines record",  # a worker imports centres; only the parent opens them
    "center.local": "center engines record",
    "center.data_parallel": "center engines record",
    "center.dummy": "center engines record",
    "center.boot": "center.opening",  # while worker processes boot
    "center.opening": "center.recorder record.journal",  # sqlite3 only with a work_dir
    "worker.nanny": "worker",  # the parent imports it too, and needs no lane
    "worker.main": "worker",  # asyncio only in the async lane
    "cli": "cli record",  # typer and rich are extras, and workers import the program that started them
}

# The one module whose in-function imports may close a circle: the base class opens what is built upon it.
MAY_CLOSE_A_CIRCLE = ("center.base",)

# Declarations are imported by workers, so at module level they import these only (TYPE_CHECKING aside).
DECLARATIONS = ("center.base", "center.concrete", "center.local", "center.data_parallel", "center.dummy")
DECLARATIONS_IMPORT = "terms wire worker center.base center.concrete center.registry msgspec"

# What a worker of the sync lane loads by our doing: these modules, and what they import at module level...
LEAN = ("worker.nanny", "worker.main", "worker.sync_lane", "worker.fork", *DECLARATIONS)
# ... must not bring these.
HEAVY = ("argparse", "asyncio", "pydantic", "ray", "rich", "sqlite3", "typer", "uvloop")


class Law(NamedTuple):
    """Words that may not be used, where, and who is excused.

    A word is a dotted name as imported ("os.fork" catches `from os import fork` too, "socket" everything in
    it), or, with a star, an identifier wherever it comes from ("*Encoder").
    """

    says: str
    words: str
    where: str = ""  # rooms or modules; nothing: everywhere
    excused: str = ""  # rooms or modules


LAWS = {
    "terms-do-no-io": Law(
        "terms only say things",
        "asyncio anyio io mmap pathlib socket sqlite3 subprocess tempfile threading *input *open *print",
        where="terms",
    ),
    "scheduling-reads-no-clock": Law(
        "time is an argument", "anyio asyncio datetime sched threading time", where="scheduling"
    ),
    "one-clock": Law(
        "in the parent only the parts of a session read the clock",
        "time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns time.time time.time_ns"
        " *current_time",
        where="terms scheduling wire center",
        # The session was split by noun: books, seats, crew, feeder, the doors, which say when a shard came in, and
        # the recorder, which dates what it writes.
        excused="center.session center.books center.crew center.feeder center.seat"
        " center.run center.submit center.dummy center.recorder",
    ),
    "wire-knows-codecs": Law("only wire makes codecs", "*Encoder *Decoder", excused="wire"),
    "wire-knows-sockets": Law(
        "only wire names a socket or a listener",
        "socket socketserver multiprocessing.connection *SocketAttribute *SocketListener *SocketStream"
        " *UNIXSocketStream *connect_unix *create_tcp_listener *create_unix_connection *create_unix_listener"
        " *create_unix_server *open_unix_connection *start_server *start_unix_server",
        excused="wire",
    ),
    "wire-knows-maps": Law(
        "only wire maps memory, and the slot its own few bytes", "mmap", excused="wire worker.slot"
    ),
    "nanny-is-bare": Law(
        "the nanny imports no user code and starts no thread",
        "asyncio anyio concurrent importlib multiprocessing runpy threading _thread *__import__ *eval *exec"
        " *import_module",
        where="worker.nanny",
    ),
    "engines-start-workers": Law(
        "only engines know where workers live", "*to_process ray", excused="engines"
    ),
    "engines-start-processes": Law(
        "processes are started by engines, by the nanny (birth), and by the fork per shard",
        "os.fork os.forkpty os.posix_spawn os.posix_spawnp os.spawnv os.spawnve os.system multiprocessing pty"
        " subprocess anyio.open_process anyio.run_process *ProcessPoolExecutor *create_subprocess_exec"
        " *create_subprocess_shell",
        excused="engines worker.nanny worker.birth worker.fork testing",
    ),
    "center-handles-signals": Law(
        "signals are handled by the centre when asked, and by the worker in its own process",
        "signal.pthread_sigmask signal.set_wakeup_fd signal.signal signal.sigwait *add_signal_handler"
        " *open_signal_receiver",
        excused="center worker",
    ),
    "center-opens-task-groups": Law(
        "the session's task group is opened in center",
        "asyncio.TaskGroup *create_task_group",
        excused="center engines.process worker.async_lane testing",  # groups that end where they begin
    ),
    "the-host-is-left-alone": Law(
        "a library sets neither the logging configuration nor the event-loop policy",
        "logging.basicConfig logging.config *set_event_loop_policy",
        excused="cli worker.main",  # the runner process is ours
    ),
    "no-pickle": Law("nothing of ours pickles", "cloudpickle dill marshal pickle shelve"),
}

NO_ASYNC = ("terms", "scheduling")

MAX_LINES = {"center.session": 299}  # the one that wants to become a god
MAX_LINES_ELSE = 400

NO_SUCH_NOUN = ("common", "helper", "helpers", "manager", "misc", "util", "utils")


# ----------------------------------------------------------------------------------------- reading a house


class Import(NamedTuple):
    """One import: of a module of ours ("wire.frames"; the front door is "dispatch"), or of another's."""

    target: str
    ours: bool
    when: Literal["module", "function", "typing"]
    line: int


class Source(NamedTuple):
    """One file of the house."""

    name: str  # "wire.frames"; a folder's __init__.py has the folder's name, the front door is "dispatch"
    folders: tuple[str, ...]  # below dispatch/
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]


House = dict[str, Source]


def read(files: dict[str, str]) -> House:
    """Read a house from its files: path below dispatch/ -> text."""
    house = {}
    for path, text in sorted(files.items()):
        *folders, file = path.removesuffix(".py").split("/")
        name = ".".join(folders if file == "__init__" else [*folders, file]) or "dispatch"
        house[name] = Source(name, tuple(folders), text, ast.parse(text, path))
    return house


def stands_in(name: str, places: str | tuple[str, ...]) -> bool:
    """Tell whether a module is one of these, or in one of these rooms."""
    places = places.split() if isinstance(places, str) else places
    return any(name == place or name.startswith(place + ".") for place in places)


def imports(source: Source, house: House) -> Iterator[Import]:
    """List what a file imports, wherever the import stands, also by `import_module` with a literal name."""
    yield from _imports(source.tree, source, house, "module")


def _imports(node: ast.AST, source: Source, house: House, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for dotted in _imported_names(child, source):
            ours = dotted.partition(".")[0] == "dispatch"
            yield Import(_owner(dotted, house) if ours else dotted, ours, when, child.lineno)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, source, house, "function")
        elif isinstance(child, ast.If) and ast.unparse(child.test).removeprefix("typing.") == "TYPE_CHECKING":
            yield from _imports(ast.Module(child.body, []), source, house, "typing")
            yield from _imports(ast.Module(child.orelse, []), source, house, when)
        else:
            yield from _imports(child, source, house, when)


def _imported_names(node: ast.AST, source: Source) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = ".".join(filter(None, [_above(source, level), module]))
            return [f"{base}.{alias.name}" for alias in names]
        case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
            if ast.unparse(func).rpartition(".")[2] in ("import_module", "__import__"):
                return [name]
    return []


def _above(source: Source, level: int) -> str:
    """Name the package that the dots of a relative import mean; nothing if there are none."""
    parts = ["dispatch", *source.folders]
    return ".".join(parts[: len(parts) + 1 - level]) if level else ""


def _owner(dotted: str, house: House) -> str:
    """Name the file that an import of ours opens: "dispatch.wire.frames.Hello" -> "wire.frames"."""
    parts = dotted.split(".")[1:]
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in house:
            return name
    return ".".join(parts) if parts and parts[0] in ARROWS else "dispatch"


def words(source: Source) -> Iterator[tuple[str, int]]:
    """List the dotted names a file uses, resolved through its imports; others start with "?"."""
    known = {}
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                known |= {alias.asname: alias.name for alias in names if alias.asname}
                known |= {top: top for top in (a.name.partition(".")[0] for a in names if not a.asname)}
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                known |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in names}
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in names)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, *rest = _chain(node)
            yield ".".join([known.get(first, f"?{first}"), *rest]), node.lineno


def _chain(node: ast.expr) -> list[str]:
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Attribute(value=value, attr=attr):
            return [*_chain(value), attr]
    return ["?"]  # an attribute of something that is not a name: f().x


def is_word(word: str, used: str) -> bool:
    """Tell whether a name used in a file is a word of a law."""
    if word.startswith("*"):
        return word[1:] in used.lstrip("?").split(".")
    return used == word or used.startswith(word + ".")


# ------------------------------------------------------------------------------------------------ checkers


def _reach(name: str) -> str:
    return f"{name} {ARROWS.get(name, '')}"


def wrong_arrows(house: House) -> list[str]:
    """Say which imports of our own modules ARROWS does not draw."""
    return [
        f"{source.name}:{item.line} imports {item.target}"
        for source in house.values()
        for item in imports(source, house)
        if item.ours and (item.target == "dispatch" or not stands_in(item.target, _reach(source.room)))
    ]


def unknown_rooms(house: House) -> list[str]:
    """Say which files stand in no room that ARROWS and THIRD_PARTY know."""
    return [name for name, source in house.items() if not {source.room} <= ARROWS.keys() & THIRD_PARTY.keys()]


def wrong_third_parties(house: House) -> list[str]:
    """Say who imports a package that its room may not import."""
    return [
        f"{source.name}:{item.line} imports {item.target}"
        for source in house.values()
        for item in imports(source, house)
        if not item.ours
        and not stands_in(item.target, THIRD_PARTY.get(source.room, ""))
        and not (item.when == "typing" and stands_in(item.target, TYPING_ONLY))
        and item.target.partition(".")[0] not in sys.stdlib_module_names
    ]


def wrong_lazies(house: House) -> list[str]:
    """Say which imports inside functions LAZY does not allow."""
    return [
        f"{source.name}:{item.line} imports {item.target} inside a function"
        for source in house.values()
        for item in imports(source, house)
        if item.ours and item.when == "function" and not stands_in(item.target, LAZY.get(source.name, ""))
    ]


def circles(house: House) -> list[str]:
    """Say where imports close a circle: between files, so also among siblings."""
    graph = {
        source.name: {
            item.target
            for item in imports(source, house)
            if item.ours and not (item.when == "function" and source.name in MAY_CLOSE_A_CIRCLE)
        }
        for source in house.values()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def wrong_declarations(house: House) -> list[str]:
    """Say what the declarations of centres import at module level beyond DECLARATIONS_IMPORT."""
    return [
        f"{source.name}:{item.line} imports {item.target} at module level"
        for source in house.values()
        if source.name in DECLARATIONS
        for item in imports(source, house)
        if item.when == "module" and not stands_in(item.target, DECLARATIONS_IMPORT)
        if item.ours or item.target.partition(".")[0] not in sys.stdlib_module_names
    ]


def heavy_workers(house: House) -> list[str]:
    """Say what heavy module a worker of the sync lane would load, and through which file of ours."""
    loaded: dict[str, list[Import]] = {}
    todo = [*LEAN]
    while todo:
        name = todo.pop()
        if name in house and name not in loaded:
            loaded[name] = [item for item in imports(house[name], house) if item.when == "module"]
            todo += [name.partition(".")[0], *(item.target for item in loaded[name] if item.ours)]
    return [
        f"{name}:{item.line} loads {item.target} in every worker"
        for name in loaded
        for item in loaded[name]
        if not item.ours and stands_in(item.target, HEAVY)
    ]


def broken(law: Law) -> Callable[[House], list[str]]:
    """Make the checker of one law of words."""

    def check(house: House) -> list[str]:
        return [
            f"{source.name}:{line} says {used.lstrip('?')}, but {law.says}"
            for source in house.values()
            if not law.where or stands_in(source.name, law.where)
            if not stands_in(source.name, law.excused)
            for used, line in words(source)
            if any(is_word(word, used) for word in law.words.split())
        ]

    return check


def awaiting(house: House) -> list[str]:
    """Say where async syntax stands in a room that must not await."""
    syntax = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    return [
        f"{source.name}:{getattr(node, 'lineno', '?')} is async"
        for source in house.values()
        if source.room in NO_ASYNC
        for node in ast.walk(source.tree)
        if isinstance(node, syntax) or (isinstance(node, ast.comprehension) and node.is_async)
    ]


def too_long(house: House) -> list[str]:
    """Say which files have more lines than they may."""
    sizes = {name: len(source.text.splitlines()) for name, source in house.items()}
    return [
        f"{name} has {size} lines"
        for name, size in sizes.items()
        if size > MAX_LINES.get(name, MAX_LINES_ELSE)
    ]


def empty_nouns(house: House) -> list[str]:
    """Say which files are named after nothing in particular."""
    return [name for name in house if not set(name.split(".")).isdisjoint(NO_SUCH_NOUN)]


# ----------------------------------------------------------------------------------------------- the house

ROOT = Path(__file__).parents[1] / "dispatch"
HOUSE = read({str(path.relative_to(ROOT)): path.read_text("utf-8") for path in ROOT.rglob("*.py")})


def room(name: str) -> House:
    """Give the files of one room, which is how a failing test says where to look."""
    return {source.name: source for source in HOUSE.values() if source.room == name}


@pytest.mark.parametrize("name", ARROWS)
def test_a_room_imports_only_what_its_arrows_allow(name: str) -> None:
    """Imports follow the arrows, in functions and behind TYPE_CHECKING too."""
    assert [wrong for wrong in wrong_arrows(HOUSE) if stands_in(wrong.partition(":")[0], name)] == []


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_a_room_imports_only_the_packages_it_may(name: str) -> None:
    """A package from outside is imported only in the rooms that are there for it."""
    assert wrong_third_parties(room(name)) == []


@pytest.mark.parametrize("says", LAWS)
def test_a_word_stays_in_its_room(says: str) -> None:
    """What only one room may do is named in that room only."""
    assert broken(LAWS[says])(HOUSE) == []


def test_every_file_stands_in_a_room() -> None:
    """No file stands in a room that the tables do not know."""
    assert unknown_rooms(HOUSE) == []


def test_imports_go_down_only() -> None:
    """No imports form a circle: not among siblings, and not behind TYPE_CHECKING."""
    assert circles(HOUSE) == []


def test_imports_stand_at_the_top() -> None:
    """Our own modules are imported inside functions only where the table gives a reason."""
    assert wrong_lazies(HOUSE) == []


def test_declaring_a_centre_opens_nothing() -> None:
    """The modules that a worker imports with a centre's class stay declarations."""
    assert wrong_declarations(HOUSE) == []


def test_a_worker_stays_lean() -> None:
    """Nothing that every worker imports brings an event loop, a database or a terminal."""
    assert heavy_workers(HOUSE) == []


def test_terms_and_scheduling_never_await() -> None:
    """What is said and what is decided is plain."""
    assert awaiting(HOUSE) == []


def test_files_are_short() -> None:
    """No file is longer than 400 lines, and the session stays under 300."""
    assert too_long(HOUSE) == []


def test_files_have_names() -> None:
    """No file is named utils, helpers, manager or the like."""
    assert empty_nouns(HOUSE) == []


# --------------------------------------------------------------------------------- each checker can say no

GOOD = {
    "__init__.py": "def __getattr__(name):\n    from dispatch.center import base\n",
    "__main__.py": "from dispatch.cli import main\n",
    "cli.py": "import typer\nimport dispatch.center.base\ndef main(): import dispatch.record.bus\n",
    "terms/shard.py": "import random\nfrom msgspec import Struct\nfrom dispatch.terms.errors import Error\n",
    "terms/errors.py": "opened = 1\nclass Error(Exception): ...\n",
    "scheduling/queue.py": "from ..terms import shard\ndef due(now, time): return time <= now\n",
    "record/bus.py": "from dispatch.terms import shard\n",
    "wire/__init__.py": "",
    "wire/channel.py": "import socket, asyncio, mmap\nfrom msgspec.msgpack import Decoder\n",
    "wire/frames.py": "if TYPE_CHECKING:\n    import typing_extensions\n    from .channel import Channel\n",
    "worker/nanny.py": "import os\nfrom dispatch.worker.main import main\nos.fork()\nself.socket.close()\n",
    "worker/main.py": "import importlib\ndef main():\n    from dispatch.worker import async_lane\n",
    "worker/async_lane.py": "import asyncio\n",
    "worker/slot.py": "import mmap\n",
    "engines/process.py": "from anyio import to_process\nfrom dispatch.worker import nanny\n",
    "center/base.py": "import dispatch.wire.frames\ndef open_center():\n    from . import session\n",
    "center/local.py": "from dispatch.center.base import Center\n",
    "center/session.py": "import time, anyio\nfrom dispatch.center.base import Center\ntime.monotonic()\n",
}

BAD = [  # checker, the file that breaks the law, its text, what the checker must say
    (wrong_arrows, "terms/x.py", "import dispatch.wire.frames", "terms.x:1 imports wire.frames"),
    (wrong_arrows, "terms/x.py", "def f():\n  from ..wire import frames", "terms.x:2 imports wire.frames"),
    (wrong_arrows, "wire/x.py", "from ..worker.runner import Runner", "wire.x:1 imports worker.runner"),
    (wrong_arrows, "wire/x.py", "from .. import worker", "wire.x:1 imports worker"),
    (wrong_arrows, "worker/x.py", "if TYPE_CHECKING:\n  import dispatch.center", "worker.x:2 imports center"),
    (wrong_arrows, "record/x.py", "import_module('dispatch.center.base')", "record.x:1 imports center.base"),
    (wrong_arrows, "engines/x.py", "from dispatch import record", "engines.x:1 imports record"),
    (wrong_arrows, "center/x.py", "from dispatch import Runner", "center.x:1 imports dispatch"),
    (wrong_arrows, "center/x.py", "import dispatch", "center.x:1 imports dispatch"),
    (wrong_arrows, "center/x.py", "from dispatch.cli import main", "center.x:1 imports cli"),
    (unknown_rooms, "attic/x.py", "", "attic.x"),
    (wrong_third_parties, "terms/x.py", "import anyio.abc", "terms.x:1 imports anyio.abc"),
    (wrong_third_parties, "terms/x.py", "import typing_extensions", "terms.x:1 imports typing_extensions"),
    (wrong_third_parties, "__init__.py", "def f(): from rich import live", "dispatch:1 imports rich.live"),
    (wrong_lazies, "wire/x.py", "def f(): from . import frames", "wire.x:1 imports wire.frames inside"),
    (wrong_lazies, "worker/x.py", "f = lambda: __import__('dispatch.wire')", "worker.x:1 imports wire in"),
    (circles, "wire/channel.py", "from dispatch.wire.frames import X", "wire.channel"),
    (circles, "terms/errors.py", "if TYPE_CHECKING:\n    from .shard import Shard", "terms.shard"),
    (circles, "terms/errors.py", "def f(): from .shard import Shard", "terms.shard"),
    (
        wrong_declarations,
        "center/local.py",
        "import dispatch.engines.process",
        "local:1 imports engines.proc",
    ),
    (
        wrong_declarations,
        "center/local.py",
        "class C:\n  from .session import S",
        "imports center.session at",
    ),
    (wrong_declarations, "center/base.py", "import anyio", "center.base:1 imports anyio at"),
    (heavy_workers, "wire/frames.py", "from .channel import X", "wire.channel:1 loads asyncio"),
    (heavy_workers, "wire/__init__.py", "import sqlite3.dbapi2", "wire:1 loads sqlite3.dbapi2"),
    (awaiting, "terms/x.py", "async def f(): ...", "terms.x:1 is async"),
    (awaiting, "scheduling/x.py", "def f(): return (x async for x in y)", "scheduling.x:? is async"),
    (too_long, "wire/x.py", "\n" * 401, "wire.x has 401 lines"),
    (too_long, "center/session.py", "\n" * 300, "center.session has 300 lines"),
    (empty_nouns, "wire/utils.py", "", "wire.utils"),
]

BAD_WORDS = [  # law, the file that breaks it, its text
    ("terms-do-no-io", "terms/x.py", "open('/proc/self')"),
    ("terms-do-no-io", "terms/x.py", "from pathlib import Path"),
    ("scheduling-reads-no-clock", "scheduling/x.py", "from time import monotonic as now"),
    ("one-clock", "center/opening.py", "import time\ntime.time()"),
    ("one-clock", "center/opening.py", "import anyio\nanyio.current_time()"),
    ("wire-knows-codecs", "record/x.py", "import msgspec\nmsgspec.json.Encoder()"),
    ("wire-knows-sockets", "worker/nanny.py", "import socket"),
    ("wire-knows-sockets", "engines/process.py", "import anyio\nanyio.create_unix_listener('x')"),
    ("wire-knows-maps", "worker/main.py", "from mmap import mmap"),
    ("nanny-is-bare", "worker/nanny.py", "import importlib.util"),
    ("nanny-is-bare", "worker/nanny.py", "def f():\n    from threading import Thread"),
    ("nanny-is-bare", "worker/nanny.py", "exec('1')"),
    ("engines-start-workers", "center/session.py", "import anyio.to_process as t"),
    ("engines-start-workers", "center/session.py", "import anyio\nanyio.to_process.run_sync(f)"),
    ("engines-start-workers", "worker/x.py", "import ray.util"),
    ("engines-start-processes", "worker/main.py", "import os as o\no.fork()"),
    ("engines-start-processes", "record/x.py", "from subprocess import run"),
    ("center-handles-signals", "engines/x.py", "import signal\nsignal.signal(2, f)"),
    ("center-handles-signals", "record/x.py", "get_running_loop().add_signal_handler(2, f)"),
    ("center-opens-task-groups", "record/x.py", "from anyio import create_task_group as g"),
    ("the-host-is-left-alone", "center/x.py", "import logging\nlogging.basicConfig()"),
    ("no-pickle", "wire/x.py", "import pickle"),
]

CHECKERS = (
    wrong_arrows,
    unknown_rooms,
    wrong_third_parties,
    wrong_lazies,
    circles,
    wrong_declarations,
    heavy_workers,
    awaiting,
    too_long,
    empty_nouns,
    *map(broken, LAWS.values()),
)


@pytest.mark.parametrize("checker", CHECKERS, ids=[*[c.__name__ for c in CHECKERS[: -len(LAWS)]], *LAWS])
def test_a_good_house_is_not_blamed(checker: Callable[[House], list[str]]) -> None:
    """A small house that keeps every law passes every checker."""
    assert checker(read(GOOD)) == []


@pytest.mark.parametrize(("checker", "path", "text", "says"), BAD)
def test_a_checker_names_what_is_wrong(
    checker: Callable[[House], list[str]], path: str, text: str, says: str
) -> None:
    """The same house with one bad file fails the checker of the law that it breaks."""
    assert any(says in wrong for wrong in checker(read({**GOOD, path: text})))


@pytest.mark.parametrize(("says", "path", "text"), BAD_WORDS)
def test_a_law_of_words_can_be_broken(says: str, path: str, text: str) -> None:
    """The same house with a word out of its room fails the law about that word."""
    assert broken(LAWS[says])(read({**GOOD, path: text})) != []


def test_every_law_is_tried() -> None:
    """No checker and no law of words is without a house that breaks it."""
    assert {bad[0] for bad in BAD_WORDS} == LAWS.keys()
    assert {bad[0] for bad in BAD} == set(CHECKERS[: -len(LAWS)])


def test_no_table_speaks_of_a_room_that_is_not_drawn() -> None:
    """The tables name the same rooms, and no arrow points up or at itself."""
    order = list(ARROWS)
    assert ARROWS.keys() == THIRD_PARTY.keys()
    assert {place.partition(".")[0] for place in (*LAZY, *LEAN, *MAX_LINES)} <= ARROWS.keys()
    assert [
        (name, to)
        for name in order
        for to in ARROWS[name].split()
        if order.index(to) >= order.index(name) and name != "dispatch"
    ] == []
