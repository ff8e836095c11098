"""`tickline live`: decide on the ticks of a Kafka topic until it is stopped."""

import asyncio
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from flows.cli.live.log import LogKeepDays, LogRate, prediction_log
from flows.cli.live.show import Metrics, Page, PageHost, shown
from flows.cli.live.streams import Bootstrap, Demo, read_service_spec
from flows.cli.options import DATA, PANELS, SpecFile, market_uri, settings_from_environment
from model_code.errors import ConfigError
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, Settings, ValidationSpec

if TYPE_CHECKING:
    from infra.live.model import Model
    from infra.live.monitoring.observer import Observer
    from infra.live.outputs import Sink
    from infra.live.redis_sink import RedisSink
    from infra.live.service import Service
    from infra.live.spec import ServiceSpec, TritonSpec
    from infra.live.triton import Triton
    from model_code.repository.manifest import Manifest

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
            "--in-process", help="Answer from the version's engine in this process, not Triton."
        ),
    ] = False,
    redis: Annotated[
        str | None,
        typer.Option(
            help="Also keep each instrument's newest decision there: redis://HOST:PORT/DATABASE.",
            show_default="nowhere",
        ),
    ] = None,
    alive_file: Annotated[
        Path | None,
        typer.Option(
            help="Touch this file every second while the service works, for a probe.",
            show_default="none",
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
) -> None:
    """Decide on the ticks of a Kafka topic; stop with Ctrl-C or SIGTERM.

    Triton answers, with the version that the route names: a canary's share and a
    promotion apply at once. While Triton is away, the approved engine answers in
    this process. With --version that version's engine answers here. Decisions go
    to a topic, what cannot be read to a dead-letter topic. The store only names
    the instruments and the validation profile. A stop finishes what was received;
    the next start continues from there (docs/live.md).
    """
    import torch

    from flows.runs.replay_model import feature_spec, find_version
    from infra.live.kafka import create_topics, dead_letters
    from infra.live.monitoring.observer import Observer
    from infra.live.service import Service
    from model_code.live.groups import groups
    from model_code.live.path import LivePath
    from model_code.live.state import Group, require_messages
    from model_code.market.profiles import limits
    from model_code.market.store import open_market

    settings = settings_from_environment()
    chosen = read_service_spec(
        spec,
        bootstrap,
        demo=demo,
        every_window=every_window,
        stale_after_ms=stale_after,
        redis_url=redis,
    )
    here = in_process or version is not None
    folder, manifest = find_version(settings, _serving(settings, version), None)
    torch.set_num_threads(1)  # for the softmax of a few rows, several threads are slower
    require_messages(manifest.seen)
    reset_gap_s = feature_spec(manifest).reset_gap_s
    uri = market_uri(data, settings)
    store = None if uri is None else open_market(uri)
    if store is None and not symbols:
        raise ConfigError("no instruments", remedy="name them: --symbols, or --data STORE")
    names = symbols or sorted({day.symbol for day in store.catalog()} if store else ())
    members = groups(manifest.seen.leaders, names)
    bounds = limits(ValidationSpec(), None if store is None else store.statement.profile)
    stale_ms = chosen.stale_after_ms
    log = prediction_log(settings, chosen.kafka.group_id, log_rate, log_keep_days, _say)

    def make_path(group: tuple[str, ...]) -> LivePath:
        return LivePath(
            Group(manifest.seen, group, reset_gap_s, bounds),
            threshold=manifest.threshold,
            model_version=manifest.version,
            stale_after_ns=None if stale_ms is None else round(stale_ms * 1e6),
            clock=time.perf_counter_ns,
            watch=None if log is None else log.watch,
        )

    for group in members.values():
        make_path(group)  # a wrong set or leader is an error now, not at the first message
    kafka = chosen.kafka
    letters = [dead_letters(topic) for topic in kafka.ticks]
    made = create_topics(kafka, [*kafka.ticks, *letters, kafka.decisions])
    observer = Observer()

    async def serve() -> None:
        async with AsyncExitStack() as opened:
            sinks: list[Sink] = [observer]
            if here:
                model = _engine(folder, manifest)
            else:
                model = await opened.enter_async_context(_triton(settings, manifest, chosen.triton))
            if chosen.redis_url is not None:
                sinks.append(await opened.enter_async_context(_redis(settings, manifest, chosen)))
            if log is not None:
                sinks.append(await opened.enter_async_context(log))
            state = settings.home / "live" / kafka.group_id
            service = Service(chosen, members, make_path, model, state, _say, sinks, alive_file)
            await _run(service, observer, [model, *sinks])

    where = "in process" if here else "Triton"
    _say(f"version {manifest.version}, features {manifest.seen.feature_set}, {where}")
    for key, group in members.items():
        _say(f"key {key}: {', '.join(group)}")
    if made:
        _say(f"created topics: {', '.join(made)}")
    _say(f"{', '.join(kafka.ticks)} at {kafka.bootstrap} -> {kafka.decisions}")
    with shown(observer, settings, _say, page=page, page_host=page_host, metrics=metrics):
        asyncio.run(serve())


def _engine(folder: Path, manifest: "Manifest") -> "Model":
    """The version's engine in this process, warmed up."""
    from flows.runs.replay_model import load_model
    from infra.live.model import InProcess

    predictor = load_model(folder, manifest).predictor
    predictor.predict(np.zeros((1, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))
    return InProcess(predictor)


def _triton(settings: Settings, manifest: "Manifest", spec: "TritonSpec") -> "Triton":
    """The server that the settings name, with the fallback.

    Raises:
        ServerError: none is configured or running.
    """
    from infra.live.triton import Triton
    from infra.live.versions import Versions
    from infra.triton.daemon import serving_url
    from model_code.repository.serving import ServingRepository

    serving = ServingRepository(settings.serving_repository)
    versions = Versions(serving, settings.staging_repository, manifest.seen)
    return Triton(serving_url(settings), versions, spec, _say)


def _redis(settings: Settings, manifest: "Manifest", spec: "ServiceSpec") -> "RedisSink":
    """Redis at the URL of the specification.

    Raises:
        ConfigError: the URL cannot be read.
    """
    from infra.live.redis_sink import RedisSink
    from infra.live.redis_state import RedisState

    state = RedisState(spec.redis_url or "", spec.redis, password=settings.redis_password)
    return RedisSink(state, manifest.seen.feature_set, _say)


async def _run(service: "Service", observer: "Observer", parts: Sequence[object]) -> None:
    watching = asyncio.create_task(observer.watch(lambda: service.status))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    try:
        await service.run()
    finally:
        watching.cancel()
        for one in (service, *parts):
            if isinstance(state := getattr(one, "state", None), str):
                _say(state)


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
