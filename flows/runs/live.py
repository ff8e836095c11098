"""The live service of a version: its instruments, its model, what takes its decisions."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from flows.runs.replay_model import feature_spec, find_version, load_model
from infra.live.feedback.prediction_log import PredictionLog
from infra.live.inference.champion import ServingEngine
from infra.live.inference.triton import Triton
from infra.live.inference.versions import Versions
from infra.live.model import InProcess, Model
from infra.live.monitoring.observer import Observer
from infra.live.monitoring.parts import redis_part, triton_part
from infra.live.outputs import Sink
from infra.live.redis.sink import RedisSink
from infra.live.redis.state import RedisState
from infra.live.service import Service
from infra.live.snapshots import SharedSnapshots
from infra.live.spec import ServiceSpec
from infra.triton.targets import serving_urls
from model_code.errors import ConfigError
from model_code.live.groups import groups
from model_code.live.path import LivePath, Watch
from model_code.live.state import Group, require_messages
from model_code.market.profiles import Limits, limits
from model_code.market.store import open_market
from model_code.repository.manifest import Manifest
from model_code.repository.serving import ServingRepository
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, Settings, ValidationSpec
from model_code.storage.shared import shared_objects

Say = Callable[[str], None]
STORE_WAIT_S = 2.0  # a partition that is taken over waits so long for its shared snapshot
# a decision waits this long for a thread that holds the interpreter
SWITCH_S = 0.0002


@dataclass(frozen=True)
class Desk:
    """What a service serves.

    Attributes:
        settings: of the home.
        spec: of the service.
        folder, manifest: of the version that it starts with.
        pinned: decide with this version, whichever serves.
        groups: instruments by the group's key.
        bounds: of validation.
    """

    settings: Settings
    spec: ServiceSpec
    folder: Path
    manifest: Manifest
    pinned: bool
    groups: Mapping[str, tuple[str, ...]]
    bounds: Limits

    @classmethod
    def open(
        cls,
        settings: Settings,
        spec: ServiceSpec,
        market: str | None,
        symbols: Sequence[str] | None,
        version: int | None,
    ) -> Self:
        """Find version and instruments.

        Args:
            settings: of the home.
            spec: of the service.
            market: store that names the instruments and the validation profile; None: no store.
            symbols: instruments; None: those of the store.
            version: to decide with, whichever serves; None: the one that serves.

        Raises:
            ConfigError: no version or no instruments, or features that messages do not carry.
        """
        folder, manifest = find_version(settings, _serving(settings, version), None)
        require_messages(manifest.seen)
        store = None if market is None else open_market(market)
        if store is None and not symbols:
            raise ConfigError("no instruments", remedy="name them: --symbols, or --data STORE")
        names = symbols or sorted({day.symbol for day in store.catalog()} if store else ())
        bounds = limits(ValidationSpec(), None if store is None else store.statement.profile)
        members = groups(manifest.seen.leaders, names)
        found = cls(settings, spec, folder, manifest, version is not None, members, bounds)
        for group in members.values():
            found.path(group)  # a wrong set or leader is an error now, not at the first message
        return found

    def path(self, group: tuple[str, ...], watch: Watch | None = None) -> LivePath:
        """A fresh path of a group."""
        stale_ms = self.spec.stale_after_ms
        return LivePath(
            Group(self.manifest.seen, group, feature_spec(self.manifest).reset_gap_s, self.bounds),
            threshold=self.manifest.threshold,
            model_version=self.manifest.version,
            stale_after_ns=None if stale_ms is None else round(stale_ms * 1e6),
            clock=time.perf_counter_ns,
            watch=watch,
        )


async def serve(
    desk: Desk,
    observer: Observer,
    log: PredictionLog | None,
    say: Say,
    *,
    in_process: bool,
    alive_file: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        desk: what is served.
        observer: takes what is shown.
        log: judges and logs decisions.
        say: called with each line for the log.
        in_process: the serving version's engine answers in this process, not Triton; that of a
            pinned version always does.
        alive_file: touched every second.

    Raises:
        StreamError: the broker refuses, or did not confirm the outputs in time.
        ServerError: no Triton server is configured or running.
        ServingError: the engine cannot be loaded in this process.
        ConfigError: the URL of Redis cannot be read.
    """
    settings, spec, sinks = desk.settings, desk.spec, list[Sink]([observer])
    watch = None if log is None else log.watch
    async with AsyncExitStack() as opened:
        model: Model
        if desk.pinned:
            model = _engine(desk)
        elif in_process:
            model = await opened.enter_async_context(ServingEngine(_versions(desk), say))
        else:
            model = await opened.enter_async_context(_triton(desk, say))
        if isinstance(model, Triton):
            observer.parts.append(triton_part(model))
        if spec.redis_url is not None:
            state = RedisState(spec.redis_url, spec.redis, password=settings.redis_password)
            sink = RedisSink(state, desk.manifest.seen.feature_set, say)
            sinks.append(await opened.enter_async_context(sink))
            observer.parts.append(redis_part(state))
        if log is not None:
            sinks.append(await opened.enter_async_context(log))
            observer.feedback = lambda: log.report.figures
        service = Service(
            spec,
            desk.groups,
            lambda group: desk.path(group, watch),
            model,
            settings.home / "live" / spec.kafka.group_id,
            say,
            sinks,
            alive_file,
            _shared_snapshots(settings, spec.kafka.group_id, say),
        )
        watching = asyncio.create_task(observer.watch(lambda: service.status))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        try:
            with short_pauses():
                await service.run()
        finally:
            watching.cancel()
            for part in (service, model, *sinks):
                if isinstance(line := getattr(part, "state", None), str):
                    say(line)


def _shared_snapshots(settings: Settings, group: str, say: Say) -> SharedSnapshots | None:
    objects = shared_objects(settings, STORE_WAIT_S)
    return None if objects is None else SharedSnapshots(objects, f"live/{group}", say)


@contextmanager
def short_pauses() -> Iterator[None]:
    """Keep other threads and the garbage collector from holding up decisions.

    What lives by now is not searched for garbage again: the libraries alone take it 0.2 s.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


def _engine(desk: Desk) -> Model:
    """The pinned version's engine in this process, warmed up."""
    predictor = load_model(desk.folder, desk.manifest).predictor
    predictor.predict(np.zeros((1, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32))
    return InProcess(predictor)


def _triton(desk: Desk, say: Say) -> Triton:
    """The server that the settings name, with the fallback."""
    return Triton(serving_urls(desk.settings), _versions(desk), desk.spec.triton, say)


def _versions(desk: Desk) -> Versions:
    """Of the repository that the settings name."""
    serving = ServingRepository(desk.settings.serving_repository)
    return Versions(serving, desk.settings.staging_repository, desk.manifest.seen)


def _serving(settings: Settings, version: int | None) -> int:
    """The wanted version, or the approved one that serves.

    Raises:
        ConfigError: nothing serves and no version is named.
    """
    repository = ServingRepository(settings.serving_repository)
    champion = repository.route().champion
    if version is None and champion is None:
        raise ConfigError(
            "no version serves",
            where=str(repository.root),
            remedy="approve one: tickline promote; or try a staged one: --version N",
        )
    return champion.version if version is None and champion is not None else int(version or 0)
