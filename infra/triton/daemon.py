"""This home's Triton server: up, down, status, address.

A keeper (`infra.triton.keeper`, or the stack's supervisor) starts it again when it exits, and keeps
its versions answering. The record names both processes with their start times, so that a stale file
or a reused pid is detected.
"""

import contextlib
import json
import os
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from infra import stack_state
from infra.exit_with_parent import kill_tree
from infra.home.moved import identity, is_own
from infra.process import ProcessId
from infra.servers import HOST, ServerError, environment
from infra.triton.install import install
from infra.triton.key import server_key
from infra.triton.serve import serve
from infra.triton.server import Ports, TritonServer
from infra.triton.shared_memory import sweep
from model_code.artifacts import atomic_file
from model_code.serving.client import TritonClient
from model_code.settings import Settings

PORTS = Ports(http=8000, grpc=8001, metrics=8002)
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    keeper: ProcessId
    server: ProcessId | None  # None: it has not been up yet
    http: int
    grpc: int
    metrics: int
    repository: str
    home: str = ""  # `identity` of the home folder

    @property
    def ports(self) -> Ports:
        return Ports(http=self.http, grpc=self.grpc, metrics=self.metrics)


def up(settings: Settings, ports: Ports = PORTS) -> TritonServer:
    """Start the server and its keeper unless they run; return once its versions answer.

    Raises:
        ServerError: a port is taken, or the server cannot be installed or does not start.
        IntegrityError: a version's bytes are not the approved ones; it was not loaded (the server
            keeps running).
        RepositoryBusyError: a promotion is changing the versions (the server keeps running).
        ServingError: a version does not load or answer (the server keeps running).
    """
    folder = settings.home / "triton"
    folder.mkdir(parents=True, exist_ok=True)
    install(settings)
    with FileLock(folder / "lock"):
        record = _record(settings)
        if record is None or not record.keeper.lives:
            if record is not None:
                _end(record)
            _require_free(ports)
            server_key(settings)
            keeper = _spawn(settings, ports)
        else:
            keeper = record.keeper
        server = _await(settings, keeper)
    with server.client() as client:
        serve(settings, client)
    return server


def adopt(settings: Settings, pid: int | None, ports: Ports) -> None:
    """Register this process as the keeper of this home's server.

    Args:
        settings: of the home.
        pid: of the server; None: it has not been up yet.
        ports: that it listens on.
    """
    record = _Record(
        keeper=ProcessId.own(),
        server=None if pid is None else ProcessId.of(pid),
        **asdict(ports),
        repository=str(settings.serving_repository),
        home=identity(settings),
    )
    with atomic_file(_path(settings)) as temporary:
        temporary.write_text(record.model_dump_json())


def down(settings: Settings) -> bool:
    """Stop the server and wait until it has exited; False if none was running.

    Raises:
        ServerError: it belongs to the stack.
    """
    folder = settings.home / "triton"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        record = _record(settings)
        if record is None:
            return False
        stack = stack_state.read(settings)
        if stack is not None and stack.supervisor == record.keeper:
            raise ServerError(
                "the Triton server belongs to the stack, which would start it again",
                where=f"pid {record.keeper.pid}",
                remedy="stop the stack: tickline down",
            )
        _path(settings).unlink(missing_ok=True)
        return _end(record)


def status(settings: Settings) -> TritonServer | None:
    """This home's server, or None if none is kept running. It may be about to start again."""
    record = _record(settings)
    if record is None or record.server is None or not record.keeper.lives:
        return None
    return TritonServer.at(
        record.server.pid,
        record.ports,
        Path(record.repository),
        log_path(settings),
        server_key(settings),
    )


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
            where=str(_path(settings)),
            remedy="start one: tickline triton up, or configure one: TICKLINE_TRITON_URL=host:8001",
        )
    return server.grpc_url


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


def keeper_lock(settings: Settings) -> Path:
    """Lock file, held while the keeper of `up` runs."""
    return settings.home / "triton" / "keeper.lock"


def log_path(settings: Settings) -> Path:
    """Log of the server of `up`."""
    return settings.home / "logs" / "triton.log"


def _keeper_log(settings: Settings) -> Path:
    return settings.home / "logs" / "triton-keeper.log"


def _path(settings: Settings) -> Path:
    return settings.home / "triton" / "server.json"


def _record(settings: Settings) -> _Record | None:
    try:
        found = _Record.model_validate_json(_path(settings).read_bytes())
        return found if is_own(settings, found.home) else None
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


def _spawn(settings: Settings, ports: Ports) -> ProcessId:
    # not subprocess, which expects its children to end before their parent
    log = _keeper_log(settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    argv = [sys.executable, "-m", "infra.triton.keeper", json.dumps(asdict(ports))]
    pid = os.posix_spawn(
        argv[0],
        argv,
        os.environ | environment(settings),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return ProcessId.of(pid)


def _await(settings: Settings, keeper: ProcessId) -> TritonServer:
    deadline = time.monotonic() + START_TIMEOUT_S
    while (kept := keeper.lives) and time.monotonic() < deadline:
        record = _record(settings)
        server = status(settings)
        if server is not None and record is not None and record.keeper == keeper:
            return server
        time.sleep(0.1)
    if kept:
        _stop(keeper)
    logs = [log for log in (log_path(settings), _keeper_log(settings)) if log.exists()]
    newest = [line for log in logs for line in log.read_text(errors="replace").splitlines()[-5:]]
    raise ServerError(
        f"the Triton server {'did not answer in time' if kept else 'does not start'}:\n"
        + "\n".join(newest),
        where=", ".join(map(str, logs)),
        remedy="read its log: tickline triton logs -n 100",
    )


def _end(record: _Record) -> bool:
    """End keeper and server; whether any ran."""
    found = [one for one in (record.keeper, record.server) if one is not None and one.lives]
    for one in found:
        _stop(one)
    sweep(record.grpc)
    return bool(found)


def _stop(one: ProcessId) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(one.pid)
        children = process.children(recursive=True)
        if one.lives:
            process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            kill_tree(process)
            process.wait()
        for child in children:  # the model processes of a killed server would keep running
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
