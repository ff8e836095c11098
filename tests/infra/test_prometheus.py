"""Prometheus' rules and Grafana's dashboard: the exporter has every metric they query."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import HistogramMetricFamily

from infra import metrics
from infra.live.feedback import metrics as feedback
from infra.live.feedback.worker import Report
from infra.live.monitoring import metrics as live
from model_code.live.feedback.figures import Figures
from tests.support.stack import INFRA, SERVICES

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((INFRA / "prometheus" / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARDS: list[dict[str, Any]] = [
    json.loads(path.read_text()) for path in sorted((INFRA / "grafana" / "dashboards").iterdir())
]
TARGETS = [
    target for board in DASHBOARDS for panel in board["panels"] for target in panel["targets"]
]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS]
NIGHTS = {f"tickline_{name}": set(labels) for name, (_, labels) in metrics.METRICS.items()}
LIVE = {
    live.PREFIX + name + suffix: {*kind.labels, *extra}
    for name, kind in live.METRICS.items()
    for suffix, extra in (
        {"_bucket": ["le"], "_count": [], "_sum": []}
        if kind.family is HistogramMetricFamily
        else {"": []}
    ).items()
}
FIGURES = Figures(
    version=7, from_ns=0, until_ns=1, decisions=9, unlabelled=0, base_rate=0.5, auc=0.7,
    auc_low=0.6, auc_high=0.8, average_precision=0.6, calibration_error=0.1, precision=0.6,
    psi={"spread": 0.3}, limits={"spread": 0.25},
)  # fmt: skip
FEEDBACK = {
    sample.name: set(sample.labels)
    for family in feedback.FeedbackCollector(
        lambda: Report({"labelled": 9}, {7: FIGURES}, {7: 0}, []), lambda: 0
    ).collect()
    for sample in family.samples
}
# of the Triton server; tests/infra/triton/test_metrics.py compares them with a real one
NV = {
    f"nv_inference_{name}": {"model", "version"}
    for name in (
        "request_success",
        "request_duration_us",
        "queue_duration_us",
        "compute_infer_duration_us",
        "pending_request_count",
        "count",
        "exec_count",
    )
} | {"nv_inference_request_failure": {"model", "version", "reason"}}
LABELS = NIGHTS | LIVE | FEEDBACK | NV
UNUSED = {"tickline_nightly_start_timestamp_seconds", "tickline_nightly_deadline_timestamp_seconds"}
UNUSED_LIVE = {
    "start_timestamp_seconds",
    "recorded_decisions_total",
    "feedback",
}  # for a person who looks


def metric_names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:tickline|nv)_[a-z0-9_]+", expression))


def test_every_metric_in_a_query_is_exported() -> None:
    used = set().union(*map(metric_names, EXPRESSIONS))
    assert used <= set(LABELS)
    assert set(NIGHTS) - used == UNUSED
    assert set(NV) <= used
    sums = {name for name in LIVE if name.endswith(("_count", "_sum"))}
    assert set(LIVE) - used - sums == {live.PREFIX + name for name in UNUSED_LIVE}
    assert set(FEEDBACK) <= used


def test_every_label_in_a_query_is_exported() -> None:
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"\b((?:tickline|nv)_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", matchers))
            assert labels <= LABELS[name], expression
    for target in TARGETS:
        exported = set().union(*(LABELS[name] for name in metric_names(target["expr"])))
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= exported | {"instance"}


def test_a_sum_keeps_the_labels_that_the_legend_shows() -> None:
    for target in TARGETS:
        kept = re.findall(r"sum by \(([^)]*)\)", target["expr"])
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for labels in kept:
            assert shown <= set(labels.split(", ")), target["expr"]


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


@pytest.mark.parametrize("of", ["", "live_", "triton_"])
def test_alerts_fire_as_evaluated_by_prometheus(of: str, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    shutil.copy(INFRA / "prometheus" / "rules.yaml", tmp_path / "rules.yaml")
    cases = shutil.copy(Path(__file__).with_name(f"prometheus_{of}rules.yaml"), tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_provisioned_with_the_dashboards() -> None:
    provisioning = INFRA / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    (prometheus,) = source["datasources"]
    provider = yaml.safe_load((provisioning / "dashboards" / "tickline.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    mounts = SERVICES["grafana"]["volumes"]
    assert f"./grafana/dashboards:{folder}:ro" in mounts
    assert len({board["uid"] for board in DASHBOARDS}) == len(DASHBOARDS) == 3
    for board in DASHBOARDS:
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == prometheus["uid"]
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
