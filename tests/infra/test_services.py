"""Command lines, order and health checks of the stack's services."""

import http.server
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.deploy import QUEUES
from infra.servers import HOST, free_port
from infra.services import POOL, SERVING_QUEUE, Plan, build, other_queues, prefect_url
from model_code.settings import Settings
from model_code.storage.serving import require_here


def plan(*names: str) -> Plan:
    ports = {
        name: free_port()
        for name in (
            "prefect", "worker", "mlflow", "triton", "triton-grpc", "triton-metrics", "redis",
        )
    }  # fmt: skip
    return Plan(names=names, ports=ports)


def test_services_know_their_ports_each_other_and_that_they_are_down(
    tmp_path: Path, triton_home: Path
) -> None:
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    wanted = plan("prefect", "worker", "mlflow", "triton", "redis")
    services = {service.name: service for service in build(settings, wanted)}
    assert list(services) == list(wanted.names)
    for name, key in (("prefect", "prefect"), ("mlflow", "mlflow"), ("redis", "redis")):
        assert str(wanted.ports[key]) in services[name].command
        assert services[name].address.endswith(f":{wanted.ports[key]}")
    assert f"--grpc-port={wanted.ports['triton-grpc']}" in services["triton"].command
    worker = services["worker"]
    assert worker.after == ("prefect",)
    assert worker.command[worker.command.index("--pool") + 1] == POOL
    assert worker.environment["PREFECT_API_URL"] == prefect_url(settings, wanted)
    assert services["prefect"].environment["PREFECT_UI_URL"] == services["prefect"].address
    assert not any(service.healthy() for service in services.values())


def test_a_worker_leaves_promotions_to_the_serving_host(tmp_path: Path, triton_home: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    one, other = (
        Settings(home=tmp_path / name, triton=triton_home, store=store).resolved() for name in "ab"
    )
    assert other_queues(one) == other_queues(other) == (), "nobody has promoted yet"
    require_here(one)
    assert other_queues(one) == ()
    (worker,) = build(other, plan("worker"))
    polled = [b for a, b in itertools.pairwise(worker.command) if a == "--work-queue"]
    assert sorted([*polled, SERVING_QUEUE]) == sorted(QUEUES)


class _Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def answering(port: int, status: int) -> Iterator[None]:
    handler = type("Answer", (_Answer,), {"status": status})
    with http.server.ThreadingHTTPServer((HOST, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_worker_without_its_server_is_alive_and_one_that_is_stuck_is_not(tmp_path: Path) -> None:
    """Prefect's worker says 503 if it has not polled, whoever's fault that is."""
    api, wanted = free_port(), plan("worker")
    settings = Settings(home=tmp_path, prefect_api_url=f"http://{HOST}:{api}/api")
    (worker,) = build(settings, wanted)
    assert worker.problem is not None
    assert not worker.healthy(), "it does not run"
    with answering(wanted.ports["worker"], 503):
        assert worker.healthy(), "its server is away"
        assert f"the Prefect server at http://{HOST}:{api}/api does not answer" in (
            worker.problem() or ""
        )
        with answering(api, 200):
            assert not worker.healthy(), "its server answers, and it does not ask"
            assert worker.problem() == ""
    with answering(wanted.ports["worker"], 200), answering(api, 200):
        assert worker.healthy()
    assert worker.patience_s > 60


def test_a_configured_prefect_server_is_used_and_not_waited_for(tmp_path: Path) -> None:
    api = "http://127.0.0.1:9/api"
    settings = Settings(home=tmp_path, prefect_api_url=api)
    (worker,) = build(settings, plan("worker"))
    assert worker.after == ()
    assert worker.environment["PREFECT_API_URL"] == api
