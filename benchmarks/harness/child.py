"""One contender in a process of its own: `python -m benchmarks.harness.child ROW ENTRY`, a sample as JSON on stdout.

Pools run this file again in each of their workers, so nothing is imported at the top.
"""

if __name__ == "__main__":
    import sys

    from benchmarks.harness.rounds import run_child

    print("\n" + run_child(sys.argv[1], sys.argv[2]), flush=True)
