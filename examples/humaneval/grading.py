"""How a candidate is graded: its program runs to the end, or the fault that stopped it is the verdict.

A failed assertion is a fault like any other, so that each kind of failure shows under its own cause. The
program has this machine's rights: forks keep it from hurting its neighbours, they are no sandbox.
"""

import time

import msgspec

from dispatch import DataParallelDispatchCenter, Runner, Shard
from examples.humaneval.candidates import Candidate, Problem, load_problems


class Verdict(msgspec.Struct, frozen=True):
    """The candidate passed every test of its problem, in so many seconds."""

    seconds: float


class GradeRunner(Runner):
    """Runs one candidate with the tests of its problem; knows the problems from the shared param."""

    version = "1"
    shared_param: dict[str, Problem]

    def do_run(self, shard: Shard[Candidate]) -> Verdict:
        """Raises whatever the candidate or its tests raise."""
        candidate = shard.payload
        problem = self.shared_param[candidate.task_id]
        begun = time.perf_counter()
        program = compile(program_text(problem, candidate), f"<{shard.id}>", "exec")
        exec(program, {"__name__": "candidate"})
        return Verdict(time.perf_counter() - begun)


class GradeCenter(DataParallelDispatchCenter):
    """Hands candidates to GradeRunners, and the problems to each worker once."""

    runner = GradeRunner

    def get_shared_param(self) -> list[Problem]:
        """All problems, as they come from the data set."""
        return load_problems()

    @staticmethod
    def restore_shared_param(param: list[Problem]) -> dict[str, Problem]:
        """The problems by their id, as runners look them up."""
        return {problem.task_id: problem for problem in param}


def program_text(problem: Problem, candidate: Candidate) -> str:
    """The prompt as the candidate completes it, the problem's tests, and the call that runs them."""
    return f"{problem.prompt}{candidate.completion}\n{problem.test}\ncheck({problem.entry_point})\n"
