"""The compose file and its environment, checked without a container."""

import re
import subprocess
import sys

from tests.support.stack import COMPOSE, INFRA, SERVICES


def test_compose_follows_the_compose_specification() -> None:
    files = [str(INFRA / "compose.yaml"), str(INFRA / "compose" / "gpu.yaml")]
    schema = "vendor.compose-spec"
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_port_is_published_on_loopback_only() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:")


def test_no_secret_is_committed_and_every_one_is_required() -> None:
    example = (INFRA / "compose" / "env.example").read_text()
    offered = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", example, re.MULTILINE))
    assert {name: value for name, value in offered.items() if value} == {}
    text = (INFRA / "compose.yaml").read_text()
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+)", text)) == set(offered)
    # each of them stops the start if it is empty
    assert set(re.findall(r"\$\{([A-Z_0-9]+):\?", text)) == set(offered)
    assert not re.search(r"(?i)password: *[\"']?[a-z0-9]", text)


USED = {
    "postgres": {"POSTGRES_PASSWORD", "PREFECT_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD"},
    "s3": {"S3_ACCESS_KEY", "S3_SECRET_KEY"},
    "prefect": {"PREFECT_DATABASE_PASSWORD", "PREFECT_AUTH"},
    "mlflow": {
        "MLFLOW_DATABASE_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "MLFLOW_PASSWORD",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
    },
    "deploy": {"PREFECT_AUTH"},
    "worker": {"PREFECT_AUTH", "MLFLOW_PASSWORD", "TICKLINE_TRITON_KEY"},
    "triton": {"TICKLINE_TRITON_KEY"},
    "reconcile": {"TICKLINE_TRITON_KEY"},
    "exporter": {"PREFECT_AUTH", "MLFLOW_PASSWORD"},
    "grafana": {"GRAFANA_PASSWORD"},
    "redis": {"REDIS_PASSWORD"},
    "live": {"REDIS_PASSWORD", "LIVE_PASSWORD"},
}  # fmt: skip


def test_no_service_gets_a_secret_that_it_does_not_use() -> None:
    plain = {"TICKLINE_POLICY", "TICKLINE_DATA"}
    for name, service in SERVICES.items():
        configs = [COMPOSE["configs"][one["source"]] for one in service.get("configs", [])]
        text = str([service, configs])
        given = set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+)", text)) - plain
        assert given == USED.get(name, set()), name
        assert "env_file" not in service
    owners = [name for names in USED.values() for name in names]
    assert {"GRAFANA_PASSWORD", "LIVE_PASSWORD", "POSTGRES_PASSWORD"} == {
        name for name in owners if owners.count(name) == 1
    } - {"MLFLOW_FLASK_SERVER_SECRET_KEY"}


def test_the_image_is_built_with_its_commit() -> None:
    assert SERVICES["worker"]["build"]["args"] == ["TICKLINE_COMMIT"]
    lines = (INFRA / "compose" / "Dockerfile").read_text().splitlines()
    assert "ARG TICKLINE_COMMIT" in lines
    assert "ENV TICKLINE_COMMIT=$TICKLINE_COMMIT" in lines
    assert "LABEL org.opencontainers.image.revision=$TICKLINE_COMMIT" in lines
    assert any(line.startswith('RUN test -n "$TICKLINE_COMMIT"') for line in lines)
    makefile = (INFRA.parent / "Makefile").read_text()
    assert "--build-arg TICKLINE_COMMIT=$$(git describe --always --dirty --abbrev=40" in makefile


def test_long_running_services_have_health_checks_logs_and_pinned_images() -> None:
    for name, service in SERVICES.items():
        image = service["image"]
        assert re.search(r":v?[0-9]", image), f"{image} is not pinned"
        if name in {"bucket", "deploy"}:  # these containers exit
            continue
        assert service["restart"] == "unless-stopped"
        assert name == "worker" or "healthcheck" in service, name


def test_compose_names_resolve() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for used in service.get("configs", []):
            assert used["source"] in COMPOSE["configs"]
        for volume in service.get("volumes", []):
            source = re.split(r":(?=/)", volume)[0]
            if source.startswith("./"):
                assert (INFRA / source).is_dir()
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"]
    dockerfile = SERVICES["worker"]["build"]["dockerfile"]
    assert (INFRA / SERVICES["worker"]["build"]["context"] / dockerfile).is_file()
