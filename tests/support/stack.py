"""The stack's files, read once."""

import json
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"
KUBERNETES = INFRA / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    found
    for name in KUSTOMIZATION["resources"]
    for found in yaml.safe_load_all((KUBERNETES / name).read_text())
]
TEMPLATE: dict[str, Any] = json.loads((KUBERNETES / "base-job-template.json").read_text())


def containers(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of a manifest's pod, those that only begin it too."""
    pod = found.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", []), *pod.get("containers", [])]
