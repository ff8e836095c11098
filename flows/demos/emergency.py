"""Part of the promotion demo: an emergency rollback while MLflow is dead and the lock is held.

`python -m flows.demos.emergency VERSION` is the process that approves, and is taken over from.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import typer

from infra.exit_with_parent import kill_tree
from infra.servers import HOST, free_port, mlflow_command, started
from model_code.errors import TicklineError
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings

NOBODY = f"http://{HOST}:9"
TRACKING = ("TICKLINE_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI")
API = ("TICKLINE_PREFECT_API_URL", "PREFECT_API_URL")
PATIENCE_S = 600.0
Say = Callable[[str], None]


def emergency(settings: Settings, version: int, say: Say) -> None:
    """Kill MLflow in the middle of a version's swap; roll back with Triton and files alone.

    Args:
        settings: of the demo's home.
        version: whose promotion waits for its decision.
        say: prints one line.
    """
    from flows.runs import promotions

    serving = ServingRepository(settings.serving_repository)
    before = serving.route().champion
    assert before is not None, "a version serves"  # noqa: S101
    port, log = free_port(), settings.home / "logs" / "emergency.log"
    address = f"http://{HOST}:{port}"
    with started("mlflow", mlflow_command(settings, port), f"{address}/health", settings) as server:
        process = _approve(version, address, log)
        try:
            _await(process, serving.journal_file.exists, log)
            kill_tree(psutil.Process(server))
            say("MLflow was killed in the middle of the swap")
            _await(process, lambda: serving.route().champion != before, log)
            say(f"version {version} has the requests; process {process.pid} holds the lock")
            say("tickline rollback --emergency, with neither MLflow nor Prefect:")
            command = ["rollback", "--emergency", "--by", "bob", "--reason", "demo: wrong answers"]
            subprocess.run(
                [sys.executable, "-m", "flows.cli", *command],
                env=os.environ | dict.fromkeys((*TRACKING, *API), NOBODY),
                check=True,
            )
            status = process.wait(PATIENCE_S)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if status == 0 or serving.route().champion != before:
        raise typer.Exit(1)
    say("the promotion it took over from has ended; it changed nothing more:")
    say(log.read_text().splitlines()[-1])
    say("MLflow is back: tickline reconcile")
    promotions.level_emergencies(settings, say)


def _approve(version: int, tracking: str, log: Path) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    brief = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4"}  # it tries for half a minute
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.demos.emergency", str(version)],
            env=os.environ | dict.fromkeys(TRACKING, tracking) | brief | {"COLUMNS": "200"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _await(process: "subprocess.Popen[bytes]", ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the promotion did not get to its swap:\n{log.read_text()}")
        time.sleep(0.005)


def main(version: int) -> None:
    """Approve a waiting version as ada, in this process."""
    from flows.demos.promotion import approve

    try:
        approve(Settings().resolved(), version, "demo: the table is sound")
    except TicklineError as error:
        sys.exit(error.what)


if __name__ == "__main__":
    typer.run(main)
