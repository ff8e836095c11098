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
    assert {name: value for name, value in offered.items() if value} == {
        "TICKLINE_AUTH_USERNAME": "admin"
    }
    text = (INFRA / "compose.yaml").read_text()
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+)", text)) == set(offered)
    # each of them stops the start if it is empty
    assert set(re.findall(r"\$\{([A-Z_0-9]+):\?", text)) == set(offered)
    assert not re.search(r"(?i)password: *[\"']?[a-z0-9]", text)


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
