"""Services in the foreground, as a service manager runs them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from flows.cli.__main__ import app
from infra import stack, stack_state
from infra.servers import HOST, ServerError, free_port, healthy, running_server
from infra.systemd.foreground import notify, run
from infra.triton import daemon
from infra.triton.server import Ports
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from tests.support import serving

PROGRAM = """
import sys
from infra.systemd.foreground import run
from model_code.settings import Settings
ports = dict(zip(sys.argv[2::2], map(int, sys.argv[3::2]), strict=True))
sys.exit(run(Settings().resolved(), sys.argv[1], ports))
"""


class Manager:
    """Stands for systemd: reads what a service says."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(1.0)

    def read(self) -> list[str]:
        """What has been said since, waiting a second at most."""
        try:
            return self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return []

    def until(self, wanted: str, alive: Callable[[], bool], seconds: float = 240) -> list[str]:
        """Everything said up to a line."""
        said: list[str] = []
        deadline = time.monotonic() + seconds
        while wanted not in said:
            assert time.monotonic() < deadline, said
            assert alive(), said
            said += self.read()
        return said

    def rest(self) -> list[str]:
        """Everything that is left of a service that has ended."""
        said: list[str] = []
        while lines := self.read():
            said += lines
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@contextmanager
def started(
    settings: Settings, manager: Manager, name: str, ports: dict[str, int]
) -> Iterator[subprocess.Popen[bytes]]:
    given = [str(word) for pair in ports.items() for word in pair]
    variables = os.environ | {"TICKLINE_HOME": str(settings.home), "NOTIFY_SOCKET": manager.address}
    variables["TICKLINE_TRITON"] = str(settings.triton_home)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, name, *given], env=variables, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
        assert not any(child.is_running() for child in children)


@pytest.mark.servers
def test_triton_is_ready_when_its_versions_answer_and_comes_back_after_a_kill(
    tmp_path: Path, triton_home: Path, manager: Manager
) -> None:
    """As after a reboot: what waits for it finds every approved version loaded and proven."""
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    place = ServingRepository(settings.serving_repository)
    folder = serving.staged(settings.staging_repository, 1)
    place.publish(folder, serving.APPROVAL)
    place.arrange([1])
    free = Ports.free()
    ports = {"triton": free.http, "triton-grpc": free.grpc, "triton-metrics": free.metrics}
    with started(settings, manager, "triton", ports) as process:
        said = manager.until("READY=1", lambda: process.poll() is None)
        assert "STATUS=triton is starting" in said
        assert "STATUS=triton is up" in said
        assert said.count("READY=1") == 1
        server = daemon.status(settings)
        assert server is not None
        with server.client() as client:
            answer = client.predict(serving.windows())
        np.testing.assert_allclose(answer, serving.logits(1), atol=1e-4)
        assert stack_state.managed(settings) == ("triton",)
        os.kill(server.pid, signal.SIGKILL)
        said = manager.until("STATUS=triton is up", lambda: process.poll() is None)
        assert "READY=1" not in said
        assert "WATCHDOG=1" in said
    assert "STOPPING=1" in manager.rest()
    assert stack_state.managed(settings) == ()


@pytest.mark.servers
def test_prefect_is_found_by_the_homes_commands_and_nothing_starts_it_twice(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    settings, port = Settings(home=tmp_path / "home"), free_port()
    with started(settings, manager, "prefect", {"prefect": port}) as process:
        manager.until("READY=1", lambda: process.poll() is None)
        assert healthy(f"http://{HOST}:{port}/api/health")
        assert running_server(settings) == f"http://{HOST}:{port}/api"
        with pytest.raises(ServerError, match="another process of this home already runs prefect"):
            run(settings, "prefect", {"prefect": free_port()})
        with pytest.raises(ServerError, match="a service manager already runs prefect"):
            stack.up(settings, triton=False, extra=(), say=print)
        shown = CliRunner().invoke(app, ["status"], env={"TICKLINE_HOME": str(settings.home)})
        assert "a service manager runs prefect" in shown.output
        assert shown.exit_code == 1, "it does not know how they are"
    assert running_server(settings) is None


def test_a_service_that_never_comes_up_ends_so_that_the_manager_sees_it(
    tmp_path: Path, manager: Manager
) -> None:
    settings = Settings(home=tmp_path / "home")
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        variables = {"TICKLINE_HOME": str(settings.home), "NOTIFY_SOCKET": manager.address}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "prefect", "prefect", str(port)],
            env=os.environ | variables,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    assert done.returncode == 1
    said = manager.rest()
    assert "READY=1" not in said
    assert "STATUS=prefect is starting" in said


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no service named 'kafka'"):
        run(Settings(home=tmp_path), "kafka")


def test_without_a_service_manager_nothing_is_said_and_an_abstract_socket_is_known() -> None:
    notify("", "READY=1")
    name = f"tickline-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        notify("@" + name, "READY=1", "STATUS=up")
        assert listening.recv(100) == b"READY=1\nSTATUS=up"
