"""Kubernetes manifests and the work pool's job, compared with compose where both must agree."""

import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from infra import proxies
from infra.servers import environment
from infra.triton.image import IMAGE
from infra.triton.key import options
from model_code.repository.policy import PolicyFile, policy_path
from model_code.settings import Settings
from tests.support.stack import (
    INFRA,
    KUBERNETES,
    KUSTOMIZATION,
    OBJECTS,
    SERVICES,
    TEMPLATE,
    containers,
)

KUBERNETES_VERSION = "1.34"


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
    maps = {made["name"] for made in KUSTOMIZATION["configMapGenerator"]} | {"policy"}
    keys = set(
        re.findall(r"^([a-z0-9.-]+)=", (KUBERNETES / "secret.env.example").read_text(), re.M)
    )
    job = TEMPLATE["job_configuration"]["job_manifest"]
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


def test_the_work_pools_job_is_valid_and_has_ticklines_environment(tmp_path: Path) -> None:
    variables = TEMPLATE["variables"]["properties"]
    text = json.dumps(TEMPLATE["job_configuration"])
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

    job = fill(TEMPLATE["job_configuration"]["job_manifest"])
    kubernetes_validate.validate(job, KUBERNETES_VERSION, strict=True)
    (container,) = containers(job)
    assert not [found for found in container["env"] if "value" in found]  # secrets by reference
    carried = set(given["env"]) | {found["name"] for found in container["env"]}
    guarded = Settings(
        home=tmp_path,
        prefect_api_url="http://prefect:4200/api",
        auth_password=SecretStr("x" * 12),
    )
    # `tickline worker` does not run here, so it cannot set it; and no server is on loopback
    missing = set(environment(guarded)) - carried - {"PREFECT_API_URL", *proxies.NAMES}
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


def test_containers_have_the_pools_queues_and_the_policy() -> None:
    assert SERVICES["deploy"]["command"] == "python -m infra.deploy"
    (deploying,) = [
        container
        for found in OBJECTS
        for container in containers(found)
        if container["name"] == "deploy"
    ]
    assert deploying["args"][0].endswith("&& python -m infra.deploy")
    (job,) = containers(TEMPLATE["job_configuration"]["job_manifest"])
    # it defines who may decide on a promotion: what runs the promotion cannot change it
    path = str(policy_path(Path(SERVICES["worker"]["environment"]["TICKLINE_SERVING"])))
    (mounted,) = [one for one in SERVICES["worker"]["volumes"] if path in one]
    assert mounted.endswith(f":{path}:ro")
    (mount,) = [one for one in job["volumeMounts"] if one["mountPath"] == path]
    assert (mount["readOnly"], mount["subPath"]) == (True, "policy.yaml")
    made = "create configmap policy --from-file=policy.yaml"
    assert made in (KUBERNETES / "kustomization.yaml").read_text()


def test_the_example_of_a_policy_is_one() -> None:
    text = (INFRA / "policy.yaml.example").read_text()
    keys = iter(("QWRh", "R3JhY2U="))
    content = re.sub(r"AAAA\.\.\.", lambda _: next(keys), text).encode()
    policy = PolicyFile.read(content, INFRA / "policy.yaml.example").policy
    worker = SERVICES["worker"]["environment"]
    assert policy.triton_url == worker["TICKLINE_TRITON_URL"]
    assert policy.signers.keys() == set(policy.reviewers)


USED = {
    "postgres": {
        "postgres-password", "prefect-database-password", "mlflow-database-password",
    },
    "s3": {"s3.json"},
    "prefect": {"prefect-database", "prefect-auth"},
    "worker": {"prefect-auth"},
    "dask-worker": {"prefect-auth"},
    "deploy": {"prefect-auth"},
    "mlflow": {
        "mlflow-database", "mlflow-secret-key", "mlflow-username", "mlflow-password",
        "s3-access-key", "s3-secret-key",
    },
    "exporter": {"prefect-auth", "mlflow-username", "mlflow-password"},
    "triton": {"triton-key"},
    "reconcile": {"triton-key"},
    "live": {"live-password", "redis-password"},
    "toolbox": {"prefect-auth", "mlflow-username", "mlflow-password", "triton-key"},
    "prefect-job": {
        "prefect-auth", "mlflow-username", "mlflow-password", "triton-key",
    },
}  # fmt: skip


def test_no_container_gets_a_secret_that_it_does_not_use() -> None:
    given: dict[str, set[str]] = {}
    for found in [*OBJECTS, TEMPLATE["job_configuration"]["job_manifest"]]:
        pod = found.get("spec", {}).get("template", {}).get("spec", {})
        mounted = {
            volume["name"]: {item["key"] for item in volume["secret"]["items"]}
            for volume in pod.get("volumes", [])
            if "secret" in volume
        }
        for container in containers(found):
            assert "envFrom" not in container
            keys = given.setdefault(container["name"], set())
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    keys.add(variable["valueFrom"]["secretKeyRef"]["key"])
            for mount in container.get("volumeMounts", []):
                keys |= mounted.get(mount["name"], set())
    assert {name: keys for name, keys in given.items() if keys} == USED
    example = (KUBERNETES / "secret.env.example").read_text()
    offered = set(re.findall(r"^([a-z0-9.-]+)=", example, re.MULTILINE))
    assert offered == {key for keys in USED.values() for key in keys}
    # each of the databases has a user of its own
    users = re.findall(r"^\S+-database=\S+://(\w+):<(\S+)>@postgres:5432/(\w+)$", example, re.M)
    assert users == [
        ("prefect", "prefect-database-password", "prefect"),
        ("mlflow", "mlflow-database-password", "mlflow"),
    ]


def test_the_quarter_hourly_job_asks_for_little() -> None:
    deployments = yaml.safe_load((INFRA.parent / "prefect.yaml").read_text())["deployments"]
    variables = TEMPLATE["variables"]["properties"]
    (frequent,) = [
        one
        for one in deployments
        if any(found["cron"].startswith("*/15 ") for found in one.get("schedules", []))
    ]
    asked = frequent["work_pool"]["job_variables"]
    assert asked["cpu"] == "100m"
    assert set(asked) <= set(variables)
    assert variables["cpu"]["default"] == "4", "of a nightly"
    assert frequent["work_pool"]["work_queue_name"] == "serving"


def test_the_deploy_job_waits_for_its_server() -> None:
    (job,) = [one for one in OBJECTS if one["metadata"]["name"] == "deploy"]
    (waiting,) = job["spec"]["template"]["spec"]["initContainers"]
    assert waiting["command"] == ["python", "-m", "infra.deploy", "--wait-only"]
    (own,) = job["spec"]["template"]["spec"]["containers"]
    apis = [
        [one["value"] for one in container["env"] if one["name"] == "PREFECT_API_URL"]
        for container in (waiting, own)
    ]
    assert apis[0] == apis[1] != []


def test_the_toolbox_reaches_what_a_job_reaches() -> None:
    (toolbox,) = [one for one in OBJECTS if one["metadata"]["name"] == "toolbox"]
    (container,) = containers(toolbox)
    (job,) = containers(TEMPLATE["job_configuration"]["job_manifest"])
    assert container["volumeMounts"] == job["volumeMounts"]
    given = {one["name"]: one.get("value") for one in container["env"]}
    defaults = TEMPLATE["variables"]["properties"]["env"]["default"]
    for name in ("TICKLINE_SERVING", "TICKLINE_TRITON_URL", "TICKLINE_MLFLOW_TRACKING_URI"):
        assert given[name] == defaults[name]
    assert {one["name"] for one in job["env"]} <= set(given)
    assert container["command"] == ["sleep", "infinity"]


def test_the_repositorys_state_is_on_its_volume() -> None:
    """Versions move by rename between the repository and the state beside it."""
    (job,) = containers(TEMPLATE["job_configuration"]["job_manifest"])
    (pod,) = [found for item in OBJECTS for found in containers(item) if found["name"] == "triton"]
    for repository, mounts, server in (
        (
            SERVICES["worker"]["environment"]["TICKLINE_SERVING"],
            {volume.split(":")[1] for volume in SERVICES["worker"]["volumes"]},
            SERVICES["triton"]["command"].split(),
        ),
        (
            TEMPLATE["variables"]["properties"]["env"]["default"]["TICKLINE_SERVING"],
            {mount["mountPath"] for mount in job["volumeMounts"]},
            pod["args"],
        ),
    ):
        assert str(Path(repository).parent) in mounts
        assert f"--model-repository={repository}" in server


def test_tritons_model_control_needs_the_key_in_containers_too() -> None:
    (pod,) = [
        one for one in OBJECTS if one["metadata"]["name"] == "triton" and "template" in one["spec"]
    ]
    own = {one["name"]: one for one in containers(pod)}
    compose = SERVICES["triton"]
    for words, key in (
        (" ".join(own["triton"]["args"]), "$(TICKLINE_TRITON_KEY)"),
        (compose["command"], '"$$TICKLINE_TRITON_KEY"'),
    ):
        for option in options("KEY"):
            assert option.removesuffix("KEY") + key in words
    for one in (
        own["triton"],
        own["reconcile"],
        *containers(TEMPLATE["job_configuration"]["job_manifest"]),
    ):
        assert "TICKLINE_TRITON_KEY" in {found["name"] for found in one["env"]}
    for name in ("triton", "reconcile", "worker"):
        assert "TICKLINE_TRITON_KEY" in SERVICES[name]["environment"]
    # who loads the versions after a restart, and says whether they answer
    started = " ".join(own["reconcile"]["command"])
    assert started == SERVICES["reconcile"]["command"]
    assert "reconcile --watch" in started
    assert "/tmp/alive" in str(own["reconcile"]["readinessProbe"])  # noqa: S108
    assert "/tmp/alive" in str(SERVICES["reconcile"]["healthcheck"])  # noqa: S108


def test_the_jobs_image_is_that_of_the_kustomization() -> None:
    image = TEMPLATE["variables"]["properties"]["image"]["default"]
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


def test_tritons_image_is_the_recorded_one() -> None:
    images = {found["image"] for item in OBJECTS for found in containers(item)}
    assert {image for image in images if "tritonserver" in image} == {IMAGE}


def test_the_live_service_is_scraped_and_probed_where_it_listens() -> None:
    document = yaml.safe_load((INFRA / "prometheus" / "prometheus.yaml").read_text())
    (job,) = [one for one in document["scrape_configs"] if one["job_name"] == "tickline-live"]
    name, port = job["static_configs"][0]["targets"][0].split(":")
    compose, options = SERVICES[name], ("--metrics", "--page")
    words = compose["command"].split()
    listens = {option: words[words.index(option) + 1] for option in options}
    assert listens["--metrics"] == port == compose["expose"][0]
    assert compose["ports"] == [f"127.0.0.1:{listens['--page']}:{listens['--page']}"]
    assert f":{port}/metrics" in compose["healthcheck"]["test"][1]
    (deployment,) = [
        one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == ("Deployment", name)
    ]
    (service,) = [
        one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == ("Service", name)
    ]
    (pod,) = containers(deployment)
    given = dict(one.split("=") for one in pod["args"])
    assert {option: given[option] for option in options} == listens
    assert (given["--metrics-host"], given["--page-host"]) == ("0.0.0.0", "0.0.0.0")  # noqa: S104
    for environment_of in (compose["environment"], {one["name"]: one for one in pod["env"]}):
        assert "TICKLINE_AUTH_PASSWORD" in environment_of  # without it the page is refused
    ports = {one["name"]: str(one["containerPort"]) for one in pod["ports"]}
    assert ports == {"metrics": port, "page": listens["--page"]}
    assert {one["targetPort"]: str(one["port"]) for one in service["spec"]["ports"]} == ports
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == port
    assert pod["readinessProbe"]["httpGet"] == {"path": "/metrics", "port": "metrics"}
    alive = given["--alive-file"]
    for probe in ("startupProbe", "livenessProbe"):
        assert alive in " ".join(pod[probe]["exec"]["command"])
