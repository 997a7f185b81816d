"""Grade candidates for HumanEval; exit 1 if any of them ended otherwise than its kind must.

``python -m examples.humaneval [--runner data_parallel|local|dummy] [--isolation fork|worker] [-j N] [--limit N]
[--every N]``
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from dispatch import DispatchConfig, Policy, Report, RunnerType, Shard
from examples.humaneval.candidates import (
    DAEMON,
    FORGES,
    HANGS,
    KINDS,
    Candidate,
    Kind,
    load_problems,
    make_candidates,
)
from examples.humaneval.grading import GradeCenter, Verdict
from examples.humaneval.live import live
from examples.humaneval.report import Graded, is_alive, manner

TIMEOUT = 1.0  # s; the slowest canonical solution takes 0.2 s on an idle machine
SHOWN = 9  # shards of a plan


async def main(args: argparse.Namespace) -> int:
    """The exit code: 0 if all ended as they must."""
    kinds = KINDS
    if args.runner == RunnerType.LOCAL:
        kinds = tuple(kind for kind in KINDS if not kind.costs_a_worker)
    elif args.isolation == "worker":
        kinds = tuple(kind for kind in KINDS if not kind.needs_fork)
    candidates = list(make_candidates(load_problems(args.limit), kinds, every=args.every))
    center = GradeCenter.init(config_of(args), shards=[shard_of(candidate) for candidate in candidates])
    if args.runner == RunnerType.DUMMY:
        return show_plan(await center.run())

    introduce(args, candidates, kinds)
    graded = Graded(kinds)
    begun = time.perf_counter()
    with live(Counter(candidate.kind for candidate in candidates)) as advance:
        async with center.stream() as outcomes:
            async for outcome in outcomes:
                graded.add(outcome)
                advance(outcome.payload.kind)
    print(f"\n{len(candidates)} candidates graded in {time.perf_counter() - begun:.1f} s\n")
    return conclude(graded, expected=len(candidates))


def config_of(args: argparse.Namespace) -> DispatchConfig:
    """In one process nothing can be stopped, so only the engine of processes is given a deadline."""
    in_processes = args.runner == RunnerType.DATA_PARALLEL
    policy = Policy(timeout=TIMEOUT, crash_budget=1, isolation=args.isolation) if in_processes else Policy()
    return DispatchConfig(runner_type=args.runner, data_parallel=args.j, policy=policy)


def shard_of(candidate: Candidate) -> Shard[Candidate]:
    """A candidate under an id that a person can read: `HumanEval/7: raises`."""
    return Shard(candidate, id=f"{candidate.task_id}: {candidate.kind}")


def introduce(args: argparse.Namespace, candidates: Sequence[Candidate], kinds: Sequence[Kind]) -> None:
    """Say what is graded, and what is not."""
    problems = len({candidate.task_id for candidate in candidates})
    print(f"{len(candidates)} candidates for {problems} problems of HumanEval, runner {args.runner}")
    left_out = ", ".join(kind.name for kind in KINDS if kind not in kinds)
    if args.runner == RunnerType.LOCAL:
        print(f"left out, because they hang, kill or attack the process they run in: {left_out}")
        return
    print(
        f"each candidate in a {'fork of its own' if args.isolation == 'fork' else 'worker that others use after it'}"
    )
    if left_out:
        print(f"left out, because only a fork does not hold the worker's connection: {left_out}")
    print(
        f"'{HANGS.name}': one problem in {args.every}, {TIMEOUT} s each; '{DAEMON.name}', '{FORGES.name}': one"
    )


def show_plan(report: Report[Verdict]) -> int:
    """Print what a run would do; 1 if any candidate could not be delivered."""
    plan = report.plan
    if plan is None:
        return 1
    print(f"would start   {', '.join(plan.runners)}")
    print(f"shared param  {plan.shared_param_bytes:,} bytes")
    print(f"shards        {len(plan.shards)}, {sum(shard.size for shard in plan.shards):,} bytes")
    for shard in plan.shards[:SHOWN]:
        print(f"  {shard.id:<34}{shard.size:>6}  {shard.digest}")
    print(f"  and {max(len(plan.shards) - SHOWN, 0)} more")
    print(f"undeliverable {len(plan.problems)}")
    for shard in plan.problems:
        print(f"  {shard.id}: {shard.problem}")
    return 1 if plan.problems else 0


def conclude(graded: Graded, *, expected: int) -> int:
    """Show the table and the evidence; 1 if anything is not as it must be."""
    print(graded.table())
    if shown := graded.exhibit(HANGS.name):
        shard_id, fault = shown
        print(f"\nwhere '{shard_id}' was when its time was up:\n{fault.stack.strip()}")
    if shown := graded.exhibit("kills its process"):
        shard_id, fault = shown
        print(f"\n'{shard_id}' ended with {manner(fault)}: {fault.message}")
    wrong = list(graded.surprises)
    if len(graded.seen) != expected:
        wrong.append(f"{len(graded.seen)} outcomes for {expected} candidates")
    if graded.exhibit(DAEMON.name):
        wrong.extend(check_daemon(graded.daemon_pid()))
    print(f"\npass@1 of the canonical set: {graded.pass_at_1('canonical'):.3f}")
    print("\n".join(["NOT as it must be:", *wrong]) if wrong else "every candidate ended as its kind must")
    return 1 if wrong else 0


def check_daemon(pid: int | None) -> Iterator[str]:
    """What is wrong with the daemon, now that the centre has closed."""
    if pid is None:
        yield "nobody saw the daemon's pid"
        return
    print(f"\nthe daemon (pid {pid}) is {'still alive' if is_alive(pid) else 'gone'}")
    if is_alive(pid):
        yield f"process {pid} outlived the candidate that started it"


def positive(text: str) -> int:
    """A number from 1; ValueError for anything else, which argparse turns into a usage message."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.humaneval", description=__doc__)
    parser.add_argument("--runner", choices=["data_parallel", "local", "dummy"], default="data_parallel")
    parser.add_argument(
        "--isolation",
        choices=["fork", "worker"],
        default="fork",
        help="a fork of a warm worker for each candidate",
    )
    parser.add_argument("-j", type=positive, metavar="N", help="workers (default: usable CPUs)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N problems")
    parser.add_argument(
        "--every", type=positive, metavar="N", default=4, help="hang for each Nth problem only"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
