"""Prometheus' rules and Grafana's dashboard: the exporter has every metric they query."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.metrics import METRICS
from tests.support.stack import INFRA, SERVICES

RULES: list[dict[str, Any]] = yaml.safe_load((INFRA / "prometheus" / "rules.yaml").read_text())[
    "groups"
][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads(
    (INFRA / "grafana" / "dashboards" / "tickline.json").read_text()
)


def metric_names(expression: str) -> set[str]:
    return set(re.findall(r"\btickline_[a-z0-9_]+", expression))


def test_every_metric_in_a_query_is_exported() -> None:
    known = {f"tickline_{name}" for name in METRICS}
    asked = [rule["expr"] for rule in RULES]
    asked += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    used = set().union(*map(metric_names, asked))
    assert used <= known
    assert known - used == {"tickline_nightly_start_timestamp_seconds"} - used


def test_every_label_in_a_query_is_exported() -> None:
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


def test_rules_have_a_summary_and_a_remedy() -> None:
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


def test_alerts_fire_as_evaluated_by_prometheus(tmp_path: Path) -> None:
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
