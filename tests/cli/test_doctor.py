"""`dispatch doctor`: a line for each thing, a cure where one is needed, and an exit code."""

from tests.cli.terminal import TARGETS, dispatch


def test_a_runner_that_is_well() -> None:
    """Every line says ok, and the exit code is 0."""
    said = dispatch("doctor", f"{TARGETS}:Grader", "-j", 1)
    assert said.code == 0, said.err
    *found, blank, last = said.out.splitlines()
    assert len(found) >= 10
    assert all(line.startswith("ok   ") for line in found)
    assert (blank, last) == ("", "workers can run this here")


def test_a_runner_that_cannot_start() -> None:
    """What is ill says NO with its reason and its cure; exit code 1."""
    said = dispatch("doctor", f"{TARGETS}:Broken", "-j", 1)
    assert said.code == 1
    assert "NO   a worker" in said.out
    assert "RuntimeError: no GPU here" in said.out
    assert "cure: " in said.out
    assert said.out.endswith("1 to mend before it can run\n")


def test_no_such_runner() -> None:
    """Nothing to examine: exit code 2."""
    said = dispatch("doctor", f"{TARGETS}:Nobody")
    assert (said.code, said.out) == (2, "")
    assert "has no Nobody" in said.err
