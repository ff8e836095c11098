"""Keep a Triton server running and serving: `python -m infra.triton.keeper PORTS`.

The process behind `tickline triton up`. It restarts the server when it exits or stops responding,
and ends with SIGTERM. If it is killed, the server ends too.
"""

import signal
import sys
import threading

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from infra.exit_with_parent import adopt_orphans
from infra.servers import HOST, healthy
from infra.services import Service
from infra.supervisor import ALREADY_RUNNING, Group, Supervised
from infra.triton import daemon, install, server, shared_memory
from infra.triton.key import hide, server_key
from infra.triton.serve import loaded_at_start, serve
from infra.triton.server import Ports
from infra.triton.stubs import Stubs
from infra.triton.watch import Watch
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.settings import Settings

PROBE_S = 1.0  # a version that stops answering is loaded again soon


def triton_service(settings: Settings, ports: Ports) -> Service:
    """The server as a supervised service: up means that its versions answer.

    Raises:
        ServerError: it is not installed and cannot be.
    """
    installation = install.install(settings)
    settings.serving_repository.mkdir(parents=True, exist_ok=True)
    key = server_key(settings)
    shared_memory.sweep_stale()
    address = f"{HOST}:{ports.grpc}"

    stubs, repository = Stubs(), ServingRepository(settings.serving_repository)

    def lacking() -> set[int]:
        found = daemon.status(settings)
        if found is None or found.grpc_url != address:
            return set()
        return stubs.lacking(found.pid, repository.versions())

    def check() -> None:
        with TritonClient(address, key) as client:
            serve(settings, client, lacking)

    def clean() -> None:
        watch.reset()
        shared_memory.sweep(ports.grpc)

    def adopt(pid: int) -> None:
        hide(pid, key)
        daemon.adopt(settings, pid, ports)

    watch = Watch(check)
    return Service(
        name="triton",
        command=server.command(installation, settings.serving_repository, ports, key),
        address=address,
        arguments=lambda: loaded_at_start(settings),
        healthy=lambda: healthy(server.ready_url(ports)),
        probe_s=PROBE_S,
        problem=watch.problem,
        # the key, for the redactor of its log
        environment=server.environment(installation) | {"TICKLINE_TRITON_KEY": key},
        when_up=adopt,
        cleaned=clean,
    )


class _Kept(Group):
    """The server alone; if its first start fails, the keeper ends too."""

    def __init__(self, kept: Supervised, stop: threading.Event) -> None:
        super().__init__([kept])
        self._kept, self._stop_event = kept, stop

    def _write(self) -> None:
        if not self._kept.announced and self._kept.exit_code is not None:
            self._stop_event.set()


def main(ports_json: str) -> int:
    """Keep the server until SIGTERM; return 3 if this home already has a keeper."""
    settings = Settings().resolved()
    lock = FileLock(daemon.keeper_lock(settings), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return ALREADY_RUNNING
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    adopt_orphans()
    ports = TypeAdapter(Ports).validate_json(ports_json)
    try:
        kept = Supervised(triton_service(settings, ports), settings, daemon.log_path(settings))
        daemon.adopt(settings, None, ports)
        _Kept(kept, stop).run(stop)
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
