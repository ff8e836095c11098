"""`tickline up`, `down`, `status`, `logs`, `ui`, `worker`: the stack on this machine."""

import datetime as dt
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.exceptions import say_exception
from flows.cli.monitoring import STUCK_AFTER_H
from flows.cli.options import PANELS, expanded, require_different, settings_from_environment
from flows.cli.targets import show_emergency, show_targets
from infra.redact import redact
from model_code.errors import IntegrityError, TicklineError
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings

if TYPE_CHECKING:
    from infra.stack_state import StackState

app = typer.Typer()
out = Console()
ALERTS = "to be called when a night goes wrong: TICKLINE_WEBHOOK=https://... tickline up"
Deployment = Annotated[
    str, typer.Argument(help="Deployment: nightly, or another that prefect.yaml has.")
]
COLOURS = {"up": "green", "starting": "yellow", "waiting": "yellow", "silent": "yellow"}


@app.command(rich_help_panel=PANELS.stack)
def up(
    triton: Annotated[
        bool, typer.Option("--triton/--no-triton", help="Also run the Triton server.")
    ] = True,
    extra: Annotated[
        str,
        typer.Option(
            "--with",
            help="More services, comma-separated: redis, kafka, tansu (in-memory Kafka for demos).",
            show_default="none",
        ),
    ] = "",
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Also run tickline live with its page, Redis and the in-memory broker, or Kafka "
            "if it is one of the services.",
        ),
    ] = False,
    live_spec: Annotated[
        Path | None,
        typer.Option(
            help="YAML for tickline live.", show_default="built-in defaults", callback=expanded
        ),
    ] = None,
    deploy: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Deploy the flows in prefect.yaml.")
    ] = True,
) -> None:
    """Start the stack: Prefect server, worker, MLflow server, Triton; then deploy the flows.

    Use it to run scheduled nightlies on this machine. Run it again after you
    change prefect.yaml. What you paused stays paused. If TICKLINE_WEBHOOK is
    set, it installs the alerts too (tickline alerts).

    A supervisor restarts services that exit. It keeps running when you close the
    terminal. Everything listens on loopback. Commands of the same home find the
    stack automatically.

        tickline up --with redis
        tickline up --live
        tickline status
        tickline logs worker -f
        tickline down
    """
    from infra import stack, stack_state
    from infra.servers import require_webhook

    settings, webhook = settings_from_environment(), os.environ.get("TICKLINE_WEBHOOK")
    if webhook:
        require_webhook(webhook)  # before anything starts
    wanted = tuple(name.strip() for name in extra.split(",") if name.strip())
    running = stack_state.read(settings)
    if running is not None:
        asked = {*wanted, *(["live"] if live else [])}
        missing = sorted(asked - set(running.plan.names))
        note = f", without {', '.join(missing)}: run tickline down first" if missing else ""
        out.print(f"the stack is already running{note}")
    else:
        out.print("starting (a minute or two)...")
        stack.up(
            settings, triton=triton, extra=wanted, say=out.print, live=live, live_spec=live_spec
        )
    if deploy:
        _deploy(settings, webhook)
    _show(settings)


def _deploy(settings: Settings, webhook: str | None) -> None:
    from flows.runs.local import connected

    out.print("deploying the flows (up to a minute)...")
    with connected(settings):
        from infra.automations import install_alerts
        from infra.deploy import deploy, paused_deployments
        from infra.servers import environment

        names, paused = deploy(environment(settings)), paused_deployments()
        alerts = f"no alerts: {ALERTS}"
        if webhook:
            installed = install_alerts(
                webhook, stuck_after=dt.timedelta(hours=STUCK_AFTER_H), deadline=settings.deadline
            )
            word = "installed" if installed.changed else "installed already, unchanged"
            alerts = f"{len(installed.names)} alerts {word}; they call TICKLINE_WEBHOOK"
    market = settings.market or "the simulated market (for real ticks: set TICKLINE_MARKET)"
    out.print(f"deployed {', '.join(names)}; the nightly runs on {escape(str(market))}")
    _say_paused(paused)
    out.print(alerts)


def _say_paused(names: Sequence[str]) -> None:
    for name in names:
        out.print(
            f"[yellow]{name} is paused[/], so its schedule starts nothing: tickline resume {name}"
        )


@app.command(rich_help_panel=PANELS.stack)
def pause(name: Deployment = "nightly") -> None:
    """Pause a deployment: its schedule starts no more runs until it is resumed.

    Use it before maintenance. It stays paused when tickline up deploys again.
    An active run continues.
    """
    _set_paused(name, paused=True)
    out.print(f"{name} is paused. To resume: tickline resume {name}")


@app.command(rich_help_panel=PANELS.stack)
def resume(name: Deployment = "nightly") -> None:
    """Resume a paused deployment: its schedule starts runs again.

    Use it after tickline pause, or if tickline status says that one is paused.
    """
    _set_paused(name, paused=False)
    out.print(f"{name} runs by its schedule again")


def _set_paused(name: str, *, paused: bool) -> None:
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from infra.deploy import set_paused

        set_paused(name, paused)


@app.command(rich_help_panel=PANELS.stack)
def down() -> None:
    """Stop the stack: every process exits, active runs are interrupted.

    Resume an interrupted run after the next start: tickline rerun --last-failed.
    """
    from infra import stack

    out.print("stopped" if stack.down(settings_from_environment()) else "no stack was running")


@app.command(rich_help_panel=PANELS.stack)
def status() -> None:
    """Show each service: state, pid, address, uptime, restarts; the version that serves; targets.

    Use it to check the stack, also from scripts: the exit status is 1 unless all
    services are up. It also says which deployments are paused.
    """
    settings = settings_from_environment()
    running = _show(settings)
    if running:
        _say_paused(_paused(settings))
    _show_serving(settings)
    show_emergency(settings)
    show_targets(settings)
    say_exception(settings)
    if not running:
        raise typer.Exit(1)


def _paused(settings: Settings) -> list[str]:
    from flows.runs.local import connected

    with connected(settings):
        from infra.deploy import paused_deployments

        return paused_deployments()


@app.command(rich_help_panel=PANELS.stack)
def logs(
    service: Annotated[str, typer.Argument(help="A service of tickline status, or supervisor.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of last lines.")] = 50,
) -> None:
    """Print a service's log.

    Use it if a service is not up, or to follow it: tickline logs worker -f.
    """
    from infra import stack, stack_state

    path = stack_state.log_path(settings_from_environment(), service)
    try:
        for line in stack.follow(path, lines, forever=follow):
            out.print(redact(line), end="", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        return


@app.command(rich_help_panel=PANELS.stack)
def ui(
    prefect_port: Annotated[
        int, typer.Option(help="Port of Prefect's page.", min=1, max=65535)
    ] = 4200,
    mlflow_port: Annotated[
        int, typer.Option(help="Port of MLflow's page.", min=1, max=65535)
    ] = 5000,
) -> None:
    """Serve Prefect's and MLflow's web pages on loopback, until Ctrl-C.

    Use it to look at runs and models without the stack. If the stack is running,
    it only prints the addresses.
    """
    from infra import stack_state
    from infra.ui import serve

    require_different({"--prefect-port": prefect_port, "--mlflow-port": mlflow_port})
    settings = settings_from_environment()
    stack = stack_state.read(settings)
    if stack is not None:
        for found in stack.services:
            out.print(f"{found.name:<8} {found.address}  ({found.status})")
        _show_nights(settings, stack)
        return
    serve(
        settings,
        prefect_port=prefect_port,
        mlflow_port=mlflow_port,
        say=partial(out.print, soft_wrap=True),  # links stay whole
    )


@app.command(rich_help_panel=PANELS.stack)
def worker(
    pool: Annotated[str, typer.Option(help="Work pool to take runs from.")] = "local",
    once: Annotated[bool, typer.Option("--once", help="Run what is due, then stop.")] = False,
) -> None:
    """Run a Prefect process worker in Tickline's environment: it runs deployed flows here.

    Use it on another machine of the pool. tickline up already starts a worker.
    """
    from infra.worker import work

    work(settings_from_environment(), pool=pool, once=once)


@app.command(rich_help_panel=PANELS.stack)
def service(
    name: Annotated[str, typer.Argument(help="The service: prefect, mlflow or triton.")],
) -> None:
    """Run one service in the foreground, watched, until SIGTERM: for a service manager.

    Use it in the units of infra/systemd, so that a reboot brings the desk back.
    It says that it is ready once the service responds; Triton is ready once every
    approved version is loaded and answers its golden request.
    """
    from infra.systemd.foreground import run

    raise typer.Exit(run(settings_from_environment(), name))


def _show_serving(settings: Settings) -> None:
    """Print which version serves, and whether MLflow's alias says otherwise."""
    try:
        champion = ServingRepository(settings.serving_repository).route().champion
    except IntegrityError as error:
        out.print(f"[red]{escape(str(error))}")
        return
    out.print("no version serves" if champion is None else f"version {champion.version} serves")
    if settings.mlflow_tracking_uri is None and not (settings.home / "mlflow.db").exists():
        return
    from infra.servers import environment

    os.environ.update(environment(settings))  # before MLflow is imported
    from mlflow.exceptions import MlflowException

    from tasks.runs.aliases import Aliases
    from tasks.runs.serving_version import serving_version

    try:
        Aliases(settings).require_answer()
        warning = serving_version(settings).warning
    except (TicklineError, MlflowException) as error:
        why = str(error).splitlines()[0]
        out.print(f"[yellow]the alias champion in MLflow was not compared[/]: {escape(why)}")
        return
    if warning:
        out.print(f"[red]{escape(warning)}")


def _show(settings: Settings) -> bool:
    from infra import stack_state

    state = stack_state.read(settings)
    if state is None and (managed := stack_state.managed(settings)):
        out.print(f"a service manager runs {', '.join(managed)}: systemctl status 'tickline-*'")
        return False
    if state is None:
        out.print("no stack is running: [bold]tickline up[/]")
        return False
    table = Table(title=f"Stack of {settings.home} (supervisor: pid {state.supervisor.pid})")
    for heading in ("service", "state", "pid", "address", "uptime", "restarts"):
        table.add_column(heading, no_wrap=True)
    for found in state.services:
        since = time.time() - found.started if found.started else None
        shown = "" if since is None else str(dt.timedelta(seconds=int(since)))
        colour = COLOURS.get(found.status, "red")
        cells = (str(found.pid or ""), found.address, shown, str(found.restarts))
        table.add_row(found.name, f"[{colour}]{found.status}", *cells)
    out.print(table)
    for found in state.services:
        if found.problem:
            out.print(f"[red]{found.name} does not serve[/]: {escape(found.problem)}")
    _show_nights(settings, state)
    return state.all_up


def _show_nights(settings: Settings, state: "StackState") -> None:
    """Print the link to the nights in MLflow, if the stack's MLflow responds."""
    from infra.ui import nights_link

    for found in state.services:
        if found.name == "mlflow" and found.status == "up":
            link = nights_link(settings, found.address)
            out.print(f"nights in MLflow: {link}", soft_wrap=True)
