"""`tickline feed` and `tickline live` on a broker in memory."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.cli.live import feed, serve
from infra.live.inference.champion import ServingEngine
from infra.live.kafka.clients import KafkaSpec
from infra.live.service import Service
from model_code.errors import ConfigError
from model_code.features.served import SOLO
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tests.infra.live.test_service import decided, messages, send
from tests.support.broker import demo_broker, read_all
from tests.support.cli import tickline
from tests.support.market import DATES, SYMBOLS, hive
from tests.support.serving import APPROVAL, staged

N = 100


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with demo_broker(tmp_path / "broker") as bootstrap:
        yield bootstrap


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose version 1 serves."""
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    settings = Settings(home=tmp_path / "home").resolved()
    staged(settings.staging_repository, 1)
    serving = ServingRepository(settings.serving_repository)
    serving.publish(settings.staging_repository / MODEL_NAME / "1", APPROVAL)
    Route(champion=Target(model=MODEL_NAME, version=1)).save(serving.route_file)
    return settings


@pytest.fixture
def store(tmp_path: Path) -> str:
    return hive(tmp_path / "store", n=N, dates=DATES[:1])


def test_a_fed_day_is_decided_and_sigterm_ends_with_the_ledger(
    broker: str, desk: Settings, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (feed, serve):
        monkeypatch.setattr(module.out, "width", 200)
    options = ("--data", store, "--bootstrap", broker, "--demo")
    fed = tickline("feed", *options, "--speed", "max")
    count = int(re.search(r"(\d+) messages in tickline.ticks, \1 confirmed", fed)[1])  # type: ignore[index]
    assert count > 2 * N
    assert f"key {SYMBOLS[0]}: {SYMBOLS[0]}" in fed
    services: list[Service] = []
    start = Service.__init__

    def keep(self: Service, *arguments: object) -> None:
        start(self, *arguments)  # type: ignore[arg-type]
        services.append(self)

    monkeypatch.setattr(Service, "__init__", keep)

    def terminate() -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if services and services[0].partitions.ledger.taken == count:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.01)
        for one in services:
            one.stop()

    waiting = threading.Thread(target=terminate)
    waiting.start()
    printed = tickline("live", *options, "--every-window", "--in-process")
    waiting.join()
    decisions = 2 * (N - 63)
    assert "version 1, features solo, in process" in printed
    assert f"ledger: in {count} = decided {decisions} + conflated 0 + suppressed 126" in printed
    assert len(read_all(KafkaSpec(bootstrap=broker), "tickline.decisions", decisions)) == decisions
    assert list((desk.home / "live" / "tickline-live").glob("*.state"))


def test_a_spec_file_names_broker_and_topics(tmp_path: Path) -> None:
    from flows.cli.live.streams import read_service_spec

    path = tmp_path / "live.yaml"
    path.write_text("stale_after_ms: 50.0\nkafka:\n  ticks: [a, b]\n  linger_ms: 7\n")
    found = read_service_spec(path, "other:9", demo=True, stale_after_ms=None)
    assert (found.kafka.ticks, found.kafka.linger_ms) == (("a", "b"), 7)
    assert (found.kafka.bootstrap, found.kafka.fetch_wait_ms) == ("other:9", 20)
    assert found.stale_after_ms == 50.0
    assert read_service_spec(None, None, demo=False).kafka == KafkaSpec()


def test_only_an_approved_version_decides_unless_another_is_named(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    staged(Settings(home=tmp_path / "home").resolved().staging_repository, 1)
    with pytest.raises(ConfigError, match="no version serves") as error:
        tickline("live", "--data", store)
    assert "--version N" in error.value.remedy


def test_without_a_store_the_instruments_must_be_named(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKLINE_MARKET", raising=False)
    with pytest.raises(ConfigError, match="no instruments"):
        tickline("live")


def test_the_engine_in_the_process_follows_a_promotion_and_a_rollback(
    broker: str, desk: Settings, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = ServingRepository(desk.serving_repository)
    serving.publish(staged(desk.staging_repository, 2, threshold=0.75), APPROVAL)
    kafka, ticks = KafkaSpec(bootstrap=broker), messages(store)
    size = len(ticks) // 5
    parts = {1: ticks[: 3 * size], 2: ticks[3 * size : 4 * size], 3: ticks[4 * size :]}
    services: list[Service] = []
    start = Service.__init__

    def keep(self: Service, *arguments: object) -> None:
        start(self, *arguments)  # type: ignore[arg-type]
        services.append(self)

    monkeypatch.setattr(Service, "__init__", keep)
    until = time.monotonic() + 40

    def wait(condition: Callable[[], bool]) -> None:
        while not condition() and time.monotonic() < until:
            time.sleep(0.005)

    def release() -> None:
        """One part of the day under each serving version, then the end."""
        sent = 0
        for place, number in enumerate((1, 2, 1), 1):
            Route(champion=Target(model=MODEL_NAME, version=number)).save(serving.route_file)
            wait(lambda: bool(services) and answering(services[0]) == number)  # noqa: B023
            send(kafka, SOLO, parts[place])
            sent += len(parts[place])
            wait(lambda: services[0].partitions.ledger.ended == sent)  # noqa: B023
        os.kill(os.getpid(), signal.SIGTERM)

    def answering(one: Service) -> int | None:
        assert isinstance(one._model, ServingEngine)
        return one._model._champion.version

    releasing = threading.Thread(target=release)
    releasing.start()
    printed = tickline(
        "live", "--data", store, "--bootstrap", broker, "--demo", "--every-window", "--in-process"
    )
    releasing.join()
    assert "in-process: the engine of version 2 is loaded" in printed
    found = {
        (one.symbol, one.sequence): (one.model_version, one.threshold)
        for one in decided(kafka, 2 * (N - 63))
    }
    for place, part in parts.items():
        wanted = (2, 0.75) if place == 2 else (1, 0.5)
        keys = {(one.symbol, one.sequence) for one in part} & found.keys()
        assert keys
        assert {found[key] for key in keys} == {wanted}
