import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import builders_serving
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from flows.cli import app
from infra.servers import HOST, ServerError, free_port
from infra.triton import daemon
from infra.triton.engine import lay
from infra.triton.server import Ports
from model_code.serving.client import TritonClient
from model_code.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, triton_home: Path) -> Iterator[Settings]:
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    yield settings
    daemon.down(settings)


def ports() -> Ports:
    return Ports(http=free_port(), grpc=free_port(), metrics=free_port())


def environment(settings: Settings) -> dict[str, str]:
    return {"TICKLINE_HOME": str(settings.home), "TICKLINE_TRITON": str(settings.triton)}


def test_up_serves_what_the_repository_holds_until_down(settings: Settings) -> None:
    assert daemon.status(settings) is None
    folder = settings.home / "engine"
    sidecar = builders_serving.engine(folder, builders_serving.weights(1))
    lay(settings.serving_repository, 1, folder, sidecar)
    server = daemon.up(settings, ports())
    assert daemon.status(settings) == server
    assert daemon.up(settings, ports()) == server, "a second one must not be started"
    assert daemon.serving_url(settings) == server.grpc_url
    x_NTF = builders_serving.windows()
    with TritonClient(server.grpc_url) as client:
        np.testing.assert_allclose(client.predict(x_NTF), builders_serving.logits(1), atol=1e-4)

    windows = settings.home / "windows.npy"
    np.save(windows, x_NTF)
    runner, variables = CliRunner(), environment(settings)
    asked = runner.invoke(app, ["predict", str(windows), "--last", "3"], env=variables)
    assert asked.exit_code == 0, asked.output
    assert "version 1" in asked.output
    scores = str(settings.home / "p.csv")
    seen = runner.invoke(app, ["predict", "simulated:", "-o", scores], env=variables)
    assert seen.exit_code == 0, seen.output
    said = runner.invoke(app, ["triton", "status"], env=variables)
    assert "READY" in said.output

    assert daemon.down(settings)
    assert not psutil.pid_exists(server.pid)
    assert daemon.status(settings) is None
    assert not daemon.down(settings)
    with pytest.raises(ServerError, match="no Triton server is running"):
        daemon.serving_url(settings)


def test_a_killed_server_is_not_taken_for_a_running_one(settings: Settings) -> None:
    server = daemon.up(settings, ports())
    os.kill(server.pid, signal.SIGKILL)
    psutil.Process(server.pid).wait(10)
    assert daemon.status(settings) is None
    again = daemon.up(settings, ports())
    assert again.pid != server.pid
    record = settings.home / "triton" / "server.json"
    state = json.loads(record.read_text())
    record.write_text(json.dumps(state | {"started": state["started"] - 1}))
    assert daemon.status(settings) is None, "the pid now belongs to another process"
    record.write_text(json.dumps(state))


def test_a_taken_port_is_said_before_anything_starts(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"):
            daemon.up(settings, Ports(http=free_port(), grpc=port, metrics=free_port()))
    assert daemon.status(settings) is None


def test_a_configured_server_is_used_as_it_is(tmp_path: Path) -> None:
    assert daemon.serving_url(Settings(home=tmp_path, triton_url="far:8001")) == "far:8001"


@pytest.mark.parametrize("record", ["", "{}", "not json"])
def test_a_broken_record_is_no_server(tmp_path: Path, record: str) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "server.json").write_text(record)
    assert daemon.status(Settings(home=tmp_path)) is None
    assert not daemon.down(Settings(home=tmp_path))
