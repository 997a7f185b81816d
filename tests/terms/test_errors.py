"""Every exception: where it stands in the tree, what it says, and that it can be passed on."""

import copy
import pickle
import re
import time

import pytest

from dispatch.terms import errors
from dispatch.terms.errors import (
    CenterClosed,
    CenterOpen,
    ConfigError,
    DispatchError,
    DuplicateShard,
    GiveUp,
    JournalError,
    OutOfMemory,
    QueueFull,
    RemoteError,
    RemoteTraceback,
    RetryLater,
    RunDrifted,
    RunnerError,
    ShardCancelled,
    ShardError,
    ShardTimeout,
    StartupFailed,
    Undeliverable,
    UnguardedMain,
    WorkDirOccupied,
    WorkerDied,
)

UNGUARDED = (
    "this script starts a dispatch centre while it is being imported, and every worker imports it; "
    "put the start under: if __name__ == '__main__':"
)
DRIFTED = (
    "the run recorded in runs/x cannot go on: Scorer.version was '1', now '2'; its outcomes may not fit. Use another "
    'work_dir, or resume="none" to start afresh beside them, or allow_drift=True to reuse them'
)
OCCUPIED = (
    f"runs/x is in use by process 412 on box, since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(0))}; "
    "wait for it, stop it, or use another work_dir"
)
ONE_OF_EACH = [
    (ConfigError("data_parallel", 0, "it must be at least 1"), "data_parallel is 0: it must be at least 1"),
    (
        RunnerError("Scorer", "it has no do_run", "define it"),
        "runner Scorer: it has no do_run; define it",
    ),
    (
        DuplicateShard("q17"),
        "two shards of this run have the id 'q17'; give each its own, or leave the id out",
    ),
    (
        CenterClosed("submit"),
        "submit needs an open centre; use 'async with center:' or 'await center.open()'",
    ),
    (CenterOpen(), "this centre is open, or is being opened; close it first, or use the doors that it has"),
    (QueueFull(10), "10 shards are pending already; await, or raise max_pending"),
    (UnguardedMain(), UNGUARDED),
    (RemoteTraceback("Traceback ..."), '\n"""\nTraceback ..."""'),
    (GiveUp("no use"), "no use"),
    (RetryLater(1.5), "again after 1.5 s"),
    (RetryLater(2, "too many requests"), "again after 2 s: too many requests"),
    *(
        (kind("q17", "it failed", fault={"cause": "x"}), "shard q17: it failed")
        for kind in (
            ShardError,
            RemoteError,
            ShardTimeout,
            WorkerDied,
            OutOfMemory,
            Undeliverable,
            StartupFailed,
            ShardCancelled,
        )
    ),
    (JournalError("runs/x/journal.db", "disk is full"), "journal runs/x/journal.db: disk is full"),
    (RunDrifted("runs/x", {"Scorer.version": ("'1'", "'2'")}), DRIFTED),
    (WorkDirOccupied("runs/x", pid=412, host="box", started_at=0.0), OCCUPIED),
    (StartupFailed("", "no worker could be made ready"), "no worker could be made ready"),
]
KINDS = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
each = pytest.mark.parametrize(("error", "says"), ONE_OF_EACH, ids=lambda value: type(value).__name__)


@each
def test_an_error_writes_its_own_sentence(error: Exception, says: str) -> None:
    """What is wrong, and where something can be done about it, how to mend it."""
    assert str(error) == says


@each
def test_an_error_can_be_copied_and_pickled(error: Exception, says: str) -> None:
    """Users pass errors through pools, caches and logs of their own: all that they know goes along."""
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == says
        assert vars(twin) == vars(error)


def test_there_is_one_of_each_above() -> None:
    """No error is left out, and all are public."""
    assert {type(error) for error, _says in ONE_OF_EACH} | {DispatchError} == KINDS
    assert {kind.__name__ for kind in KINDS} == set(errors.__all__)


def test_the_tree_stands_as_it_is_drawn() -> None:
    """The picture in the docstring is the truth: each error, below its parent, with the built-in that it also is."""
    drawn: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│ ]*)(?:[├└]── )?(\w+)(?: \((\w+)\))?(?:  |$)", line)
        if found and found[2] in errors.__all__:
            depth = 0 if "── " not in line else len(found[1]) // 4 + 1
            path[depth:] = [found[2]]
            drawn[found[2]] = (path[depth - 1] if depth else "Exception", found[3] or "")
    assert set(drawn) == {kind.__name__ for kind in KINDS} - {"GiveUp", "RetryLater", "RemoteTraceback"}
    for name, (parent, also) in drawn.items():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == [parent, *filter(None, [also])]


def test_orders_and_carriers_are_no_errors_of_ours() -> None:
    """`except DispatchError` catches no GiveUp and no RetryLater: they are what a runner says."""
    for kind in (GiveUp, RetryLater, RemoteTraceback):
        assert not issubclass(kind, DispatchError)


@pytest.mark.parametrize("after", [0, 1, 2.5, True])
def test_asking_for_later_takes_a_number(after: float) -> None:
    """Whatever number it is, it travels as a float."""
    assert type(RetryLater(after).after) is float
    assert RetryLater(after).after == after


@pytest.mark.parametrize("after", ["soon", None, [1]])
def test_asking_for_later_without_a_number_fails_where_it_is_raised(after: object) -> None:
    """RetryLater("message") is an easy mistake: it fails in the runner's own line."""
    with pytest.raises((TypeError, ValueError)):
        RetryLater(after)  # type: ignore[arg-type]  # that is the mistake


def test_a_shard_error_carries_its_evidence() -> None:
    """Who catches it has the shard's id, the message and the fault."""
    error = WorkerDied("q17", "died of SIGKILL", fault="evidence")
    assert (error.shard, error.message, error.fault) == ("q17", "died of SIGKILL", "evidence")
