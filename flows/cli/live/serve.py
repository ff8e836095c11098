"""`tickline live`: decide on the ticks of a Kafka topic until it is stopped."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from flows.cli.live.log import LogKeepDays, LogRate, log_changes, prediction_log
from flows.cli.live.show import Metrics, MetricsHost, Page, PageHost, shown
from flows.cli.live.streams import Bootstrap, Demo, read_service_spec
from flows.cli.options import (
    DATA,
    PANELS,
    SpecFile,
    expanded,
    market_uri,
    require_different,
    settings_from_environment,
)

app = typer.Typer()
out = Console()


@app.command(rich_help_panel=PANELS.serving)
def live(
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help=f"{DATA}.", show_default="TICKLINE_MARKET, if set"),
    ] = None,
    symbols: Annotated[
        list[str] | None,
        typer.Option(
            help="Decide on these instruments and their leaders; repeat for several.",
            show_default="those of the store",
        ),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            help="Decide with this version, staged or serving.", show_default="the serving one"
        ),
    ] = None,
    every_window: Annotated[
        bool | None,
        typer.Option(
            "--every-window",
            help="Decide on every window, not only on the newest of each instrument.",
            show_default=False,
        ),
    ] = None,
    stale_after: Annotated[
        float | None,
        typer.Option(
            help="Suppress decisions this many ms after the tick's local stamp.",
            show_default="never",
        ),
    ] = None,
    in_process: Annotated[
        bool,
        typer.Option(
            "--in-process",
            help="Answer from the serving version's engine in this process, not Triton.",
        ),
    ] = False,
    redis: Annotated[
        str | None,
        typer.Option(
            help="Also keep each instrument's newest decision there: redis://HOST:PORT.",
            show_default="nowhere",
        ),
    ] = None,
    alive_file: Annotated[
        Path | None,
        typer.Option(
            help="Touch this file every second while the service works, for a probe.",
            show_default="none",
            callback=expanded,
        ),
    ] = None,
    spec: SpecFile = None,
    bootstrap: Bootstrap = None,
    demo: Demo = False,
    log_rate: LogRate = None,
    log_keep_days: LogKeepDays = None,
    page: Page = None,
    page_host: PageHost = "127.0.0.1",
    metrics: Metrics = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Decide on the ticks of a Kafka topic; stop with Ctrl-C or SIGTERM.

    Triton answers, with the version that the route names: a canary's share and a
    promotion apply at once. While Triton is away, the approved engine answers in
    this process. With --in-process it always does, and follows a promotion or
    rollback. With --version that version's engine answers here, whichever serves.
    Decisions go to a topic, what cannot be read to a dead-letter topic. The store
    only names the instruments and the validation profile. A stop finishes what was
    received; the next start continues from there (docs/live.md).
    """
    from flows.runs.live import Desk, serve
    from infra.live.kafka.clients import create_topics, dead_letters
    from infra.live.monitoring.observer import Observer

    require_different({"--page": page, "--metrics": metrics})
    settings = settings_from_environment()
    chosen = read_service_spec(
        spec,
        bootstrap,
        demo=demo,
        every_window=every_window,
        stale_after_ms=stale_after,
        redis_url=redis,
        **log_changes(log_rate, log_keep_days),
    )
    here = in_process or version is not None
    log = prediction_log(settings, chosen, _say)
    desk = Desk.open(settings, chosen, market_uri(data, settings), symbols, version)
    kafka = chosen.kafka
    letters = [dead_letters(topic) for topic in kafka.ticks]
    made = create_topics(kafka, [*kafka.ticks, *letters, kafka.decisions])
    where = "in process" if here else "Triton"
    _say(f"version {desk.manifest.version}, features {desk.manifest.seen.feature_set}, {where}")
    for key, group in desk.groups.items():
        _say(f"key {key}: {', '.join(group)}")
    if made:
        _say(f"created topics: {', '.join(made)}")
    _say(f"{', '.join(kafka.ticks)} at {kafka.bootstrap} -> {kafka.decisions}")
    observer = Observer()
    listen = {"page_host": page_host, "metrics_host": metrics_host}
    with (
        shown(observer, settings, _say, page=page, metrics=metrics, log=log, **listen),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(serve(desk, observer, log, _say, in_process=in_process, alive_file=alive_file))


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
