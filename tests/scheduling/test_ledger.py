"""Where each shard stands, and who pays when an attempt fails: numbers in, decisions out.

`test_ledger_machine.py` drives the same functions with random events.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.scheduling.ledger import TRANSITIONS, Again, Ledger, Settle, blame, judge
from dispatch.terms.config import Policy, Retry
from dispatch.terms.outcome import Cause, Fault
from dispatch.terms.shard import Batch, Entry, Origin, WorkerInfo

WORKER = WorkerInfo("R", 412, 1000.0)


def entry(index: int = 0, *, door: int = 1) -> Entry:
    """Return a shard that became ready at the monotonic time 5."""
    return Entry(index, b"\xc0", Origin(door, bytes), ready_at=5.0)


def fail(
    one: Entry,
    cause: Cause,
    policy: Policy,
    *,
    final: bool = False,
    after: float | None = None,
    roll: float = 0.0,
) -> Settle | Again:
    """Judge an attempt that started at 7 and ran two seconds."""
    fault = Fault(cause=cause, final=final, after=after)
    return judge(one, fault, policy, worker=WORKER, started=7.0, seconds=2.0, roll=roll)


def tried(cause: Cause, policy: Policy, *, most: int = 20) -> int:
    """Return after how many attempts that all end in `cause` a shard is settled."""
    one = entry()
    for number in range(1, most + 1):
        if isinstance(fail(one, cause, policy), Settle):
            return number
    return most + 1


# ---------------------------------------------------------------------------------------- places


def test_attempts_are_numbered_from_one_and_never_again() -> None:
    """Every attempt gets a seq of its own, also where shards were taken back."""
    ledger = Ledger()
    assert ledger.assign(0, [entry(0), entry(1)]) == 1
    assert ledger.assign(1, [entry(2)]) == 3
    ledger.take_all(0)
    assert ledger.next_seq == 4
    assert ledger.assign(0, [entry(0), entry(1)]) == 4


def test_a_worker_holds_its_shards_in_the_order_they_were_given() -> None:
    """A hand maps the seqs of a worker, in order, to its shards."""
    ledger, shards = Ledger(), [entry(n) for n in range(3)]
    ledger.assign(7, shards[:2])
    ledger.assign(7, shards[2:])
    assert list(ledger.hand(7).entries().items()) == [(1, shards[0]), (2, shards[1]), (3, shards[2])]
    assert ledger.find(shards[1]) == (7, 2)
    assert ledger.find(entry(1)) is None


def test_a_frame_of_attempts_is_settled_once() -> None:
    """Who is told done is held no more; the same seq, or one of another worker, finds nothing."""
    ledger, shards = Ledger(), [entry(n) for n in range(3)]
    ledger.assign(0, shards)
    assert ledger.done(0, [1, 3, 3]) == [shards[0], shards[2], None]
    assert ledger.done(1, [2]) == [None]
    assert ledger.done(0, [1, 99]) == [None, None]
    assert list(ledger.hand(0).entries()) == [2]


def test_one_attempt_is_taken_off_its_worker_once() -> None:
    """A fault that comes late, or from a worker that does not hold the attempt, finds nothing."""
    ledger, one = Ledger(), entry()
    ledger.assign(0, [one])
    assert ledger.take(1, 1) is None
    assert ledger.take(0, 1) is one
    assert ledger.take(0, 1) is None


def test_a_fence_takes_what_was_given_before_it_and_not_started() -> None:
    """What runs or ran stays, and so does what was given after the fence was sent."""
    ledger, shards = Ledger(), [entry(n) for n in range(5)]
    ledger.assign(0, shards[:4])
    fence = ledger.next_seq
    ledger.assign(0, shards[4:])
    assert ledger.take_unstarted(0, 2, fence) == [shards[2], shards[3]]
    assert list(ledger.hand(0).entries()) == [1, 2, 5]
    assert ledger.take_unstarted(0, 2, fence) == []
    assert ledger.take_unstarted(9, 0, 99) == []


def test_a_death_takes_everything_off_a_worker() -> None:
    """A worker that died holds nothing, and is known no more until it is given something."""
    ledger, shards = Ledger(), [entry(0), entry(1)]
    ledger.assign(0, shards)
    assert ledger.take_all(0) == {1: shards[0], 2: shards[1]}
    assert ledger.take_all(0) == {}
    assert (ledger.in_flight, ledger.workers) == (0, [])


def batch(start: int, number: int, *, door: int = 1) -> Batch:
    """Return plain shards that became ready at the monotonic time 5."""
    return Batch(start, [b"%d" % n for n in range(start, start + number)], Origin(door, bytes), 5.0)


def test_a_batch_stays_whole_while_its_shards_end_in_order() -> None:
    """The attempts that ended are told by batch and place; what is out of order, or more than it holds, is not."""
    ledger = Ledger()
    one, two = batch(10, 5), batch(15, 2)
    assert (ledger.assign(0, one), ledger.assign(0, two)) == (1, 6)
    hand = ledger.hand(0)
    assert ledger.ended(0, 2, 1) is ledger.ended(0, 1, 6) is ledger.ended(1, 1, 1) is None
    assert ledger.ended(0, 1, 2) == (one, 0)
    assert (len(hand), hand.oldest) == (5, 3)
    assert ledger.ended(0, 3, 3) == (one, 2)
    assert ledger.ended(0, 3, 3) is None
    assert ledger.ended(0, 6, 2) == (two, 0)
    assert (len(hand), bool(hand), hand.oldest) == (0, False, None)


def test_a_shard_of_a_batch_is_an_entry_as_soon_as_it_is_asked_for() -> None:
    """With its own index, payload and time; the others of the batch go on by themselves."""
    ledger = Ledger()
    ledger.assign(0, [entry(9, door=2)])
    ledger.assign(0, batch(10, 4))
    assert (ledger.hand(0).door, ledger.hand(0).oldest) == (1, 1)
    assert ledger.ended(0, 2, 1) is not None
    failed = ledger.take(0, 4)
    assert failed is not None
    assert (failed.index, failed.payload, failed.ready_at, failed.history) == (12, b"12", 5.0, ())
    assert ledger.ended(0, 3, 1) is None
    assert [one and one.index for one in ledger.done(0, [1, 2, 3, 4, 5])] == [9, None, 11, None, 13]


@given(st.lists(st.tuples(st.sampled_from("gbedtfa"), st.integers(0, 6), st.integers(1, 6)), max_size=40))
def test_whether_shards_are_held_as_a_batch_makes_no_difference(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens to it, a ledger that is given batches holds what one that is given entries holds."""
    whole, apart = Ledger(), Ledger()
    given = 0
    for step, at, number in steps:
        seq = max(0, whole.next_seq - 7) + at
        match step:
            case "g":
                for ledger in (whole, apart):
                    ledger.assign(0, [entry(given + n) for n in range(number)])
                given += number
            case "b":
                whole.assign(0, batch(given, number))
                apart.assign(0, batch(given, number).entries())
                given += number
            case "e":
                first = whole.hand(0).oldest or 0
                found = whole.ended(0, first, number)
                if found is not None:
                    ended, offset = found
                    settled = apart.done(0, range(first, first + number))
                    assert [one and one.index for one in settled] == [
                        ended.start + offset + n for n in range(number)
                    ]
            case "d":
                told = [[one and one.index for one in ledger.done(0, [seq])] for ledger in (whole, apart)]
                assert told[0] == told[1]
            case "t":
                taken = [ledger.take(0, seq) for ledger in (whole, apart)]
                assert (taken[0] and taken[0].index) == (taken[1] and taken[1].index)
            case "f":
                back = [ledger.take_unstarted(0, seq, seq + number) for ledger in (whole, apart)]
                assert [one.index for one in back[0]] == [one.index for one in back[1]]
            case _:
                held = [
                    {seq: one.index for seq, one in ledger.hand(0).entries().items()}
                    for ledger in (whole, apart)
                ]
                assert list(held[0].items()) == list(held[1].items())
        assert (len(whole.hand(0)), whole.hand(0).oldest) == (len(apart.hand(0)), apart.hand(0).oldest)
        assert whole.in_flight == apart.in_flight


def test_the_attempts_of_a_door_are_found_by_worker() -> None:
    """Stopping a door stops its attempts, and no other door's."""
    ledger = Ledger()
    ledger.assign(0, [entry(0, door=1), entry(0, door=2)])
    ledger.assign(1, [entry(1, door=2)])
    ledger.assign(2, [entry(1, door=1), entry(2, door=1)])
    assert ledger.holders(1) == {0: [1], 2: [4, 5]}
    assert ledger.holders(3) == {}


# --------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize("cause", ["raised", "timed_out", "undeliverable", "startup", "lost"])
def test_without_a_retry_policy_one_attempt_is_all(cause: Cause) -> None:
    """The default is a single attempt for whatever the shard itself did."""
    assert tried(cause, Policy()) == 1


@pytest.mark.parametrize("cause", ["crashed", "out_of_memory"])
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_deaths_have_a_budget_of_their_own(cause: Cause, budget: int) -> None:
    """`crash_budget` attempts may end with the worker's death, however many retries there are."""
    assert tried(cause, Policy(crash_budget=budget)) == budget
    assert (
        tried(cause, Policy(crash_budget=budget, retry=Retry(attempts=9, on=("raised", "crashed")))) == budget
    )


def test_retries_are_for_the_causes_that_the_policy_names() -> None:
    """A cause in `on` has `attempts`, another one has none."""
    policy = Policy(retry=Retry(attempts=3, on=("timed_out",)))
    assert tried("timed_out", policy) == 3
    assert tried("raised", policy) == 1


def test_deaths_and_faults_do_not_spend_each_others_budget() -> None:
    """Two deaths of three and two errors of three leave one of each."""
    one, policy = entry(), Policy(crash_budget=3, retry=Retry(attempts=3))
    for cause in ("crashed", "raised", "out_of_memory", "timed_out"):
        assert isinstance(fail(one, cause, policy), Again)
    assert (one.deaths, one.charged) == (2, 2)
    assert isinstance(fail(one, "raised", policy), Settle)


def test_giving_up_spends_everything() -> None:
    """A final fault settles the shard, whatever is left."""
    assert isinstance(fail(entry(), "raised", Policy(retry=Retry(attempts=9)), final=True), Settle)


def test_asking_for_later_gets_later_within_the_budget() -> None:
    """RetryLater waits as long as it says, longer than `max_wait` too, and its last attempt is the budget's last."""
    one, policy = entry(), Policy(retry=Retry(attempts=3, on=(), wait=1.0, max_wait=2.0))
    for _ in range(2):
        decision = fail(one, "raised", policy, after=30.0)
        assert isinstance(decision, Again)
        assert decision.wait == 30.0
    assert isinstance(fail(one, "raised", policy, after=30.0), Settle)


@pytest.mark.parametrize("after", [0.0, -5.0])
def test_nobody_waits_into_the_past(after: float) -> None:
    """A RetryLater with nothing to wait for is due at once."""
    decision = fail(entry(), "raised", Policy(retry=Retry(attempts=2)), after=after)
    assert isinstance(decision, Again)
    assert decision.wait == 0.0


def test_waits_grow_by_a_factor_up_to_the_longest() -> None:
    """The n-th wait is `wait * factor ** (n - 1)`, and `max_wait` at most."""
    one, policy = entry(), Policy(retry=Retry(attempts=6, wait=1.0, factor=3.0, max_wait=20.0))
    waits = [fail(one, "raised", policy).wait for _ in range(5)]  # type: ignore[union-attr]  # Again, five times
    assert waits == [1.0, 3.0, 9.0, 20.0, 20.0]


def test_jitter_is_added_by_the_roll() -> None:
    """Up to `jitter` seconds on top, also of the longest wait."""
    policy = Policy(retry=Retry(attempts=2, wait=9.0, max_wait=4.0, jitter=2.0))
    waits = [fail(entry(), "raised", policy, roll=roll).wait for roll in (0.0, 0.5)]  # type: ignore[union-attr]
    assert waits == [4.0, 5.0]


@pytest.mark.parametrize(("wait", "longest"), [(0.0, 0.0), (0.001, 60.0)])
def test_a_shard_may_be_tried_thousands_of_times(wait: float, longest: float) -> None:
    """An endless budget never overflows: a factor to the two thousandth power is the longest wait."""
    one, policy = entry(), Policy(retry=Retry(attempts=10**6, wait=wait))
    one.charged = 2000
    decision = fail(one, "raised", policy)
    assert isinstance(decision, Again)
    assert decision.wait == longest


def test_a_dead_workers_shard_goes_elsewhere_at_once() -> None:
    """The retry's waits are for what the shard did; after a death there is nothing to wait for."""
    decision = fail(entry(), "crashed", Policy(retry=Retry(attempts=9, wait=30.0)))
    assert isinstance(decision, Again)
    assert decision.wait == 0.0


@given(
    causes=st.lists(
        st.sampled_from(["raised", "timed_out", "crashed", "out_of_memory", "undeliverable"]), max_size=30
    ),
    attempts=st.integers(1, 4),
    budget=st.integers(1, 4),
)
def test_no_budget_is_ever_exceeded(causes: list[Cause], attempts: int, budget: int) -> None:
    """Whatever mix of faults, a shard is settled exactly when the budget of the last one's cause is spent."""
    one, policy = entry(), Policy(crash_budget=budget, retry=Retry(attempts=attempts))
    for number, cause in enumerate(causes, 1):
        decision = fail(one, cause, policy)
        assert one.deaths <= budget
        assert one.charged <= attempts
        assert len(one.history) == number
        if isinstance(decision, Settle):
            assert one.deaths == budget or one.charged == attempts or cause == "undeliverable"
            return
        assert one.deaths < budget
        assert one.charged < attempts


def test_an_attempt_is_written_down_with_its_times() -> None:
    """History says who ran it, when on the wall clock, how long it ran, how long it had waited, and why it failed."""
    one = entry()
    decision = fail(one, "raised", Policy())
    (attempt,) = one.history
    assert (attempt.runner, attempt.pid) == ("R", 412)
    assert (attempt.started_at, attempt.seconds, attempt.queued) == (1007.0, 2.0, 2.0)
    assert attempt.fault is decision.fault
    assert one.special  # its next frame says which attempt it is


def test_a_clock_that_disagrees_makes_no_negative_wait() -> None:
    """A shard that seems to have started before it was ready has queued for nothing."""
    one = entry()
    one.ready_at = 8.0
    fail(one, "raised", Policy())
    assert one.history[0].queued == 0.0


# ----------------------------------------------------------------------------------------- blame


def test_one_at_a_time_the_slot_names_the_culprit() -> None:
    """The shard that ran is charged, those that waited behind it are not."""
    held = {n: entry(n) for n in (4, 5, 6)}
    found = blame(held, running=5, several=False, exact=False)
    assert (found.charged, found.suspects, found.innocent) == (held[5], [], [held[4], held[6]])


@pytest.mark.parametrize("running", [0, 99])
def test_a_worker_that_ran_nothing_blames_nobody(running: int) -> None:
    """A death between shards, or in one that was settled already, charges none of those that wait."""
    held = {n: entry(n) for n in (4, 5)}
    found = blame(held, running=running, several=False, exact=False)
    assert (found.charged, found.suspects, found.innocent) == (None, [], [held[4], held[5]])


def test_several_at_once_make_suspects() -> None:
    """When a worker dies with several shards, none is charged and each runs alone, whatever the slot says."""
    held = {n: entry(n) for n in (4, 5)}
    found = blame(held, running=5, several=True, exact=False)
    assert (found.charged, found.suspects, found.innocent) == (None, [held[4], held[5]], [])


@pytest.mark.parametrize("running", [0, 4])
def test_a_sole_candidate_is_charged_also_while_it_awaits(running: int) -> None:
    """One shard in an async worker answers for its death, though the slot says that nothing held the loop."""
    held = {4: entry(4)}
    found = blame(held, running=running, several=True, exact=False)
    assert (found.charged, found.suspects, found.innocent) == (held[4], [], [])


def test_a_deadline_names_its_shard_among_several() -> None:
    """Exact evidence charges one of many and suspects nobody; evidence against nobody charges nobody."""
    held = {n: entry(n) for n in (4, 5)}
    found = blame(held, running=5, several=True, exact=True)
    assert (found.charged, found.suspects, found.innocent) == (held[5], [], [held[4]])
    assert blame(held, running=0, several=True, exact=True).charged is None


def test_a_worker_that_held_nothing_blames_nobody() -> None:
    """An idle worker's death costs no shard anything."""
    for several in (False, True):
        found = blame({}, running=0, several=several, exact=False)
        assert (found.charged, found.suspects, found.innocent) == (None, [], [])


# ------------------------------------------------------------------------------------- the table


def test_nothing_leaves_settled() -> None:
    """An outcome is the last thing that happens to a shard, and every other place has a way to it."""
    assert {place for place, _event in TRANSITIONS} == {"WAITING", "ASSIGNED"}
    assert all("SETTLED" in TRANSITIONS[place, "cancel"] for place in ("WAITING", "ASSIGNED"))
