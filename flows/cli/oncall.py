"""`tickline why`, `rerun`, `sweep`: for whoever is called at night."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PANELS, settings_from_environment
from model_code.errors import ConfigError, TicklineError

app = typer.Typer()
out = Console()

Run = Annotated[
    str | None, typer.Argument(help="Name or id of the flow run, e.g. from Prefect's page.")
]


@app.command(rich_help_panel=PANELS.oncall)
def why(run: Run = None) -> None:
    """Say why a run stopped: stage, cause, whether data, code, machine or service, how to go on.

    Without a name: the newest nightly that is not completed.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from flows.runs.explain import explain, render

        out.print(render(explain(settings, run)))


@app.command(rich_help_panel=PANELS.oncall)
def rerun(
    run: Run = None,
    last_failed: Annotated[
        bool,
        typer.Option("--last-failed", help="The newest nightly that is not completed."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Where a worker goes on with it: watch until it ends.")
    ] = False,
) -> None:
    """Go on with a run that failed or was killed: same run, finished stages come back Cached.

    Training continues after its last finished epoch, and the same MLflow run goes on. A run that a
    worker had begun goes on in the worker; any other goes on here.
    """
    if (run is None) != last_failed:
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
        from flows.runs.rerun import rerun as go_on

        found = go_on(settings, run, say=out.print)
        if isinstance(found, Outcome):
            out.print(outcome_tables(found))
        elif not isinstance(found, FlowRun):
            out.print("completed")
        elif not wait:
            out.print(f"scheduled: a worker goes on with {found.name}")
            out.print(f"watch it: tickline logs worker -f, or {settings.prefect_ui_url}")
        else:
            out.print(f"a worker goes on with {found.name}")
            state = follow(found.id, say=out.print)
            if not state.is_completed():
                raise TicklineError(
                    f"{found.name} ended as {state.name}", remedy=f"tickline why {found.name}"
                )
            out.print(f"{found.name} {state.name}")


@app.command(rich_help_panel=PANELS.oncall)
def sweep() -> None:
    """Close the runs that dead processes left open in MLflow and Prefect; the living are kept.

    A nightly, a backfill, a bench and a rerun do so when they start; by hand it is for a look at
    clean pages right after a crash.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from tasks.runs.cleanup import clean_up as tidy

        swept = tidy(settings)
    for name in swept.crashed:
        out.print(f"Prefect: {name} is now Crashed")
    for name in swept.closed:
        out.print(f"MLflow: {name} is now KILLED")
    if not swept.crashed and not swept.closed:
        out.print("nothing to close")
