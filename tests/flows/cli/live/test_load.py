"""`tickline load`: against a service on a broker in memory, and in this process."""

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flows.cli.live import load
from flows.cli.live.streams import read_service_spec
from flows.runs.live import Desk
from infra.live.kafka.clients import create_topics
from infra.live.model import InProcess
from infra.live.service import Service
from infra.live.spec import ServiceSpec
from model_code.errors import ConfigError
from model_code.live.tick_times import STAGES, TickTimes
from model_code.settings import Settings
from tests.support.broker import demo_broker
from tests.support.cli import tickline
from tests.support.live import StepPredictor
from tests.support.market import hive
from tests.support.serving import staged


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a staged version."""
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(load.out, "width", 80)
    found = Settings(home=tmp_path / "home").resolved()
    staged(found.staging_repository, 1)
    return found


@pytest.fixture
def store(tmp_path: Path) -> str:
    return hive(tmp_path / "store", n=120)


@contextmanager
def service(desk: Desk, spec: ServiceSpec, home: Path) -> Iterator[None]:
    """The service in a thread, with an engine of its own process."""
    create_topics(spec.kafka, [*spec.kafka.ticks, spec.kafka.decisions])
    loop = asyncio.new_event_loop()
    made = Service(spec, desk.groups, desk.path, InProcess(StepPredictor()), home, print)
    thread = threading.Thread(target=lambda: loop.run_until_complete(made.run()))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(made.stop)
        thread.join()
        loop.close()


def test_a_rate_is_measured_through_broker_and_service(
    settings: Settings, store: str, tmp_path: Path
) -> None:
    with demo_broker(tmp_path / "broker") as bootstrap:
        spec = read_service_spec(None, bootstrap, demo=True)
        desk = Desk.open(settings, spec, store, None, 1)
        with service(desk, spec, settings.home / "live"):
            printed = tickline(
                "load", "--data", store, "--bootstrap", bootstrap, "--demo", "--rate", 100,
                "--seconds", 2, "--burst", 2, "--process", f"broker={os.getpid()}",
            )  # fmt: skip
    assert re.search(r" busy 100 2 \d+ \d+ ", printed)
    assert int(re.search(r"decisions: (\d+) in-process", printed)[1]) > 50  # type: ignore[index]
    assert re.search(r"processor time per tick, us: load [\d,]+, broker [\d,]+", printed)
    for stage in STAGES:
        assert f" {stage} " in printed
    assert re.search(r"(sustained 100 ticks/s|sustained none of the rates), p99 ", printed)


def test_without_broker_and_server_the_highest_rate_is_found(
    settings: Settings, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "MOST_RATE", 100.0)
    monkeypatch.setattr(load, "DIRECT_P99_MS", 1e6)
    printed = tickline("load", "--data", store, "--direct", "--find", "--rate", 50, "--seconds", 1)
    assert "direct, in process: sustained 100 ticks/s, p99 " in printed
    assert re.search(r" busy 50 1 .* 100 1 ", printed)


def test_the_processes_are_those_named_or_those_of_the_stack(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load._processes(settings, ["broker=17"]) == {"load": os.getpid(), "broker": 17}
    assert load._processes(settings, None) == {"load": os.getpid()}
    found = [SimpleNamespace(name="redis", pid=23), SimpleNamespace(name="worker", pid=None)]
    monkeypatch.setattr("infra.stack_state.read", lambda _: SimpleNamespace(services=found))
    assert load._processes(settings, None) == {"load": os.getpid(), "redis": 23}
    with pytest.raises(ConfigError, match="--process is 'broker', expected NAME=PID"):
        load._processes(settings, ["broker"])


def test_long_times_need_no_decimals_and_idle_processors_are_unknown() -> None:
    times_NS = np.tile(np.arange(1, 8, dtype=np.int64) * 10**7, (3, 1))
    found = TickTimes(
        rate=5.0,
        seconds=1.0,
        ticks=5,
        quotes=4,
        stage_NS=times_NS,
        sent_late_N=np.zeros(0, np.int64),
    )
    assert load.cells(found) == ["5", "1", "4", "3", "280", "280", "280", "150", "–"]
    assert load.notes(found) == ["decisions: none"]
