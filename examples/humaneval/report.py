"""What came of it: outcomes to an ending, endings to a table, and the check of each against its kind."""

import os
import re
import signal
from collections import Counter
from collections.abc import Sequence

from dispatch import Done, Failed, Fault, Outcome
from examples.humaneval.candidates import DAEMON, Candidate, Kind
from examples.humaneval.grading import Verdict


class Graded:
    """What became of each candidate, by kind."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._endings = {kind.name: Counter[str]() for kind in kinds}
        self._faults: dict[str, tuple[str, Fault]] = {}
        self.surprises: list[str] = []
        """One line for each candidate that ended otherwise than its kind must."""
        self.seen: set[str] = set()

    def add(self, outcome: Outcome[Verdict]) -> None:
        """Count one candidate's outcome; keep the first fault of each kind as an exhibit."""
        candidate: Candidate = outcome.payload
        self.note(outcome.shard_id, candidate.kind, ending(outcome))
        if isinstance(outcome, Failed):
            self._faults.setdefault(candidate.kind, (outcome.shard_id, outcome.fault))

    def note(self, shard_id: str, kind: str, end: str) -> None:
        """Count one candidate's ending."""
        if shard_id in self.seen:
            self.surprises.append(f"{shard_id}: a second outcome")
        self.seen.add(shard_id)
        self._endings[kind][end] += 1
        if end != self._kinds[kind].ending:
            self.surprises.append(f"{shard_id}: {end}, expected {self._kinds[kind].ending}")

    def table(self) -> str:
        """One line a kind: number, passed, failed, and the failures by cause."""
        lines = [f"{'kind of candidate':<20}{'number':>8}{'passed':>8}{'failed':>8}  by cause"]
        for name, counts in self._endings.items():
            number, passed = counts.total(), counts["passed"]
            causes = ", ".join(f"{end} ({n})" for end, n in counts.most_common() if end != "passed")
            lines.append(f"{name:<20}{number:>8}{passed:>8}{number - passed:>8}  {causes}".rstrip())
        return "\n".join(lines)

    def pass_at_1(self, kind: str) -> float:
        """The share of this kind's candidates that passed; each is its problem's only sample."""
        counts = self._endings[kind]
        return counts["passed"] / max(counts.total(), 1)

    def exhibit(self, kind: str) -> tuple[str, Fault] | None:
        """The first candidate of this kind that failed: its id and its fault."""
        return self._faults.get(kind)

    def daemon_pid(self) -> int | None:
        """The pid that the daemon's candidate printed before it left; None if nobody saw one."""
        shown = self.exhibit(DAEMON.name)
        printed = re.search(r"daemon (\d+)", shown[1].output) if shown else None
        return int(printed[1]) if printed else None


def ending(outcome: Outcome[Verdict]) -> str:
    """How an attempt ended, in the words of KINDS: `passed`, `raised ValueError`, `crashed, SIGKILL`."""
    if isinstance(outcome, Done):
        return "passed"
    if not isinstance(outcome, Failed):
        return "cancelled"
    fault = outcome.fault
    if fault.cause == "raised":
        return f"raised {fault.type}"
    if fault.cause == "crashed":
        return f"crashed, {manner(fault)}"
    return fault.cause


def manner(fault: Fault) -> str:
    """The signal by its name, or the exit code, of a process that died."""
    if fault.signal is not None:
        return signal.Signals(fault.signal).name
    return f"exit code {fault.exit_code}"


def is_alive(pid: int) -> bool:
    """Whether a process of this id still exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
