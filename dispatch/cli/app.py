"""The commands and their options: each reads its arguments, calls one function, and leaves with its exit code."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dispatch.cli import run as runs
from dispatch.cli.doctor import examine
from dispatch.cli.ending import told
from dispatch.cli.export import Format
from dispatch.cli.export import export as export_outcomes
from dispatch.cli.options import Asked
from dispatch.cli.show import show as show_shards
from dispatch.cli.status import status as tell_status
from dispatch.cli.stop import stop as stop_run

__all__ = ("app",)

app = typer.Typer(
    name="dispatch",
    help="Shards through runners: every shard gets one outcome, and no process is left behind.",
    epilog="Example: dispatch run grading:Grader --shards in.jsonl --work-dir runs/a",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help fits a screen
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[str, typer.Argument(metavar="MODULE:NAME", hidden=True)]
Shards = Annotated[str | None, typer.Option(metavar="FILE", help=".jsonl, .csv, also .gz; - is stdin.")]
Shared = Annotated[str | None, typer.Option(metavar="FILE", help="The shared param, as JSON.")]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="A DispatchConfig, as TOML.")]
Engine = Annotated[
    str | None, typer.Option("--runner", metavar="TYPE", help="data_parallel, local, dummy, or registered.")
]
Jobs = Annotated[
    int | None, typer.Option("-j", metavar="N", help="Workers; by default the usable CPUs.", min=1)
]
Timeout = Annotated[float | None, typer.Option(metavar="S", help="Seconds of run time per attempt.")]
Retries = Annotated[int | None, typer.Option(metavar="N", help="More attempts for a failure.", min=0)]
Isolation = Annotated[
    Literal["worker", "fork"] | None, typer.Option(metavar="HOW", help="fork: each shard in a fresh fork.")
]
WorkDir = Annotated[str | None, typer.Option(metavar="DIR", help="Record here, and resume from here.")]
Resume = Annotated[
    Literal["done", "all", "none"] | None,
    typer.Option(metavar="WHAT", help="Reuse what is done, all, or none."),
]
AllowDrift = Annotated[bool, typer.Option("--allow-drift", help="Resume although runner or params changed.")]
Out = Annotated[str | None, typer.Option(metavar="FILE", help="Outcomes as JSON lines, in input order.")]
IdField = Annotated[str | None, typer.Option("--id", metavar="FIELD", help="The field that is a shard's id.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out, and count them.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout: outcomes, events, report.")]

Recorded = Annotated[str, typer.Argument(metavar="WORK_DIR", hidden=True)]


@app.command(epilog="Example: dispatch run grading:Grader --shards in.jsonl --work-dir runs/a")
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
    resume: Resume = None,
    allow_drift: AllowDrift = False,
    out: Out = None,
    id_field: IdField = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Run every shard. Ctrl-C drains, twice stops; the same command resumes."""
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
        resume=resume,
        allow_drift=allow_drift,
        id_field=id_field,
        skip_bad=skip_bad,
    )
    with told():
        raise typer.Exit(runs.perform(asked, out=out, as_json=as_json))


@app.command(
    short_help="Say what a run would do, and start nothing.",
    epilog="Example: dispatch plan grading:Grader --shards in.jsonl",
)
def plan(
    target: Target,
    *,
    shards: Shards = None,
    shared: Shared = None,
    config: Config = None,
    jobs: Jobs = None,
    work_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Leave plan.json here.")] = None,
    id_field: IdField = None,
    skip_bad: SkipBad = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole plan, as JSON.")] = False,
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


@app.command(short_help="Say how far a run is.", epilog="Example: dispatch status runs/a --watch")
def status(
    work_dir: Annotated[
        str | None, typer.Argument(metavar="[WORK_DIR]", help="Default: the newest here or in ./runs.")
    ] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one line a look.")] = False,
) -> None:
    """How far a run is: while it goes on in another terminal, or after it ended or was killed."""
    with told():
        raise typer.Exit(tell_status(work_dir, watch=watch, as_json=as_json))


@app.command(short_help="Drain a run, or stop it.", epilog="Example: dispatch stop runs/a")
def stop(
    work_dir: Recorded,
    *,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for what runs.")] = False,
) -> None:
    """Stop a run: nothing new starts, and what runs has its grace. Waits until it has ended."""
    with told():
        raise typer.Exit(stop_run(work_dir, now=now))


@app.command(
    short_help="Show what became of shards.", epilog="Example: dispatch show runs/a --cause timed_out"
)
def show(
    work_dir: Recorded,
    shard: Annotated[str | None, typer.Argument(metavar="[SHARD]", help="Its id, or its position.")] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All failures, with their evidence.")] = False,
    cause: Annotated[str | None, typer.Option(metavar="CAUSE", help="Failures of this cause.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="So many failures; 0: all.", min=0)] = 20,
) -> None:
    """What became of shards: attempts, traceback, stack, output. Without SHARD an overview."""
    with told():
        raise typer.Exit(show_shards(work_dir, shard, failed=failed, cause=cause, limit=limit))


@app.command(epilog="Example: dispatch export runs/a --format csv --out outcomes.csv")
def export(
    work_dir: Recorded,
    *,
    format: Annotated[
        Format, typer.Option(help="jsonl, csv, or parquet (needs pyarrow).", metavar="FORMAT")
    ] = "jsonl",
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Instead of stdout; whole or not at all.")
    ] = None,
    payloads: Annotated[bool, typer.Option("--payloads", help="What was submitted, too.")] = False,
) -> None:
    """Write the recorded outcomes, in the order of the shards."""
    with told():
        raise typer.Exit(export_outcomes(work_dir, format=format, out=out, payloads=payloads))


@app.command(
    short_help="Say whether workers can run it here.", epilog="Example: dispatch doctor grading:Grader -j 8"
)
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
