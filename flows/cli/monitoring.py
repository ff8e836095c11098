"""`tickline dashboard`, `tickline metrics`, `tickline alerts`: sight of what the nights did."""

import datetime as dt
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.options import PANELS, settings_from_environment
from model_code.errors import ConfigError

app = typer.Typer()
alerts_app = typer.Typer(no_args_is_help=True, help="Call a webhook when a night goes wrong.")
app.add_typer(alerts_app, name="alerts", rich_help_panel=PANELS.monitoring)
out = Console()

Nights = Annotated[int, typer.Option(help="Look at so many of the newest nights.", min=1)]


@app.command(rich_help_panel=PANELS.monitoring)
def dashboard(
    to: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path(
        "nights.html"
    ),
    nights: Nights = 30,
) -> None:
    """Write one HTML page of the last nights: verdicts, AUC, latency, durations, champion.

    The page stands alone: no server, no scripts, nothing fetched. Open it, mail it, or put it
    behind any web server. Stage times come from Prefect, which is started if none answers.
    """
    settings = settings_from_environment()
    from flows.runs.local import connected

    out.print("reading the nights (up to half a minute where Prefect's server has to be started)")
    with connected(settings):
        from infra.dashboard import write
        from tasks.monitoring.history import read_history

        sight = read_history(settings, nights=nights)
        write(sight, to, now=dt.datetime.now(dt.UTC))
    out.print(f"{len(sight.nights)} nights in [bold]{to}[/]")


@app.command(rich_help_panel=PANELS.monitoring)
def metrics(
    port: Annotated[int, typer.Option(help="Serve at http://HOST:PORT/metrics.")] = 9464,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback only behind a firewall.")
    ] = "127.0.0.1",
    textfile: Annotated[
        Path | None,
        typer.Option(help="Write node_exporter's textfile instead, once (name it *.prom)."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(help="Push to this Prometheus push gateway instead, once."),
    ] = None,
    nights: Nights = 30,
) -> None:
    """Serve Prometheus metrics of the last nights on loopback, until Ctrl-C.

    Stage times need a Prefect server that answers; none is started. With --textfile or --push it
    reads once and ends: for cron, or a machine that Prometheus cannot reach.
    """
    if textfile and push:
        raise ConfigError("one of --textfile and --push", remedy="call it twice")
    settings = settings_from_environment()
    from infra.servers import environment

    # a scrape must not wait minutes for an MLflow that is down
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
    out.print(f"metrics at http://{host}:{port}/metrics; Ctrl-C stops")
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
            help="URL to POST to; kept as a secret in a Prefect block. Rather by environment: "
            "a command line is seen by every user of the machine.",
        ),
    ] = None,
    stuck_after: Annotated[
        float, typer.Option(help="A night that runs for more hours than this is stuck.")
    ] = 3.0,
    deadline: Annotated[
        str, typer.Option(help="A scheduled night must be done by this time, the desk's (HH:MM).")
    ] = "05:00",
) -> None:
    """Make Prefect call a webhook when a night failed, is late, is stuck or misses its deadline.

    The server watches, so a dead worker is noticed too. Needs the server that the worker uses
    (TICKLINE_PREFECT_API_URL) and the nightly deployed on it. Again replaces what was installed.
    """
    if not webhook:
        raise ConfigError(
            "no webhook", remedy="TICKLINE_WEBHOOK=https://... tickline alerts install"
        )
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from infra.automations import install_alerts, time_of_day

        names = install_alerts(
            webhook,
            stuck_after=dt.timedelta(hours=stuck_after),
            deadline=time_of_day(deadline),
        )
    for name in names:
        out.print(f"installed [bold]{name}[/]")


@alerts_app.command("remove")
def remove() -> None:
    """Remove the alerts and the webhook's block from the Prefect server."""
    settings = settings_from_environment()
    from flows.runs.local import connected

    with connected(settings):
        from infra.automations import remove_alerts

        out.print(f"removed {remove_alerts()} alerts")
