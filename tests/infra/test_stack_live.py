"""`tickline live` in the stack: what it needs, and the real processes under the supervisor."""

import os
import shutil
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client import CollectorRegistry

from infra import services
from infra.live.kafka.clients import DEMO, KafkaSpec
from infra.live.kafka.producer import Outbox
from infra.metrics import serve_registry
from infra.servers import HOST, ServerError, free_port
from infra.services import Plan
from infra.stack_state import log_path, read
from infra.supervisor import Supervisor
from model_code.live.messages import encode
from model_code.live.recorded import Feed, played
from model_code.market.store import open_market
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tests.support.broker import read_all
from tests.support.market import DATES, SYMBOLS, hive
from tests.support.serving import APPROVAL, staged

N = 80
START_S = 300


def desk(home: Path, **changes: object) -> Settings:
    """A home whose version 1 serves."""
    settings = Settings(home=home, **changes).resolved()  # type: ignore[arg-type]
    serving = ServingRepository(settings.serving_repository)
    serving.publish(staged(settings.staging_repository, 1), APPROVAL)
    serving.arrange((1,))
    Route(champion=Target(model=MODEL_NAME, version=1)).save(serving.route_file)
    return settings


def test_live_needs_a_version_and_instruments(tmp_path: Path) -> None:
    empty = Settings(home=tmp_path / "empty")
    with pytest.raises(ServerError, match="no version serves") as error:
        services.choose(empty, triton=False, extra=(), live=True)
    assert "tickline promote" in error.value.remedy
    settings = desk(tmp_path / "home")
    with pytest.raises(ServerError, match="no instruments") as error:
        services.choose(settings, triton=False, extra=(), live=True)
    assert "TICKLINE_MARKET" in error.value.remedy
    known = settings.resolved(market="simulated:")
    with pytest.raises(ServerError, match="no such specification"):
        services.choose(known, triton=False, extra=(), live=True, live_spec=tmp_path / "none.yaml")


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_live_brings_redis_and_a_broker(tmp_path: Path) -> None:
    settings = desk(tmp_path / "home", market="simulated:")
    spec = tmp_path / "live.yaml"
    spec.write_text("stale_after_ms: 50.0\n")
    plan = services.choose(settings, triton=False, extra=(), live=True, live_spec=spec)
    assert plan.names[-3:] == ("redis", "tansu", "live")
    (live,) = services.build(settings, plan.model_copy(update={"names": ("live",)}))
    words = " ".join(live.command)
    assert f"live --bootstrap {HOST}:{plan.ports['tansu']}" in words
    assert f"--redis redis://{HOST}:{plan.ports['redis']}/0" in words
    assert f"--spec {spec}" in words
    assert "--demo" in live.command
    page, metrics = (plan.ports[name] for name in ("live", "live-metrics"))
    assert f"--page {page} --metrics {metrics}" in words
    assert live.address == f"http://{HOST}:{page}, metrics on port {metrics}"
    assert not live.healthy()
    alive = settings.home / "live" / "alive"
    alive.parent.mkdir()
    alive.touch()
    assert not live.healthy()  # nothing responds on the metrics port
    stop = serve_registry(CollectorRegistry(), metrics, HOST, option="--metrics")
    try:
        assert live.healthy()
        os.utime(alive, (0, 0))
        assert not live.healthy()
    finally:
        stop()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_taken_ports_of_the_page_and_the_metrics_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = desk(tmp_path / "home", market="simulated:")
    with socket.socket() as one, socket.socket() as other:
        taken = {"live": one, "live-metrics": other}
        for name, found in taken.items():
            found.bind((HOST, 0))
            found.listen()
            monkeypatch.setitem(services.PORTS, name, found.getsockname()[1])
        plan = services.choose(settings, triton=False, extra=(), live=True)
        assert all(plan.ports[name] != services.PORTS[name] for name in taken)
        assert plan.ports["live"] != plan.ports["live-metrics"]


def shown(port: int) -> int:
    """Decisions that the live page's ledger shows."""
    page = httpx.get(f"http://{HOST}:{port}/api/state", trust_env=False)
    return int(page.json()["ledger"]["columns"]["decided"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_live_decides_in_the_stack(
    tmp_path: Path, triton_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = hive(tmp_path / "store", n=N, dates=DATES[:1])
    settings = desk(tmp_path / "home", market=store, triton=triton_home)
    spec = tmp_path / "live.yaml"
    spec.write_text("every_window: true\nredis: {expire_ms: 60000}\ntriton: {deadline_ms: 5000.0}")
    names = ("triton", "redis", "tansu", "live")
    triton = ("triton-grpc", "triton-metrics")
    ports = {name: free_port() for name in (*names, *triton, "live-metrics")}
    plan = Plan(names=names, ports=ports, live_spec=str(spec))
    stop, keeper = threading.Event(), Supervisor(settings, plan)
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        end = time.monotonic() + START_S
        while not ((state := read(settings)) and state.all_up):
            assert time.monotonic() < end, log_path(settings, "live").read_text()
            time.sleep(0.1)
        kafka = KafkaSpec(bootstrap=f"{HOST}:{ports['tansu']}", **DEMO)
        market, outbox = open_market(store), Outbox(kafka)
        for one in Feed().messages([played(market, day)[0] for day in market.catalog()]):
            assert outbox.send(kafka.ticks[0], one.symbol.encode(), encode(one))
        assert outbox.flush(10)
        wanted = 2 * (N - 63)
        assert len(read_all(kafka, kafka.decisions, wanted)) == wanted
        with redis.Redis(port=ports["redis"]) as client:
            assert client.ping()
        assert f"http://{HOST}:{ports['live']}" in state.services[-1].address
        # The ledger counts a decision after Kafka has it.
        end = time.monotonic() + 30
        while (found := shown(ports["live"])) != wanted:
            assert time.monotonic() < end, f"the page shows {found} decisions, not {wanted}"
            time.sleep(0.1)
        metrics = httpx.get(f"http://{HOST}:{ports['live-metrics']}/metrics", trust_env=False)
        assert "tickline_live_taken_total" in metrics.text
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    log = log_path(settings, "live").read_text()
    assert f"decided {wanted}" in log
    assert "requests: triton" in log
    assert "Redis: " in log
    assert not (settings.home / "live" / "alive").exists()
    assert all(symbol in log for symbol in SYMBOLS)
