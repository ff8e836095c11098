"""Run the real Triton server: its command line, and a server for the duration of a block.

Loopback, explicit model control, no auto-completed model configuration.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from infra.servers import HOST, free_ports, started
from infra.triton import shared_memory
from infra.triton.install import Installation, install
from infra.triton.key import hide, options, server_key
from model_code.serving.client import TritonClient
from model_code.settings import Settings


@dataclass(frozen=True)
class Ports:
    """TCP ports of one server."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls) -> Self:
        """Three ports that are currently free."""
        http, grpc, metrics = free_ports(3)
        return cls(http=http, grpc=grpc, metrics=metrics)


@dataclass(frozen=True)
class TritonServer:
    """A running server.

    Attributes:
        pid: of the tritonserver process itself.
        grpc_url: host:port, for clients.
        http_url: `http://host:port`.
        metrics_url: Prometheus metrics.
        repository: the model repository it serves.
        log: its log file.
        key: of its model control.
    """

    pid: int
    grpc_url: str
    http_url: str
    metrics_url: str
    repository: Path
    log: Path
    key: str = field(repr=False)

    @classmethod
    def at(cls, pid: int, ports: Ports, repository: Path, log: Path, key: str) -> "TritonServer":
        """The server with this pid on these ports of this machine."""
        return cls(
            pid=pid,
            grpc_url=f"{HOST}:{ports.grpc}",
            http_url=f"http://{HOST}:{ports.http}",
            metrics_url=f"http://{HOST}:{ports.metrics}/metrics",
            repository=repository,
            log=log,
            key=key,
        )

    def client(self) -> TritonClient:
        """A client with the key; the caller closes it."""
        return TritonClient(self.grpc_url, self.key)


@contextmanager
def running(
    settings: Settings, repository: Path, *, models: Sequence[str] = ()
) -> Iterator[TritonServer]:
    """Run a server on free ports during the block; it ends with this process.

    Args:
        settings: location of the installation and of the log.
        repository: root of the model repository; created if missing.
        models: loaded before the block begins.

    Raises:
        ServerError: it cannot be installed or does not start; the end of its log is in the message.
        ServingError: a model does not load.
    """
    installation = install(settings)
    repository.mkdir(parents=True, exist_ok=True)
    ports = Ports.free()
    name = f"triton-{ports.grpc}"
    shared_memory.sweep_stale()
    key = server_key(settings)
    argv = command(installation, repository, ports, key)
    try:
        # the key, for the redactor of its log
        variables = environment(installation) | {"TICKLINE_TRITON_KEY": key}
        with started(name, argv, ready_url(ports), settings, variables) as launcher:
            child = psutil.Process(launcher).children()[0]
            hide(child.pid, key)
            log = settings.home / "logs" / f"{name}.log"
            server = TritonServer.at(child.pid, ports, repository, log, key)
            with server.client() as client:
                for model in models:
                    client.load(model)
            yield server
    finally:
        shared_memory.sweep(ports.grpc)


def command(installation: Installation, repository: Path, ports: Ports, key: str) -> list[str]:
    """The server's command line; `key` is that of its model control."""
    region = shared_memory.REGION.format(port=ports.grpc)
    return [
        str(installation.binary),
        f"--model-repository={repository}",
        f"--backend-directory={installation.backends}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        f"--http-address={HOST}",
        f"--grpc-address={HOST}",
        f"--metrics-address={HOST}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        f"--backend-config=python,shm-region-prefix-name={region}",
        "--exit-timeout-secs=10",
        "--strict-readiness=false",  # of the server; its versions are proven by golden requests
        *options(key),
    ]


def environment(installation: Installation) -> dict[str, str]:
    """Environment variables of the server: its interpreter first in PATH, its libraries."""
    return {
        "PATH": f"{installation.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": installation.library_path,
        "PYTHONNOUSERSITE": "1",
    }


def ready_url(ports: Ports) -> str:
    """The URL that returns 200 once the server accepts requests."""
    return f"http://{HOST}:{ports.http}/v2/health/ready"
