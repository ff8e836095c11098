"""`tickline live`: decide on the ticks of a Kafka topic until it is stopped."""

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from flows.cli.live.show import Metrics, Page, PageHost, shown
from flows.cli.live.streams import Bootstrap, Demo, read_service_spec
from flows.cli.options import DATA, PANELS, SpecFile, market_uri, settings_from_environment
from model_code.errors import ConfigError
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, Settings, ValidationSpec

if TYPE_CHECKING:
    from infra.live.monitoring.observer import Observer
    from infra.live.service import Service

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
    spec: SpecFile = None,
    bootstrap: Bootstrap = None,
    demo: Demo = False,
    page: Page = None,
    page_host: PageHost = "127.0.0.1",
    metrics: Metrics = None,
) -> None:
    """Decide on the ticks of a Kafka topic; stop with Ctrl-C or SIGTERM.

    The version's engine answers in this process. Decisions go to a topic, what
    cannot be read to a dead-letter topic. The store only names the instruments
    and the validation profile. A stop finishes what was received; the next start
    continues from there (docs/live.md).
    """
    from flows.runs.replay_model import find_version, load_model
    from infra.live.kafka import create_topics, dead_letters
    from infra.live.model import InProcess
    from infra.live.monitoring.observer import Observer
    from infra.live.service import Service
    from model_code.live.groups import groups
    from model_code.live.path import LivePath
    from model_code.live.state import Group
    from model_code.market.profiles import limits
    from model_code.market.store import open_market

    settings = settings_from_environment()
    chosen = read_service_spec(
        spec, bootstrap, demo=demo, every_window=every_window, stale_after_ms=stale_after
    )
    folder, manifest = find_version(settings, _serving(settings, version), None)
    model = load_model(folder, manifest)
    uri = market_uri(data, settings)
    store = None if uri is None else open_market(uri)
    if store is None and not symbols:
        raise ConfigError("no instruments", remedy="name them: --symbols, or --data STORE")
    names = symbols or sorted({day.symbol for day in store.catalog()} if store else ())
    members = groups(model.seen.leaders, names)
    bounds = limits(ValidationSpec(), None if store is None else store.statement.profile)
    stale_ms = chosen.stale_after_ms

    def make_path(group: tuple[str, ...]) -> LivePath:
        return LivePath(
            Group(model.seen, group, model.spec.reset_gap_s, bounds),
            threshold=model.threshold,
            model_version=model.version,
            stale_after_ns=None if stale_ms is None else round(stale_ms * 1e6),
            clock=time.perf_counter_ns,
        )

    for group in members.values():
        make_path(group)  # a wrong set or leader is an error now, not at the first message
    model.predictor.predict(np.zeros((1, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))
    kafka = chosen.kafka
    letters = [dead_letters(topic) for topic in kafka.ticks]
    made = create_topics(kafka, [*kafka.ticks, *letters, kafka.decisions])
    observer = Observer()
    service = Service(
        chosen, members, make_path, InProcess(model.predictor),
        settings.home / "live" / kafka.group_id, _say, [observer],
    )  # fmt: skip
    _say(f"version {manifest.version}, features {model.seen.feature_set}, in process")
    for key, group in members.items():
        _say(f"key {key}: {', '.join(group)}")
    if made:
        _say(f"created topics: {', '.join(made)}")
    _say(f"{', '.join(kafka.ticks)} at {kafka.bootstrap} -> {kafka.decisions}")
    try:
        with shown(observer, settings, _say, page=page, page_host=page_host, metrics=metrics):
            asyncio.run(_serve(service, observer))
    finally:
        _say(service.state)


async def _serve(service: "Service", observer: "Observer") -> None:
    watching = asyncio.create_task(observer.watch(lambda: service.status))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    await service.run()
    watching.cancel()


def _serving(settings: Settings, version: int | None) -> int:
    """The wanted version, or the approved one that serves.

    Raises:
        ConfigError: nothing serves and no version is named.
    """
    from model_code.repository.serving import ServingRepository

    repository = ServingRepository(settings.serving_repository)
    champion = repository.route().champion
    if version is None and champion is None:
        raise ConfigError(
            "no version serves",
            where=str(repository.root),
            remedy="approve one: tickline promote; or try a staged one: --version N",
        )
    return champion.version if version is None and champion is not None else int(version or 0)


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
