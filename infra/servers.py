"""Embedded servers: Prefect's, for as long as it is needed, and MLflow's.

A nightly run needs a real Prefect server: the in-process one loses task records when it stops. A
running server is used; otherwise one is started on a free port and stopped afterwards.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from infra import auth
from infra.exit_with_parent import kill_tree, launcher
from infra.home.moved import identity, is_own
from infra.process import ProcessId
from infra.proxies import by_proxy, without_loopback
from model_code.artifacts import DISK_FULL_MESSAGES, atomic_file, storage_error
from model_code.errors import ConfigError, StorageError, TicklineError
from model_code.settings import Settings

HOST = "127.0.0.1"  # loopback by default
START_TIMEOUT_S = 120
LOG_LINES = 200  # of the newest attempt to start, a traceback included
LEAST_BYTES = 1 << 20  # with less free no server starts
OTHER_SCHEMA = re.compile(r"found version (\w+), but expected \w+")
RESTART_WAIT_S = 30
PROBE_S = 2.0
BUSY_S = 15.0  # a busy server may take this long to respond to a health check

# in memory, the default, a restarted server has forgotten them and stops their holders
LEASES_ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # V2 asks amplitude.com, whatever the line above
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prefect_command(port: int, host: str = HOST) -> list[str]:
    """Command line of a Prefect server on this address."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]


def mlflow_command(settings: Settings, port: int, host: str = HOST) -> list[str]:
    """Command line of an MLflow server on this address, over this home's tracking store."""
    server = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    store = ["--workers", "1", "--backend-store-uri", settings.tracking_uri]
    return [*server, *store, *auth.mlflow_options(settings)]


def worker_command(pool: str, queues: Sequence[str] = ()) -> list[str]:
    """Command line of a Prefect process worker of a pool's queues; without any: of all."""
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process"]
    polled = [part for name in queues for part in ("--work-queue", name)]
    return [*worker, "--pool", pool, *polled]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    url: str
    owner: ProcessId
    home: str = ""  # `identity` of the home folder


class ServerError(TicklineError):
    """A server did not start or does not respond."""


def environment(settings: Settings) -> dict[str, str]:
    """Environment of every process that runs flows, to be set before Prefect is imported."""
    values = {
        **QUIET,
        **_changed_settings(settings),
        "TICKLINE_HOME": str(settings.home),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(settings.home / "results"),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        **without_loopback(os.environ),
    }
    if settings.prefect_api_url:
        values["PREFECT_API_URL"] = settings.prefect_api_url
    else:  # it may start a server
        values["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] = LEASES_ON_DISK
    return values | auth.client_environment(settings)


def _changed_settings(settings: Settings) -> dict[str, str]:
    """Settings that differ from their defaults, whatever their source.

    A process with another working directory does not read the `.env` of this one.
    """
    found = {}
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value == field.default or isinstance(value, SecretStr):  # passed by infra.auth
            continue
        if isinstance(value, Path):
            value = value.expanduser().resolve()
        text = str(value)
        if isinstance(value, Mapping):
            text = json.dumps({key: one.absolute() for key, one in value.items()})
        found[f"TICKLINE_{name.upper()}"] = text
    return found


@contextmanager
def prefect_server(settings: Settings) -> Iterator[str]:
    """Yield the API URL of a Prefect server, started here unless one is running.

    Raises:
        ServerError: the configured server does not respond, or the embedded one does not start.
    """
    configured = settings.prefect_api_url or os.environ.get("PREFECT_API_URL")
    if configured:
        if not healthy(f"{configured}/health", timeout_s=BUSY_S):
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
        prefect_command(port),
        f"http://{HOST}:{port}/api/health",
        settings,
        auth.server_environment(settings),
    ):
        url = f"http://{HOST}:{port}/api"
        record_server(settings, url)
        try:
            yield url
        finally:
            remove_server_record(settings)


def record_server(settings: Settings, url: str) -> None:
    """Record a Prefect server run by this process, for the other processes of this home."""
    record = _Record(url=url, owner=ProcessId.own(), home=identity(settings))
    with atomic_file(_record(settings)) as temporary:
        temporary.write_text(record.model_dump_json())


def remove_server_record(settings: Settings) -> None:
    """Delete the record if it belongs to this process."""
    found = _recorded(settings)
    if found and found.owner == ProcessId.own():
        _record(settings).unlink(missing_ok=True)


def running_server(settings: Settings, *, wait_s: float = RESTART_WAIT_S) -> str | None:
    """URL of the Prefect server that another live process of this home runs, if it responds.

    Waits for a server that is being restarted.
    """
    found = _recorded(settings)
    if found is None:
        return None
    deadline = time.monotonic() + wait_s
    while found.owner.lives:
        if healthy(f"{found.url}/health"):
            return found.url
        if time.monotonic() > deadline:
            return None
        time.sleep(0.5)
    return None


def _record(settings: Settings) -> Path:
    return settings.home / "prefect-server.json"


def _recorded(settings: Settings) -> _Record | None:
    try:
        found = _Record.model_validate_json(_record(settings).read_bytes())
        return found if is_own(settings, found.home) else None
    except (OSError, ValidationError):
        return None


@contextmanager
def started(
    name: str,
    command: list[str],
    health: str,
    settings: Settings,
    variables: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server during the block; its log is `<home>/logs/<name>.log`.

    Yields the pid of its launcher, whose child it is. Both end with this process, even by SIGKILL
    (a watchdog pipe), so no orphan is left behind.

    Raises:
        ServerError: it exits or does not respond in time; the end of its log is in the message.
    """
    log = settings.home / "logs" / f"{name}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    except OSError as error:
        raise storage_error(error, log) from error
    with output:
        process = subprocess.Popen(
            [*launcher(), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment(settings) | dict(variables or {}),
            start_new_session=True,
        )
    try:
        _await(process, health, settings, name, log)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            kill_tree(psutil.Process(process.pid))
            process.wait()
        if process.stdin:
            process.stdin.close()


class _NotReadyError(Exception):
    pass


def _await(
    process: subprocess.Popen[bytes], health: str, settings: Settings, name: str, log: Path
) -> None:
    @retry(
        retry=retry_if_exception_type(_NotReadyError),
        stop=stop_after_delay(START_TIMEOUT_S),
        wait=wait_fixed(0.25),
        reraise=True,
    )
    def probe() -> None:
        if process.poll() is None and not healthy(health):
            raise _NotReadyError

    try:
        probe()
    except _NotReadyError:
        reason = f"did not answer within {START_TIMEOUT_S} s"
    else:
        if process.poll() is None:
            return
        reason = f"exited with status {process.returncode}"
    raise start_error(settings, name, reason, log, f"tail -n 100 {log}")


def start_error(
    settings: Settings, name: str, reason: str, log: Path, remedy: str
) -> TicklineError:
    """Say why a server did not start: the cause if it is a known one, else the end of its log.

    Args:
        settings: of its home.
        name: of the server.
        reason: what was seen, e.g. that it exited.
        log: its log.
        remedy: shows more of the log.
    """
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:  # that may be why
        lines = [str(error)]
    text, tail = "\n".join(lines[-LOG_LINES:]), "\n".join(lines[-5:])
    if _disk_full(log.parent, text):
        return StorageError(
            f"{name} cannot start: the disk of its folder is full",
            where=str(log.parent.parent),
            remedy=f"free space, then run the same command again: df -h {log.parent.parent}",
        )
    return database_error(text, settings) or ServerError(
        f"{name} {reason}:\n{tail}", where=str(log), remedy=remedy
    )


def database_error(text: str, settings: Settings) -> ConfigError | None:
    """Say what is wrong with MLflow's database by the text of an error or a log; None: nothing."""
    schema = OTHER_SCHEMA.search(text)
    where, uri = settings.tracking_uri, "$TICKLINE_MLFLOW_TRACKING_URI"
    if settings.mlflow_tracking_uri is None:
        uri = settings.tracking_uri
    elif "@" in where:  # it may hold a password
        where = re.sub("//.*@", "//***@", where)
    if "file is not a database" in text:
        return ConfigError(
            "MLflow's database is damaged, or is no database",
            where=where,
            remedy="put its last copy back; without one move the file away: its runs and "
            "registered versions are lost, what serves is not",
        )
    if schema is None:
        return None
    if _older(schema[1]):
        return ConfigError(
            f"MLflow's database is of an earlier MLflow than {version('mlflow')}",
            where=where,
            remedy=f'tickline down, copy the database, then: mlflow db upgrade "{uri}"',
        )
    return ConfigError(
        f"MLflow's database is of a later MLflow than {version('mlflow')}, which cannot read it",
        where=where,
        remedy="use the Tickline that wrote it, or put an earlier copy of the database back",
    )


def _older(revision: str) -> bool:
    """Whether this MLflow knows the revision, so that it can upgrade a database from it."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store import db_migrations

    try:
        scripts = ScriptDirectory(str(Path(str(db_migrations.__file__)).parent))
        return scripts.get_revision(revision) is not None
    except CommandError:
        return False


def _disk_full(folder: Path, text: str) -> bool:
    """Whether the log says so, or there was no room for the log to say so."""
    if any(message in text for message in DISK_FULL_MESSAGES):
        return True
    try:
        return shutil.disk_usage(folder).free < LEAST_BYTES
    except OSError:
        return False


def healthy(url: str, *, timeout_s: float = PROBE_S) -> bool:
    """Whether a GET of the URL returns 200 in time; a refused connection returns at once."""
    return _status(url, timeout_s) == httpx.codes.OK


def answers(url: str, *, timeout_s: float = PROBE_S) -> bool:
    """Whether a GET of the URL returns anything in time."""
    return _status(url, timeout_s) is not None


def _status(url: str, timeout_s: float) -> int | None:
    try:
        # loading the certificates takes far longer than the request
        verify = url.startswith("https:")
        trusted = by_proxy(url)
        return httpx.get(url, timeout=timeout_s, trust_env=trusted, verify=verify).status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def require_webhook(url: str) -> None:
    """Refuse the address of a webhook that is none; the message does not show it.

    Raises:
        ConfigError: it is no http or https URL.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            "the webhook must be an http or https URL",
            where="TICKLINE_WEBHOOK or --webhook",
            remedy="set it to the address that your chat or pager service gave you",
        )


def free_port() -> int:
    """A TCP port that is currently free."""
    return free_ports(1)[0]


def free_ports(count: int) -> tuple[int, ...]:
    """Several different free TCP ports; each is held until all are found."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return tuple(int(probe.getsockname()[1]) for probe in probes)
