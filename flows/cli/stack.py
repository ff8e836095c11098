"""`tickline up`, `down`, `status`, `logs`: the desk's stack on this machine."""

import datetime as dt
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.options import PANELS, settings_from_environment
from model_code.settings import Settings

app = typer.Typer()
out = Console()
COLOURS = {"up": "green", "starting": "yellow", "waiting": "yellow", "silent": "yellow"}


@app.command(rich_help_panel=PANELS.stack)
def up(
    triton: Annotated[
        bool, typer.Option("--triton/--no-triton", help="Run the Triton server too.")
    ] = True,
    extra: Annotated[
        str,
        typer.Option(
            "--with",
            help="More services, names with commas: redis, kafka, tansu (Kafka's "
            "protocol in memory, for demos).",
        ),
    ] = "",
    deploy: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Deploy prefect.yaml's flows.")
    ] = True,
) -> None:
    """Start the stack: Prefect server, worker, MLflow server, Triton; then deploy the flows.

    A supervisor restarts whatever dies and outlives this terminal. Everything listens on loopback.
    Commands find the running stack by themselves: nothing needs to be exported.

        tickline up --with redis
        tickline status
        tickline logs worker -f
        tickline down
    """
    from infra import stack, stack_state

    settings = settings_from_environment()
    wanted = tuple(name.strip() for name in extra.split(",") if name.strip())
    running = stack_state.read(settings)
    if running is not None:
        missing = sorted(set(wanted) - set(running.plan.names))
        note = f", without {', '.join(missing)}: tickline down first" if missing else ""
        out.print(f"the stack is up already{note}")
    else:
        out.print("starting (a minute or two)...")
        stack.up(settings, triton=triton, extra=wanted, say=out.print)
    if deploy:
        _deploy(settings)
    _show(settings)


def _deploy(settings: Settings) -> None:
    from flows.runs.local import connected

    out.print("deploying the flows (up to a minute)...")
    with connected(settings):
        from infra.deploy import deploy
        from infra.servers import environment

        names = deploy(environment(settings))
    market = settings.market or "the simulated market: set TICKLINE_MARKET"
    out.print(f"deployed {', '.join(names)}; the nightly runs on {market}")


@app.command(rich_help_panel=PANELS.stack)
def down() -> None:
    """Stop the stack: every process ends, runs at work are ended too (tickline rerun goes on)."""
    from infra import stack

    out.print("stopped" if stack.down(settings_from_environment()) else "no stack was running")


@app.command(rich_help_panel=PANELS.stack)
def status() -> None:
    """Show each service: state, process, address, uptime, restarts. Exit status 1 unless all up."""
    settings = settings_from_environment()
    if not _show(settings):
        raise typer.Exit(1)


@app.command(rich_help_panel=PANELS.stack)
def logs(
    service: Annotated[str, typer.Argument(help="A service of tickline status, or supervisor.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="So many to begin with.")] = 50,
) -> None:
    """Print a service's log."""
    from infra import stack, stack_state

    path = stack_state.log_path(settings_from_environment(), service)
    try:
        for line in stack.follow(path, lines, forever=follow):
            out.print(line, end="", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        return


@app.command(rich_help_panel=PANELS.stack)
def ui(
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect's page.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's page.")] = 5000,
) -> None:
    """Open Prefect's and MLflow's pages on this machine (loopback only) until Ctrl-C."""
    from infra import stack_state
    from infra.ui import serve

    settings = settings_from_environment()
    stack = stack_state.read(settings)
    if stack is not None:
        for found in stack.services:
            out.print(f"{found.name:<8} {found.address}  ({found.status})")
        return
    serve(
        settings,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        say=out.print,
    )


@app.command(rich_help_panel=PANELS.stack)
def worker(
    pool: Annotated[str, typer.Option(help="Work pool to take runs from.")] = "local",
    once: Annotated[bool, typer.Option("--once", help="Run what is scheduled, then stop.")] = False,
) -> None:
    """Run deployed flows on this machine: a Prefect process worker in Tickline's environment."""
    from infra.worker import work

    work(settings_from_environment(), pool=pool, once=once)


def _show(settings: Settings) -> bool:
    from infra import stack_state

    state = stack_state.read(settings)
    if state is None:
        out.print("no stack is running: [bold]tickline up[/]")
        return False
    table = Table(title=f"Stack of {settings.home} (supervisor {state.supervisor.pid})")
    for heading in ("service", "state", "process", "address", "up for", "restarts"):
        table.add_column(heading, no_wrap=True)
    for found in state.services:
        since = time.time() - found.started if found.started else None
        shown = "" if since is None else str(dt.timedelta(seconds=int(since)))
        colour = COLOURS.get(found.status, "red")
        cells = (str(found.pid or ""), found.address, shown, str(found.restarts))
        table.add_row(found.name, f"[{colour}]{found.status}", *cells)
    out.print(table)
    return state.all_up
