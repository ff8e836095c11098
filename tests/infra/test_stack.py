"""The stack's files: compose, Kubernetes, Prometheus, Grafana, checked without a container."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from infra.metrics import METRICS
from infra.servers import environment
from model_code.settings import Settings

INFRA = Path(__file__).resolve().parents[2] / "infra"
KUBERNETES = INFRA / "kubernetes"
KUBERNETES_VERSION = "1.34"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RULES: list[dict[str, Any]] = yaml.safe_load((INFRA / "prometheus" / "rules.yaml").read_text())[
    "groups"
][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads(
    (INFRA / "grafana" / "dashboards" / "tickline.json").read_text()
)
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    found
    for name in KUSTOMIZATION["resources"]
    for found in yaml.safe_load_all((KUBERNETES / name).read_text())
]


# --- compose


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


def test_no_secret_is_committed_and_every_one_is_asked_for() -> None:
    example = (INFRA / "compose" / "env.example").read_text()
    offered = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", example, re.MULTILINE))
    assert {name: value for name, value in offered.items() if value} == {
        "TICKLINE_AUTH_USERNAME": "admin"
    }
    text = (INFRA / "compose.yaml").read_text()
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+)", text)) == set(offered)
    # each of them stops the start where it is empty
    assert set(re.findall(r"\$\{([A-Z_0-9]+):\?", text)) == set(offered)
    assert not re.search(r"(?i)password: *[\"']?[a-z0-9]", text)


def test_long_running_services_have_health_checks_logs_and_pinned_images() -> None:
    for name, service in SERVICES.items():
        image = service["image"]
        assert re.search(r":v?[0-9]", image), f"{image} is not pinned"
        if name in {"bucket", "deploy"}:  # they end
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


def test_the_pools_queues_and_reviewers_are_there_in_containers_too() -> None:
    assert SERVICES["deploy"]["command"] == "python -m infra.deploy"
    (deploying,) = [
        container
        for found in OBJECTS
        for container in containers(found)
        if container["name"] == "deploy"
    ]
    assert deploying["args"][0].endswith("&& python -m infra.deploy")
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    (job,) = containers(template["job_configuration"]["job_manifest"])
    # flows ask this list who may decide; where it is empty nobody may
    assert "TICKLINE_REVIEWERS" in {found["name"] for found in job["env"]}
    assert "TICKLINE_REVIEWERS" in SERVICES["worker"]["environment"]


def test_the_repositorys_state_lies_on_its_volume() -> None:
    """Versions move by rename between the repository and the state beside it."""
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    (job,) = containers(template["job_configuration"]["job_manifest"])
    (pod,) = [found for item in OBJECTS for found in containers(item) if found["name"] == "triton"]
    for repository, mounts, server in (
        (
            SERVICES["worker"]["environment"]["TICKLINE_SERVING"],
            {volume.split(":")[1] for volume in SERVICES["worker"]["volumes"]},
            SERVICES["triton"]["command"].split(),
        ),
        (
            template["variables"]["properties"]["env"]["default"]["TICKLINE_SERVING"],
            {mount["mountPath"] for mount in job["volumeMounts"]},
            pod["args"],
        ),
    ):
        assert str(Path(repository).parent) in mounts
        assert f"--model-repository={repository}" in server


def test_the_jobs_image_is_that_of_the_kustomization() -> None:
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    image = template["variables"]["properties"]["image"]["default"]
    (own,) = KUSTOMIZATION["images"]
    assert image == f"{own['newName']}:{own['newTag']}"


def test_prefects_image_is_the_installed_version() -> None:
    images = [SERVICES["prefect"]["image"]]
    images += [
        container["image"]
        for found in OBJECTS
        for container in containers(found)
        if container["image"].startswith("prefecthq/")
    ]
    assert len(images) == 3
    for image in images:
        assert image.split(":")[1].split("-")[0] == version("prefect")


# --- Kubernetes


def containers(found: dict[str, Any]) -> list[dict[str, Any]]:
    pod = found.get("spec", {}).get("template", {}).get("spec", {})
    return list(pod.get("containers", []))


@pytest.mark.parametrize(
    "found", OBJECTS, ids=lambda found: f"{found['kind']}-{found['metadata']['name']}"
)
def test_manifest_follows_its_schema(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)


def test_kustomization_lists_every_file_and_no_other() -> None:
    listed = set(KUSTOMIZATION["resources"]) | {"kustomization.yaml"}
    assert listed == {path.name for path in KUBERNETES.glob("*.yaml")}
    generated = [name for made in KUSTOMIZATION["configMapGenerator"] for name in made["files"]]
    assert all((KUBERNETES / name).is_file() for name in generated)


def test_kubernetes_names_resolve() -> None:
    names = {(found["kind"], found["metadata"]["name"]) for found in OBJECTS}
    maps = {made["name"] for made in KUSTOMIZATION["configMapGenerator"]}
    keys = set(
        re.findall(r"^([a-z0-9.-]+)=", (KUBERNETES / "secret.env.example").read_text(), re.M)
    )
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    job = template["job_configuration"]["job_manifest"]
    for found in [*OBJECTS, job]:
        pod = found.get("spec", {}).get("template", {}).get("spec", {})
        if "serviceAccountName" in pod:
            assert ("ServiceAccount", pod["serviceAccountName"]) in names
        claimed = (
            {made["metadata"]["name"] for made in found["spec"].get("volumeClaimTemplates", [])}
            if pod
            else set()
        )
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | claimed
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in names
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
        for container in containers(found):
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            for variable in container["env"] if isinstance(container.get("env"), list) else []:
                secret = variable.get("valueFrom", {}).get("secretKeyRef")
                if secret:
                    assert (secret["name"], secret["key"] in keys) == ("tickline", True)
    labels = {
        found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        for found in OBJECTS
        if found["kind"] in {"Deployment", "StatefulSet"}
    }
    for found in OBJECTS:
        if found["kind"] == "Service":
            assert found["spec"]["selector"]["app.kubernetes.io/name"] in labels


def test_the_work_pools_job_is_sound_and_carries_ticklines_environment(tmp_path: Path) -> None:
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    variables = template["variables"]["properties"]
    text = json.dumps(template["job_configuration"])
    asked = set(re.findall(r"\{\{ (\w+) \}\}", text))
    assert asked == set(variables)
    given = {name: found.get("default") for name, found in variables.items()}
    given["command"] = ["prefect", "flow-run", "execute"]

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: fill(item) for name, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, str):
            whole = re.fullmatch(r"\{\{ (\w+) \}\}", value)
            if whole:
                return given[whole[1]]
            return re.sub(r"\{\{ (\w+) \}\}", lambda match: str(given[match[1]]), value)
        return value

    job = fill(template["job_configuration"]["job_manifest"])
    kubernetes_validate.validate(job, KUBERNETES_VERSION, strict=True)
    (container,) = containers(job)
    assert not [found for found in container["env"] if "value" in found]  # secrets by reference
    carried = set(given["env"]) | {found["name"] for found in container["env"]}
    guarded = Settings(
        home=tmp_path,
        prefect_api_url="http://prefect:4200/api",
        auth_password="x",  # noqa: S106
    )
    # `tickline worker` is not there to set it
    missing = set(environment(guarded)) - carried - {"PREFECT_API_URL"}
    assert missing == set()


def test_kustomize_builds() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(OBJECTS) + len(KUSTOMIZATION["configMapGenerator"])
    for found in built:
        kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)
        assert found["kind"] == "Namespace" or found["metadata"]["namespace"] == "tickline"
    images = {container["image"] for found in built for container in containers(found)}
    assert all(re.search(r":v?[0-9]", image) for image in images)


# --- Prometheus and Grafana


def metric_names(expression: str) -> set[str]:
    return set(re.findall(r"\btickline_[a-z0-9_]+", expression))


def test_every_metric_asked_for_is_one_the_exporter_has() -> None:
    known = {f"tickline_{name}" for name in METRICS}
    asked = [rule["expr"] for rule in RULES]
    asked += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    used = set().union(*map(metric_names, asked))
    assert used <= known
    assert known - used == {"tickline_nightly_start_timestamp_seconds"} - used


def test_labels_asked_for_are_ones_the_metric_has() -> None:
    expressions = [rule["expr"] for rule in RULES]
    expressions += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for expression in expressions:
        for name, matchers in re.findall(r"\btickline_(\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", matchers))
            assert labels <= set(METRICS[name][1]), expression
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            (name,) = metric_names(target["expr"])
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= set(METRICS[name.removeprefix("tickline_")][1])


def test_rules_say_what_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "do"}


def test_prometheus_scrapes_services_that_exist() -> None:
    document = yaml.safe_load((INFRA / "prometheus" / "prometheus.yaml").read_text())
    assert all((INFRA / "prometheus" / name).is_file() for name in document["rule_files"])
    targets = [
        target
        for job in document["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= set(SERVICES)


def test_promtool_accepts_configuration_and_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "check", "config", str(INFRA / "prometheus" / "prometheus.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_prometheus_says_so(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    shutil.copy(INFRA / "prometheus" / "rules.yaml", tmp_path / "rules.yaml")
    cases = shutil.copy(Path(__file__).with_name("prometheus_rules.yaml"), tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_provisioned_with_the_dashboard() -> None:
    provisioning = INFRA / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    (prometheus,) = source["datasources"]
    provider = yaml.safe_load((provisioning / "dashboards" / "tickline.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    mounts = SERVICES["grafana"]["volumes"]
    assert f"./grafana/dashboards:{folder}:ro" in mounts
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == prometheus["uid"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
