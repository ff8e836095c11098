"""Servers that go away in the middle of a night and come back."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.servers import HOST, free_port, healthy
from infra.servers import environment as environment_of
from model_code.settings import Settings
from tests.chaos.harness import TIMEOUT_S, Home, Row


class Server:
    """A server on a port of its own that can be killed and started again."""

    def __init__(self, home: Path, command: list[str], health: str) -> None:
        self.home, self.command, self.health = home, command, health
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import os

        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "infra.exit_with_parent",
                    sys.executable,
                    "-m",
                    *self.command,
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment_of(Settings(home=self.home)),
                start_new_session=True,
            )
        deadline = time.monotonic() + TIMEOUT_S
        while not healthy(self.health):
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        assert self.process.stdin
        self.process.stdin.close()
        self.process = None


@contextmanager
def server(home: Path, *command: str, path: str, port: int) -> Iterator[Server]:
    running = Server(home, list(command), f"http://{HOST}:{port}{path}")
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_mlflow_down_and_back(
    tmp_path: Path, prefect_url: str, undisturbed: Home, table: list[Row]
) -> None:
    port, folder = free_port(), tmp_path / "mlflow"
    command = ["mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with server(folder, *command, path="/health", port=port) as mlflow:
        url = f"http://{HOST}:{port}"
        home = Home.make(tmp_path / "night", prefect_url, mlflow_tracking_uri=url)
        night = home.nightly(("signal", "baseline"))
        reached = home.reached(night)
        mlflow.stop()
        reached.unlink()
        began = time.monotonic()
        time.sleep(5)
        mlflow.start()
        if night.end() != 0:
            home.rerun().succeed()
        took = time.monotonic() - began
        home.compare(undisturbed)
    table.append(Row("MLflow server down for a while", "asked again until it was back", took))


def test_prefect_restarted(tmp_path: Path, undisturbed: Home, table: list[Row]) -> None:
    port = free_port()
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    with server(tmp_path / "prefect", *command, path="/api/health", port=port) as prefect:
        home = Home.make(tmp_path / "night", f"http://{HOST}:{port}/api")
        night = home.nightly(("signal", "baseline"))
        reached = home.reached(night)
        prefect.stop()
        reached.unlink()
        began = time.monotonic()
        time.sleep(3)
        prefect.start()
        ended = night.end()
        if ended != 0:
            home.rerun().succeed()
        took = time.monotonic() - began
        home.compare(undisturbed)
    happened = "the night went through" if ended == 0 else "the run ended; the rerun went through"
    table.append(Row("Prefect server restarted", happened, took))
