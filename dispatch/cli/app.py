"""The commands and their options: each reads its arguments, calls one function, and leaves with its exit code."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dispatch.cli import run as runs
from dispatch.cli.doctor import examine
from dispatch.cli.ending import told
from dispatch.cli.options import Asked

__all__ = ("app",)

app = typer.Typer(
    name="dispatch",
    help="Shards through runners: every shard gets one outcome, and no process is left behind.",
    epilog="Example: dispatch run grading:Grader --shards answers.jsonl --work-dir runs/a",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help fits a screen
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[str, typer.Argument(metavar="MODULE:NAME", help="A Runner, a function, or a centre.")]
Shards = Annotated[str | None, typer.Option(metavar="FILE", help=".jsonl, .csv, also .gz; - is stdin.")]
Shared = Annotated[str | None, typer.Option(metavar="FILE", help="The shared param, as JSON.")]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="A DispatchConfig, as TOML.")]
Engine = Annotated[
    str | None, typer.Option("--runner", metavar="TYPE", help="data_parallel, local, dummy, or registered.")
]
Jobs = Annotated[int | None, typer.Option("-j", metavar="N", help="Workers; usable CPUs.", min=1)]
Timeout = Annotated[float | None, typer.Option(metavar="S", help="Seconds of run time per attempt.")]
Retries = Annotated[int | None, typer.Option(metavar="N", help="More attempts for a failure.", min=0)]
Isolation = Annotated[
    Literal["worker", "fork"] | None, typer.Option(metavar="HOW", help="fork: each shard in a fresh fork.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Of shard.rng.")]
WorkDir = Annotated[str | None, typer.Option(metavar="DIR", help="Record here, and resume from here.")]
Out = Annotated[str | None, typer.Option(metavar="FILE", help="Outcomes as JSON lines, in input order.")]
IdField = Annotated[str | None, typer.Option("--id", metavar="FIELD", help="The field that is a shard's id.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out, and count them.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout: outcomes, events, report.")]


@app.command(epilog="Example: dispatch run grading:Grader --shards answers.jsonl -j 8 --out graded.jsonl")
def run(
    target: Target,
    *,
    shards: Shards = None,
    shared: Shared = None,
    config: Config = None,
    runner: Engine = None,
    jobs: Jobs = None,
    timeout: Timeout = None,
    retries: Retries = None,
    isolation: Isolation = None,
    work_dir: WorkDir = None,
    out: Out = None,
    id_field: IdField = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Run every shard. Ctrl-C drains, twice stops; with --work-dir the same command goes on."""
    asked = Asked(
        target=target,
        shards=shards,
        shared=shared,
        config=config,
        runner=runner,
        jobs=jobs,
        timeout=timeout,
        retries=retries,
        isolation=isolation,
        work_dir=work_dir,
        id_field=id_field,
        skip_bad=skip_bad,
    )
    with told():
        raise typer.Exit(runs.perform(asked, out=out, as_json=as_json))


@app.command(epilog="Example: dispatch plan grading:Grader --shards answers.jsonl")
def plan(
    target: Target,
    *,
    shards: Shards = None,
    shared: Shared = None,
    config: Config = None,
    jobs: Jobs = None,
    work_dir: WorkDir = None,
    id_field: IdField = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do: every shard is read and encoded, and nothing is started."""
    asked = Asked(
        target=target,
        shards=shards,
        shared=shared,
        config=config,
        jobs=jobs,
        work_dir=work_dir,
        id_field=id_field,
        skip_bad=skip_bad,
    )
    with told():
        raise typer.Exit(runs.plan(asked, as_json=as_json))


@app.command(epilog="Example: dispatch doctor grading:Grader -j 8")
def doctor(
    target: Target,
    *,
    shared: Shared = None,
    config: Config = None,
    jobs: Jobs = None,
    isolation: Isolation = None,
) -> None:
    """Can workers run this here? Looks at its declarations and at this machine, and starts one worker."""
    asked = Asked(target=target, shared=shared, config=config, jobs=jobs, isolation=isolation)
    with told():
        raise typer.Exit(examine(asked))
