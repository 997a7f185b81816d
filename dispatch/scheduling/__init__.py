"""Which shard next, and when again. Plain functions on plain data: nothing awaits, time is an argument."""
