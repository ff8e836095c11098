"""`tickline dashboard`, `tickline metrics`, `tickline alerts`: monitor nightly runs."""

import datetime as dt
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PANELS, expanded, settings_from_environment
from model_code.errors import ConfigError

app = typer.Typer()
alerts_app = typer.Typer(no_args_is_help=True, help="Call a webhook when a nightly run goes wrong.")
app.add_typer(alerts_app, name="alerts", rich_help_panel=PANELS.monitoring)
out = Console()
STUCK_AFTER_H = 3.0

Nights = Annotated[int, typer.Option(help="Number of newest nightly runs to read.", min=1)]


@app.command(rich_help_panel=PANELS.monitoring)
def dashboard(
    to: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write.", callback=expanded)
    ] = Path("nights.html"),
    nights: Nights = 30,
) -> None:
    """Write an HTML page of the last nightly runs: verdicts, AUC, latency, durations, champion.

    Use it to review recent runs or to mail a report. The page is self-contained:
    no scripts, no external resources. Stage times come from Prefect; a server is
    started if none answers.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    out.print("reading nightly runs (up to 30 s if Prefect's server must be started)...")
    with connected(settings):
        from infra.dashboard import write
        from tasks.monitoring.history import read_history

        history = read_history(settings, nights=nights)
        write(history, to, now=dt.datetime.now(dt.UTC))
    out.print(f"wrote {len(history.nights)} nightly runs to [bold]{to}[/]")


@app.command(rich_help_panel=PANELS.monitoring)
def metrics(
    port: Annotated[
        int, typer.Option(help="Serve at http://HOST:PORT/metrics.", min=1, max=65535)
    ] = 9464,
    host: Annotated[
        str, typer.Option(help="Listen address; another one only behind a firewall.")
    ] = "127.0.0.1",
    textfile: Annotated[
        Path | None,
        typer.Option(
            help="Write a node_exporter textfile (*.prom) once and exit.",
            show_default="none",
            callback=expanded,
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="Push to this Prometheus push gateway once and exit.", show_default="none"
        ),
    ] = None,
    nights: Nights = 30,
) -> None:
    """Serve Prometheus metrics of the last nightly runs on loopback, until Ctrl-C.

    Use --textfile or --push from cron, or where Prometheus cannot reach this
    machine. Stage times need a running Prefect server; none is started.
    """
    if textfile and push:
        raise ConfigError(
            "--textfile and --push exclude each other", remedy="run the command once for each"
        )
    settings = settings_from_environment()
    from infra.servers import environment

    # a scrape must not wait minutes if MLflow is down
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.update(environment(settings))
    from infra import metrics as exporter
    from tasks.monitoring.history import read_history

    if textfile:
        exporter.write(read_history(settings, nights=nights), textfile)
        out.print(f"wrote {textfile}")
        return
    if push:
        exporter.push(read_history(settings, nights=nights), push)
        out.print("pushed")
        return
    stop = exporter.serve(lambda: read_history(settings, nights=nights), port, host)
    out.print(f"serving metrics at http://{host}:{port}/metrics (Ctrl-C stops)")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        stop()


@alerts_app.command("install")
def install(
    webhook: Annotated[
        str | None,
        typer.Option(
            envvar="TICKLINE_WEBHOOK",
            help="URL to POST to, stored encrypted in a Prefect block. Prefer the variable: "
            "other users can read command lines.",
        ),
    ] = None,
    stuck_after: Annotated[
        float, typer.Option(help="Alert if a run takes more hours than this.")
    ] = STUCK_AFTER_H,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Alert if not completed by HH:MM, in the schedule's time zone.",
            show_default="TICKLINE_DEADLINE, else 05:00",
        ),
    ] = None,
) -> None:
    """Install alerts: call a webhook if a run fails, is late, is stuck or misses its deadline.

    Use it once per Prefect server, and again after each change of the schedule:
    it replaces the installed alerts. tickline up does the same if
    TICKLINE_WEBHOOK is set. Prefect's server evaluates them, so they fire even
    if the worker is dead or there was no night. It needs the worker's server
    (TICKLINE_PREFECT_API_URL) with the nightly deployed on it.
    """
    if not webhook:
        raise ConfigError(
            "no webhook URL", remedy="TICKLINE_WEBHOOK=https://... tickline alerts install"
        )
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from infra.automations import install_alerts, time_of_day

        installed = install_alerts(
            webhook,
            stuck_after=dt.timedelta(hours=stuck_after),
            deadline=time_of_day(deadline) if deadline else settings.deadline,
        )
    word = "installed" if installed.changed else "already installed"
    for name in installed.names:
        out.print(f"{word} [bold]{name}[/]")


@alerts_app.command("remove")
def remove() -> None:
    """Remove the alerts and the webhook's block from the Prefect server.

    Use it to stop all alerts.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from infra.automations import remove_alerts

        out.print(f"removed {remove_alerts()} alerts")
