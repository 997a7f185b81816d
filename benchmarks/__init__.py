"""What dispatch costs, beside its peers and beside the bare machine: `python -m benchmarks --help`."""
