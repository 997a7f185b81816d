"""What a checkup found, line by line as it is found; each ill with its cure."""

from __future__ import annotations

import anyio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatch.center.checkup import Finding, checkup
from dispatch.cli.console import console as new_console
from dispatch.cli.console import plain
from dispatch.cli.ending import ALL_DONE, FAILURES
from dispatch.cli.options import Asked

__all__ = ("examine",)

SIGNS = {"well": ("ok", "green"), "doubtful": ("?", "magenta"), "ill": ("NO", "bold red")}


def examine(asked: Asked) -> int:
    """Print the findings; the exit code is 1 if any would stop a run. Raises ConfigError for a wrong option."""
    return anyio.run(_examine, asked)


async def _examine(asked: Asked) -> int:
    console = new_console()
    ill = 0
    async for finding in checkup(asked.center(asked.configuration())):
        _show(finding, console)
        ill += finding.state == "ill"
    console.print()
    console.print(f"{ill} to mend before it can run" if ill else "workers can run this here")
    return FAILURES if ill else ALL_DONE


def _show(finding: Finding, console: Console) -> None:
    sign, style = SIGNS[finding.state]
    said = plain(finding.says)
    if finding.cure:
        said.append("\ncure: ", style="bold").append(plain(finding.cure))
    row = Table.grid(padding=(0, 1))
    row.add_column(width=4)
    row.add_column(width=15)
    row.add_column()
    row.add_row(Text(sign, style=style), plain(finding.what), said)
    console.print(row)
