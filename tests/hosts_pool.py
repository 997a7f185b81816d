"""What a host's own `to_process` calls leave in a test: anyio kills its idle processes with the task, and awaits none.

Their transports are then collected in some later test, which fails for "subprocess is still running".
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from anyio import to_process


def closes_the_hosts_pool(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """When the test is over, every process of anyio's pool is dead, and closed."""

    @wraps(test)
    async def closed(*args: Any, **kwargs: Any) -> None:
        try:
            await test(*args, **kwargs)
        finally:
            workers = to_process._process_pool_workers.get()
            for process in workers:
                if process.returncode is None:
                    process.kill()
                await process.aclose()
            workers.clear()
            to_process._process_pool_idle_workers.get().clear()

    return closed
