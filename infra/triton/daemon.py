"""The shared Triton server: up, down, status, address.

Its state file contains pid and start time of the process, so that a stale file or a reused pid is
detected.
"""

import contextlib
import os
import socket
import time
from pathlib import Path

import psutil
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.servers import HOST, ServerError, healthy
from infra.triton.install import install
from infra.triton.server import Ports, TritonServer, command, environment, ready_url, sweep
from model_code.artifacts import atomic_file
from model_code.errors import IntegrityError
from model_code.repository.manifest import Manifest
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, Settings

PORTS = Ports(http=8000, grpc=8001, metrics=8002)
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    pid: int
    started: float  # seconds since the epoch, from the kernel
    http: int
    grpc: int
    metrics: int
    repository: str

    @property
    def ports(self) -> Ports:
        return Ports(http=self.http, grpc=self.grpc, metrics=self.metrics)

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            same = process.create_time() == self.started
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def up(settings: Settings, ports: Ports = PORTS) -> TritonServer:
    """Start the server unless it is running; load the model if the repository has one.

    Raises:
        ServerError: a port is taken, or the server cannot be installed or does not start.
        IntegrityError: a version's bytes are not the approved ones; it was not loaded (the server
            keeps running).
        ServingError: the model does not load (the server keeps running).
    """
    folder = settings.home / "triton"
    folder.mkdir(parents=True, exist_ok=True)
    installation = install(settings)
    repository = settings.serving_repository
    repository.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        server = status(settings)
        if server is None:
            _require_free(ports)
            log = _log(settings)
            log.parent.mkdir(parents=True, exist_ok=True)
            pid = _spawn(command(installation, repository, ports), environment(installation), log)
            _await(pid, ports, log)
            _save_state(settings, pid, ports, repository)
            server = TritonServer.at(pid, ports, repository, log)
    _load(server)
    return server


def adopt(settings: Settings, pid: int, ports: Ports) -> None:
    """Register a server started by the supervisor as this home's server, and load its model.

    Raises:
        IntegrityError: a version's bytes are not the approved ones; it was not loaded.
        ServingError: the model does not load (the server keeps running).
    """
    (settings.home / "triton").mkdir(parents=True, exist_ok=True)
    _save_state(settings, pid, ports, settings.serving_repository)
    _load(TritonServer.at(pid, ports, settings.serving_repository, _log(settings)))


def down(settings: Settings) -> bool:
    """Stop the server and wait until it has exited; False if none was running."""
    folder = settings.home / "triton"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        state = _state(settings)
        _record(settings).unlink(missing_ok=True)
        if state is None:
            return False
        running = state.alive()
        if running:
            _stop(psutil.Process(state.pid))
        sweep(state.ports)
        return running


def status(settings: Settings) -> TritonServer | None:
    """The server that `up` started for this home, or None if it is not running."""
    state = _state(settings)
    if state is None or not state.alive():
        return None
    return TritonServer.at(state.pid, state.ports, Path(state.repository), _log(settings))


def serving_url(settings: Settings) -> str:
    """The serving address as host:port: the configured one, the first target, or that of `up`.

    Raises:
        ServerError: none is configured or running.
    """
    if settings.triton_url:
        return settings.triton_url
    if settings.targets:
        return next(iter(settings.targets.values())).url
    server = status(settings)
    if server is None:
        raise ServerError(
            "no Triton server is running",
            where=str(_record(settings)),
            remedy="start one: tickline triton up, or configure one: TICKLINE_TRITON_URL=host:8001",
        )
    return server.grpc_url


def _save_state(settings: Settings, pid: int, ports: Ports, repository: Path) -> None:
    state = _State(
        pid=pid,
        started=psutil.Process(pid).create_time(),
        http=ports.http,
        grpc=ports.grpc,
        metrics=ports.metrics,
        repository=str(repository),
    )
    with atomic_file(_record(settings)) as temporary:
        temporary.write_text(state.model_dump_json())


def _load(server: TritonServer) -> None:
    if (server.repository / MODEL_NAME).is_dir():
        with TritonClient(server.grpc_url) as client:
            if not client.versions(MODEL_NAME):
                _require_approved(server.repository / MODEL_NAME)
                client.load(MODEL_NAME)


def _require_approved(home: Path) -> None:
    """Check that every version on disk is unchanged and approved; Triton is about to read it."""
    for folder in sorted(home.iterdir()):
        if folder.name.isdecimal() and Manifest.load(folder).approval is None:
            raise IntegrityError(
                f"version {folder.name} in the serving repository was never approved",
                where=str(folder),
                remedy="only a promotion may add versions: move it away, then tickline triton up",
            )


def _record(settings: Settings) -> Path:
    return settings.home / "triton" / "server.json"


def _log(settings: Settings) -> Path:
    return settings.home / "logs" / "triton.log"


def _state(settings: Settings) -> _State | None:
    try:
        return _State.model_validate_json(_record(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def _require_free(ports: Ports) -> None:
    for port in (ports.http, ports.grpc, ports.metrics):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise ServerError(
                    f"port {port} is taken",
                    where=f"{HOST}:{port}",
                    remedy="stop the process that uses it, or choose another port: "
                    "tickline triton up --grpc-port ...",
                ) from error


def _spawn(argv: list[str], variables: dict[str, str], log: Path) -> int:
    # not subprocess, which expects its children to end before their parent
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        argv[0],
        argv,
        os.environ | variables,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _await(pid: int, ports: Ports, log: Path) -> None:
    deadline, process = time.monotonic() + START_TIMEOUT_S, psutil.Process(pid)
    while (alive := process.status() != psutil.STATUS_ZOMBIE) and time.monotonic() < deadline:
        if healthy(ready_url(ports)):
            return
        time.sleep(0.1)
    process.kill()
    status = process.wait()
    sweep(ports)
    reason = "did not answer in time" if alive else f"exited with status {status}"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise ServerError(f"the Triton server {reason}:\n{tail}", where=str(log))


def _stop(process: psutil.Process) -> None:
    stubs = process.children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    for stub in stubs:  # the model processes of a killed server would keep running
        with contextlib.suppress(psutil.NoSuchProcess):
            stub.kill()


def live_server(settings: Settings) -> str:
    """The serving Triton server's address, after checking that it responds.

    Of several targets it is the control address of the first one that responds.

    Raises:
        ServerError: it is not running.
    """
    targets = [target.control_url for target in settings.targets.values()]
    urls = targets or [serving_url(settings)]
    for url in urls:
        with TritonClient(url) as client:
            if client.live():
                return url
    raise ServerError(
        "no target answers" if targets else "the Triton server does not answer",
        where=", ".join(urls),
        remedy="start it: tickline triton up, then run the same command again",
    )
