"""A runner whose module takes long to import, in workers only; like one that imports torch."""

import os
import time

time.sleep(float(os.environ.get("SLOW_IMPORT", "0")))


def double(number: int) -> int:
    """Work that is over at once."""
    return 2 * number
