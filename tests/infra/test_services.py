"""Command lines, order and health checks of the stack's services."""

from pathlib import Path

from infra.servers import free_port
from infra.services import POOL, Plan, build, prefect_url
from model_code.settings import Settings


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


def test_a_configured_prefect_server_is_used_and_not_waited_for(tmp_path: Path) -> None:
    api = "http://127.0.0.1:9/api"
    settings = Settings(home=tmp_path, prefect_api_url=api)
    (worker,) = build(settings, plan("worker"))
    assert worker.after == ()
    assert worker.environment["PREFECT_API_URL"] == api
