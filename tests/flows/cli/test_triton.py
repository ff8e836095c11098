"""`tickline triton up`, `status`, `logs`, `down` with the real server."""

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from flows.cli import triton
from infra.servers import HOST, ServerError, healthy
from infra.triton import daemon
from infra.triton.server import Ports
from model_code.errors import ConfigError
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, Settings
from tests.support.blends import BlendRepository, register, stage_blend
from tests.support.cli import listening, running, tickline
from tests.support.serving import APPROVAL, logits, staged, windows


@pytest.fixture
def approved(
    tmp_path: Path, triton_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of a home folder with one approved version and no server."""
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    monkeypatch.setenv("TICKLINE_HOME", str(settings.home))
    monkeypatch.setenv("TICKLINE_TRITON", str(triton_home))
    monkeypatch.setattr(triton.out, "width", 200)  # no cell is cut off
    repository = ServingRepository(settings.serving_repository)
    repository.publish(staged(settings.staging_repository, 1), APPROVAL)
    repository.arrange((1,))
    yield settings
    daemon.down(settings)


def answered(table: str) -> tuple[int, int]:
    """Requests and failures of version 1 in the printed table."""
    found = re.search(rf"{MODEL_NAME} 1 READY (\d+) (\d+) ", table)
    assert found, table
    return int(found[1]), int(found[2])


def test_the_server_is_started_watched_and_stopped(approved: Settings, tmp_path: Path) -> None:
    ports = Ports.free()
    options = (
        "--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics
    )  # fmt: skip
    printed = tickline("triton", "up", *options)
    server = daemon.status(approved)
    assert server is not None
    assert str(server.pid) in printed
    before, failed = answered(printed)
    assert failed == 0
    taken = {(HOST, port) for port in (ports.http, ports.grpc, ports.metrics)}
    assert listening(server.pid) == taken
    assert "READY" in tickline("triton", "up", *options)
    assert daemon.status(approved) == server  # the same process

    with TritonClient(f"{HOST}:{ports.grpc}") as client:
        for _ in range(3):
            np.testing.assert_allclose(client.predict(windows()), logits(1), atol=1e-4)
    counted, failed = answered(tickline("triton", "status"))
    assert counted >= before + 3  # and the keeper's golden requests
    assert failed == 0

    written = server.log.read_text().splitlines()
    with running(tmp_path / "printed", "triton", "logs", "-n", "2", "--follow") as follower:
        follower.until(lambda: follower.lines)
        with server.log.open("a") as log:
            log.write("one more line\n")
        follower.until(lambda: "one more line" in follower.lines)
        assert follower.lines == [*written[-2:], "one more line"]
        assert follower.interrupt() == -signal.SIGINT  # it has become `tail`

    assert "stopped" in tickline("triton", "down")
    assert not psutil.pid_exists(server.pid)
    assert not healthy(f"{server.http_url}/v2/health/live")
    assert "stopped" not in tickline("triton", "down")
    with pytest.raises(ServerError, match="no Triton server"):
        tickline("triton", "status")


@pytest.fixture
def desk(
    tmp_path: Path, mlflow_template: Path, triton_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings of a home folder with an empty registry."""
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TICKLINE_TRITON", str(triton_home))
    monkeypatch.setattr(triton.out, "width", 200)
    settings = Settings(home=tmp_path / "home", triton=triton_home).resolved()
    settings.home.mkdir()
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")
    return settings


def test_a_staged_blend_becomes_an_ensemble(
    desk: Settings, blend_repository: BlendRepository, tmp_path: Path
) -> None:
    run_id = register(desk, blend_repository.model)
    stage_blend(desk, blend_repository, 1, run_id)
    out = tmp_path / "ensemble"
    printed = tickline("triton", "ensemble", "--out", out)
    assert "Version 1 as an ensemble" in printed
    assert re.search(rf"{MODEL_NAME}_mlp 0\.300 \d+\.\d\d {MODEL_NAME}_trees 0\.700", printed)
    assert "logits as the single graph's on 32 windows" in printed
    parts = ("ensemble", "mlp", "sum", "trees")
    assert sorted(path.name for path in out.iterdir()) == [f"{MODEL_NAME}_{name}" for name in parts]
    with pytest.raises(ConfigError, match="the folder exists"):
        tickline("triton", "ensemble", "--out", out)


def test_the_log_of_a_server_that_never_ran_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path))
    monkeypatch.setattr(triton.out, "width", 400)  # no path is folded
    assert str(tmp_path / "logs" / "triton.log") in tickline("triton", "logs")
