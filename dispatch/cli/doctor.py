"""What a checkup found, line by line as it is found; each ill with its cure."""

from __future__ import annotations

import anyio
from rich.console import Console
from rich.text import Text

from dispatch.center.checkup import Finding, checkup
from dispatch.cli.ending import ALL_DONE, FAILURES
from dispatch.cli.options import Asked

__all__ = ("examine",)

SIGNS = {"well": ("ok", "green"), "doubtful": ("?", "magenta"), "ill": ("NO", "bold red")}


def examine(asked: Asked) -> int:
    """Print the findings; the exit code is 1 if any would stop a run. Raises ConfigError for a wrong option."""
    return anyio.run(_examine, asked)


async def _examine(asked: Asked) -> int:
    console = Console(highlight=False)
    ill = 0
    async for finding in checkup(asked.center(asked.configuration())):
        _show(finding, console)
        ill += finding.state == "ill"
    console.print()
    console.print(f"{ill} to mend before it can run" if ill else "workers can run this here")
    return FAILURES if ill else ALL_DONE


def _show(finding: Finding, console: Console) -> None:
    sign, style = SIGNS[finding.state]
    first, *rest = finding.says.splitlines() or [""]
    console.print(Text.assemble((f"{sign:<5}", style), f"{finding.what:<16}", first))
    for line in rest:
        console.print(Text(f"       {line}", style="dim"))
    if finding.cure:
        console.print(Text.assemble(" " * 5, ("cure: ", "bold"), finding.cure))
