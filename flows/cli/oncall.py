"""`tickline why`, `rerun`, `sweep`: the on-call engineer's commands."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PANELS, settings_from_environment
from model_code.errors import ConfigError, TicklineError

app = typer.Typer()
out = Console()

Run = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]",
        help="Name of the flow run, or its id's first 8 digits: nightly 2024-08-09, promote v7. "
        "Of runs with the same name, the newest is taken.",
    ),
]


def _name(run: list[str] | None) -> str | None:
    """The words of a name, which need no quotes in a shell."""
    return " ".join(run) if run else None


@app.command(rich_help_panel=PANELS.oncall)
def why(
    run: Run = None,
    last_failed: Annotated[
        bool,
        typer.Option(
            "--last-failed",
            help="Explain the newest failed run of any kind: nightly, promotion, rollback, "
            "backfill or bench.",
        ),
    ] = False,
) -> None:
    """Explain why a run stopped: stage, cause, kind of fault, who, how to resume.

    Use it first after a failure, of a nightly, promotion, rollback or backfill.
    Without a name it explains the newest nightly that is not completed.
    """
    name = _name(run)
    if name is not None and last_failed:
        raise ConfigError("NAME and --last-failed exclude each other", remedy="leave one out")
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from flows.runs.explain import explain, render

        out.print(render(explain(settings, name, of_any_flow=last_failed)))


@app.command(rich_help_panel=PANELS.oncall)
def rerun(
    run: Run = None,
    last_failed: Annotated[
        bool,
        typer.Option(
            "--last-failed",
            help="Resume the newest nightly that is not completed; not one that was cancelled.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="If a worker resumes it: follow it until it ends.")
    ] = False,
) -> None:
    """Resume a failed or killed run: the same run, finished stages come back Cached.

    Use it once the cause is fixed ([bold]tickline why[/]). Training resumes after its
    last finished epoch, in the same MLflow run. A run that a worker started is
    handed back to a worker. Any other run resumes here.
    """
    name = _name(run)
    if (name is None) != last_failed:
        raise ConfigError(
            "say which run", remedy="tickline rerun NAME, or tickline rerun --last-failed"
        )
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from prefect.client.schemas.objects import FlowRun

        from flows.cli.tables import outcome_tables
        from flows.runs.outcome import Outcome
        from flows.runs.rerun import follow
        from flows.runs.rerun import rerun as resume
        from infra.stack_state import prefect_page
        from tasks.runs.names import reference

        found = resume(settings, name, say=out.print)
        if isinstance(found, Outcome):
            out.print(outcome_tables(found))
        elif not isinstance(found, FlowRun):
            out.print("completed")
        elif not wait:
            out.print(f"scheduled {found.name}; a worker will pick it up")
            out.print(f"follow it: tickline logs worker -f, or {prefect_page(settings)}")
        else:
            out.print(f"scheduled {found.name}; a worker will pick it up")
            state = follow(found.id, say=out.print)
            if not state.is_completed():
                raise TicklineError(
                    f"{found.name} ended as {state.name}", remedy=f"tickline why {reference(found)}"
                )
            out.print(f"{found.name} {state.name}")


@app.command(rich_help_panel=PANELS.oncall)
def sweep() -> None:
    """Clean up after dead processes: close the runs they left open in MLflow and Prefect.

    Use it to correct MLflow's and Prefect's pages right after a crash. Nightly,
    backfill, bench and rerun do the same when they start. Runs of live
    processes stay open.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from tasks.runs.cleanup import clean_up

        found = clean_up(settings)
    for name in found.crashed:
        out.print(f"Prefect: {name} marked Crashed")
    for name in found.cancelled:
        out.print(f"Prefect: {name} marked Cancelled, as a person asked")
    for name in found.closed:
        out.print(f"MLflow: {name} marked KILLED")
    if not (found.crashed or found.cancelled or found.closed):
        out.print("nothing to clean up")
