import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from infra.servers import HOST, ServerError
from infra.triton import daemon
from infra.triton.server import Ports
from model_code.errors import IntegrityError, PromotionError
from model_code.models.probability import probability
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tests.support import serving as builders_serving


@pytest.fixture
def settings(tmp_path: Path, triton_home: Path) -> Iterator[Settings]:
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    yield settings
    daemon.down(settings)


def approved(settings: Settings, *versions: int) -> ServingRepository:
    """A serving repository as after promotions."""
    place = ServingRepository(settings.serving_repository)
    for version in versions:
        folder = builders_serving.staged(settings.staging_repository, version)
        place.publish(folder, builders_serving.APPROVAL)
    place.arrange(versions)
    return place


def environment(settings: Settings) -> dict[str, str]:
    return {"TICKLINE_HOME": str(settings.home), "TICKLINE_TRITON": str(settings.triton)}


def test_up_serves_the_repository_until_down(settings: Settings) -> None:
    assert daemon.status(settings) is None
    place = approved(settings, 1)
    server = daemon.up(settings, Ports.free())
    assert daemon.status(settings) == server
    assert daemon.up(settings, Ports.free()) == server, "a second one must not be started"
    assert daemon.serving_url(settings) == server.grpc_url
    x_NTF = builders_serving.windows()
    with server.client() as client:
        np.testing.assert_allclose(client.predict(x_NTF), builders_serving.logits(1), atol=1e-4)

    windows = settings.home / "windows.npy"
    np.save(windows, x_NTF)
    runner, variables = CliRunner(), environment(settings)
    asked = runner.invoke(app, ["predict", str(windows), "--last", "3"], env=variables)
    assert asked.exit_code == 0, asked.output
    assert "version 1" in asked.output
    assert "route" not in asked.output  # no route before the first promotion
    table = settings.home / "p.csv"
    seen = runner.invoke(app, ["predict", "simulated:", "-o", str(table)], env=variables)
    assert seen.exit_code == 0, seen.output
    assert len(table.read_text().splitlines()) == 11
    assert place.versions() == (1,)
    said = runner.invoke(app, ["triton", "status"], env=variables)
    assert "READY" in said.output

    assert daemon.down(settings)
    assert not psutil.pid_exists(server.pid)
    assert daemon.status(settings) is None
    assert not daemon.down(settings)
    with pytest.raises(ServerError, match="no Triton server is running"):
        daemon.serving_url(settings)


def test_predict_follows_the_route_unless_a_version_is_given(settings: Settings) -> None:
    place = approved(settings, 1, 2)
    server = daemon.up(settings, Ports.free())
    windows = settings.home / "windows.npy"
    np.save(windows, builders_serving.windows())
    table = settings.home / "p.csv"

    def ask(*arguments: str) -> tuple[str, list[float]]:
        command = ["predict", str(windows), "--last", "64", "-o", str(table), *arguments]
        done = CliRunner().invoke(app, command, env=environment(settings))
        assert done.exit_code == 0, done.output
        lines = table.read_text().splitlines()[1:]
        return " ".join(done.output.split()), [float(line.split(",")[1]) for line in lines]

    def right(version: int) -> list[float]:
        found: list[float] = probability(builders_serving.logits(version)).tolist()
        return found

    said, p = ask()
    assert "version 2" in said, "the newest, if there is no route"
    Route(champion=Target(model=MODEL_NAME, version=1)).save(place.route_file)
    said, p = ask()
    assert "financial_predictor, version 1, yes from 0.5, from the route file" in said
    np.testing.assert_allclose(p, right(1), atol=1e-4)
    said, p = ask("--version", "2")
    assert "version 2" in said
    assert "route" not in said
    np.testing.assert_allclose(p, right(2), atol=1e-4)
    Route().save(place.route_file)  # a first promotion was undone
    with pytest.raises(PromotionError, match="no version serves yet"):
        CliRunner().invoke(
            app, ["predict", str(windows)], env=environment(settings), catch_exceptions=False
        )
    assert daemon.status(settings) == server


@pytest.mark.parametrize("how", ["tampered", "never approved"])
def test_up_does_not_load_an_unapproved_version(settings: Settings, how: str) -> None:
    place = approved(settings, 1)
    if how == "tampered":
        # a valid graph with other outputs: only its hash shows the change
        builders_serving.write_graph(place.folder(1) / "model.onnx", builders_serving.weights(77))
    else:
        folder = builders_serving.staged(settings.staging_repository, 2)
        shutil.copytree(folder, place.home / "2")
    with pytest.raises(IntegrityError, match=r"not the one that was built|was never approved"):
        daemon.up(settings, Ports.free())
    server = daemon.status(settings)
    assert server is not None, "it runs on, for a rollback"
    with server.client() as client:
        assert client.versions() == []


def test_a_killed_server_is_not_reported_as_running(settings: Settings) -> None:
    server = daemon.up(settings, Ports.free())
    os.kill(server.pid, signal.SIGKILL)
    psutil.Process(server.pid).wait(10)
    assert daemon.status(settings) is None
    again = daemon.up(settings, Ports.free())
    assert again.pid != server.pid
    record = settings.home / "triton" / "server.json"
    state = json.loads(record.read_text())
    record.write_text(json.dumps(state | {"started": state["started"] - 1}))
    assert daemon.status(settings) is None, "the pid now belongs to another process"
    record.write_text(json.dumps(state))


def test_a_taken_port_is_reported_before_anything_starts(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"):
            daemon.up(settings, replace(Ports.free(), grpc=port))
    assert daemon.status(settings) is None


def test_a_configured_server_is_used_unchanged(tmp_path: Path) -> None:
    assert daemon.serving_url(Settings(home=tmp_path, triton_url="far:8001")) == "far:8001"


@pytest.mark.parametrize("record", ["", "{}", "not json"])
def test_a_broken_record_is_not_a_server(tmp_path: Path, record: str) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "server.json").write_text(record)
    assert daemon.status(Settings(home=tmp_path)) is None
    assert not daemon.down(Settings(home=tmp_path))
