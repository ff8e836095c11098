import asyncio
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from infra import stack_state
from infra.process import ProcessId
from infra.servers import HOST, ServerError
from infra.services import Plan
from infra.stack_state import StackState
from infra.triton import daemon
from infra.triton.serve import silent
from infra.triton.server import Ports
from model_code.errors import IntegrityError, PromotionError
from model_code.models.probability import probability
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.aio import AsyncTritonClient
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


def model_processes(settings: Settings) -> list[psutil.Process]:
    server = daemon.status(settings)
    assert server is not None
    found = psutil.Process(server.pid).children(recursive=True)
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_server_comes_back_with_its_versions(settings: Settings) -> None:
    place = approved(settings, 1, 2)
    Route(champion=Target(model=MODEL_NAME, version=2)).save(place.route_file)
    server = daemon.up(settings, Ports.free())
    os.kill(server.pid, signal.SIGKILL)
    x_NTF = builders_serving.windows()

    async def ask() -> np.ndarray[Any, Any]:
        # the server is away or has its versions, so that a client which waits gets its answer
        async with AsyncTritonClient(server.grpc_url, version=2, attempts=1000) as client:
            return await client.predict(x_NTF, deadline_s=60)

    np.testing.assert_allclose(asyncio.run(ask()), builders_serving.logits(2), atol=1e-4)
    until(lambda: getattr(daemon.status(settings), "pid", server.pid) != server.pid)
    with server.client() as client:
        assert client.versions() == [1, 2]


@pytest.mark.parametrize(("version", "how"), [(1, "kill"), (2, "kill"), (2, "suspend")])
def test_a_version_whose_process_died_is_loaded_again_and_its_neighbour_left_alone(
    settings: Settings, version: int, how: str
) -> None:
    place = approved(settings, 1, 2)
    Route(champion=Target(model=MODEL_NAME, version=2)).save(place.route_file)
    server = daemon.up(settings, Ports.free())
    before = {one.pid for one in model_processes(settings)}
    (dead,) = [
        one
        for one in model_processes(settings)
        if any(f"{MODEL_NAME}/{version}/" in word for word in one.cmdline())
    ]
    getattr(dead, how)()  # Triton would abort when a stopped one continued
    until(lambda: len({one.pid for one in model_processes(settings)} - before) == 1)
    until(lambda: len(model_processes(settings)) == 2)
    with server.client() as client:
        until(lambda: not silent(place, client))
        for number in (1, 2):
            answer = client.predict(builders_serving.windows(), version=number)
            np.testing.assert_allclose(answer, builders_serving.logits(number), atol=1e-4)
    after = {one.pid for one in model_processes(settings)}
    assert (len(before & after), len(after - before)) == (1, 1)
    assert daemon.status(settings) == server, "the server itself was not restarted"
    assert not dead.is_running() or dead.status() == psutil.STATUS_ZOMBIE


def test_a_killed_keeper_takes_its_server_with_it(settings: Settings) -> None:
    server = daemon.up(settings, Ports.free())
    record = settings.home / "triton" / "server.json"
    state = json.loads(record.read_text())
    keeper = state["keeper"]
    record.write_text(json.dumps(state | {"keeper": keeper | {"birth": "1"}}))
    assert daemon.status(settings) is None, "the pid now belongs to another process"
    record.write_text(json.dumps(state))
    assert daemon.status(settings) == server
    psutil.Process(keeper["pid"]).kill()
    until(lambda: not psutil.pid_exists(server.pid))
    assert daemon.status(settings) is None
    again = daemon.up(settings, Ports.free())
    assert again.pid != server.pid


def test_a_server_that_cannot_start_is_an_error_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_require_free", lambda _: None)
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match="does not start") as caught:
            daemon.up(settings, replace(Ports.free(), grpc=port))
    assert "tickline triton logs" in caught.value.remedy
    assert daemon.status(settings) is None
    assert not daemon.down(settings)


def test_the_stacks_server_is_not_stopped_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir()
    daemon.adopt(settings, None, Ports.free())  # this process plays the supervisor
    stack = StackState(supervisor=ProcessId.own(), plan=Plan(names=(), ports={}), services=())
    with monkeypatch.context() as patch:
        patch.setattr(stack_state, "read", lambda _: stack)
        with pytest.raises(ServerError, match="belongs to the stack") as caught:
            daemon.down(settings)
    assert caught.value.remedy.endswith("tickline down")
    (settings.home / "triton" / "server.json").unlink()


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
