"""Embedded servers: Prefect's (one for as long as it is needed) and, for people, MLflow's.

A nightly needs a real Prefect server: the in-process one loses task records when it stops. One
that already runs is used; otherwise one is started on a free port and stopped afterwards.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from infra import auth
from model_code.artifacts import atomic_file
from model_code.errors import TicklineError
from model_code.settings import Settings

HOST = "127.0.0.1"  # loopback unless a person decides otherwise
PREFECT_PORT = 4200
MLFLOW_PORT = 5000
START_TIMEOUT_S = 120

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "GIT_PYTHON_REFRESH": "quiet",
}


class ServerError(TicklineError):
    """A server did not start or does not answer."""


def environment(settings: Settings) -> dict[str, str]:
    """Environment of every process that runs flows, to be set before Prefect is imported."""
    values = {
        **QUIET,
        "TICKLINE_HOME": str(settings.home),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(settings.home / "results"),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }
    if settings.prefect_api_url:
        values["PREFECT_API_URL"] = settings.prefect_api_url
    return values | auth.client_environment(settings)


@contextmanager
def prefect_server(settings: Settings) -> Iterator[str]:
    """Yield the API URL of a Prefect server, started here unless one answers already.

    Raises:
        ServerError: the configured server does not answer, or ours does not start.
    """
    configured = settings.prefect_api_url or os.environ.get("PREFECT_API_URL")
    if configured:
        if not healthy(f"{configured}/health"):
            raise ServerError(
                "the configured Prefect server does not answer",
                where=configured,
                remedy="start it, or unset TICKLINE_PREFECT_API_URL and PREFECT_API_URL "
                "to use an embedded one",
            )
        yield configured
        return
    running = running_server(settings)
    if running:
        yield running
        return
    port = free_port()
    with started(
        "prefect-server",
        [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)],
        f"http://{HOST}:{port}/api/health",
        settings,
        auth.server_environment(settings),
    ):
        record = settings.home / "prefect-server.json"
        url = f"http://{HOST}:{port}/api"
        with atomic_file(record) as temporary:
            temporary.write_text(json.dumps({"url": url, "owner": os.getpid()}))
        try:
            yield url
        finally:
            record.unlink(missing_ok=True)


def running_server(settings: Settings) -> str | None:
    """URL of the embedded server another live process of this home started, if it answers."""
    record = settings.home / "prefect-server.json"
    try:
        found = json.loads(record.read_text())
        url, owner = str(found["url"]), int(found["owner"])
    except (OSError, ValueError, KeyError):
        return None
    return url if psutil.pid_exists(owner) and healthy(f"{url}/health") else None


@contextmanager
def started(
    name: str,
    command: list[str],
    health: str,
    settings: Settings,
    variables: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server for the length of the block; its log is `<home>/logs/<name>.log`.

    Yields the pid of its keeper, whose child it is. Both die with this process, even by SIGKILL
    (a watchdog pipe), so no orphan is left behind.

    Raises:
        ServerError: it exits or does not answer in time; the end of its log is in the message.
    """
    log = settings.home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.leash", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment(settings) | dict(variables or {}),
            start_new_session=True,
        )
    try:
        _await(process, health, name, log)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdin:
            process.stdin.close()


class _NotReadyError(Exception):
    pass


def _await(process: subprocess.Popen[bytes], health: str, name: str, log: Path) -> None:
    @retry(
        retry=retry_if_exception_type(_NotReadyError),
        stop=stop_after_delay(START_TIMEOUT_S),
        wait=wait_fixed(0.25),
        reraise=True,
    )
    def answer() -> None:
        if process.poll() is None and not healthy(health):
            raise _NotReadyError

    try:
        answer()
    except _NotReadyError:
        reason = f"did not answer within {START_TIMEOUT_S} s"
    else:
        if process.poll() is None:
            return
        reason = f"exited with status {process.returncode}"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise ServerError(f"{name} {reason}:\n{tail}", where=str(log), remedy="read its log")


def healthy(url: str) -> bool:
    """Whether a GET of the URL answers 200."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A TCP port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
