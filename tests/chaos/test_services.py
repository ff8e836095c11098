"""Servers that stop during a nightly and come back."""

import os
import re
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
from tests.chaos.harness import TIMEOUT_S, Command, Home, Row

OUTAGE_S = 5.0


class Server:
    """A server on a port of its own that can be stopped and started again."""

    def __init__(self, home: Path, command: list[str], health: str) -> None:
        self.home, self.command, self.health = home, command, health
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        parent = [sys.executable, "-m", "infra.exit_with_parent"]
        with (self.home / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                [*parent, sys.executable, "-m", *self.command],
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


def await_text(command: Command, text: str) -> None:
    """Return when the running command has printed it."""
    deadline = time.monotonic() + TIMEOUT_S
    while text not in command.text:
        assert command.process.poll() is None, command.text
        assert time.monotonic() < deadline, command.text
        time.sleep(0.1)


def end_or_rerun(nightly: Command, home: Home) -> str:
    """Wait for the nightly, and rerun it if it failed. How that went, in words."""
    if nightly.end() == 0:
        assert {run.attempt for run in home.stage_runs()} == {1}
        return "completed, no rerun needed"
    finished = re.findall(r"^ +Completed (.+?)  [\d.]+ s$", nightly.text, re.MULTILINE)
    home.rerun().succeed()
    runs = [run for run in home.stage_runs() if run.attempt == 2]
    cached = [run.name for run in runs if run.state == "Cached"]
    assert cached == finished
    return f"failed, then rerun: {len(cached)} of {len(finished)} finished stages Cached"


def test_mlflow_down_and_back(
    tmp_path: Path,
    prefect_url: str,
    mlflow_template: Path,
    undisturbed: Home,
    table: list[Row],
) -> None:
    port, folder = free_port(), tmp_path / "mlflow"
    command = ["mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with server(folder, *command, path="/health", port=port) as mlflow:
        url = f"http://{HOST}:{port}"
        home = Home.make(tmp_path / "nightly", prefect_url, mlflow_template, mlflow_url=url)
        nightly = home.nightly("pause@baseline")
        paused = home.paused(nightly)
        mlflow.stop()
        paused.unlink()
        began = time.monotonic()
        await_text(nightly, "connection broken")  # it asked, and got no answer
        time.sleep(OUTAGE_S)
        mlflow.start()
        down = time.monotonic() - began
        happened = end_or_rerun(nightly, home)
        took = time.monotonic() - began
        home.compare(undisturbed)
        requests = nightly.text.count("connection broken")
        retries = sum(run.tries - 1 for run in home.stage_runs())
    happened += f"; {requests} requests repeated, {retries} stage retries"
    table.append(Row(f"MLflow server down for {down:.0f} s", happened, took))


def test_prefect_restarted(
    tmp_path: Path, mlflow_template: Path, undisturbed: Home, table: list[Row]
) -> None:
    port = free_port()
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    with server(tmp_path / "prefect", *command, path="/api/health", port=port) as prefect:
        url = f"http://{HOST}:{port}/api"
        home = Home.make(tmp_path / "nightly", url, mlflow_template)
        nightly = home.nightly("pause@baseline")
        paused = home.paused(nightly)
        prefect.stop()
        paused.unlink()
        began = time.monotonic()
        await_text(nightly, "Completed baseline")  # a stage ended, and nobody was told
        prefect.start()
        down = time.monotonic() - began
        happened = end_or_rerun(nightly, home)
        took = time.monotonic() - began
        home.compare(undisturbed)
        runs, order = home.stage_runs(), undisturbed.stage_runs()
    last = max(run.attempt for run in runs)
    ended = [run for run in runs if run.attempt == last and run.state in {"Completed", "Cached"}]
    happened += f"; the server recorded the end of {len(ended)} of {len(order)} stages"
    table.append(Row(f"Prefect server down for {down:.0f} s", happened, took))
