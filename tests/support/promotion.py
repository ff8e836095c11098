"""A night's traces in MLflow for a staged version."""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.tracking import MlflowClient

from model_code.benchmark.gate import Verdict
from model_code.benchmark.verdict import GoalRow
from model_code.engines.sidecar import EngineSidecar
from model_code.repository.manifest import Manifest
from model_code.settings import MODEL_NAME, REFERENCE_ENGINE, PromotionSpec, Settings
from tasks.promotion.registered import BENCHMARK, VERDICT, tags_of
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import STAGED_TAG
from tests.support.benchmark import benchmark_run
from tests.support.serving import staged

# a busy machine is slow, not wrong
PATIENT = PromotionSpec(
    load_requests=40,
    shadow_requests=40,
    positive_requests=20,
    canary_requests=60,
    canary_patience=2,
    canary_step_s=0.1,
    max_p50_ratio=1000.0,
    max_p99_ms=None,
)


def verdict(word: str) -> Verdict:
    rows = (
        GoalRow(
            name="every answer is finite", metric="non_finite", kind="threshold", value=0.0,
            reference=None, limit="<= 0", margin=0.0, passed=True, reason="met",
        ),
        GoalRow(
            name="AUC no worse than the champion", metric="auc", kind="min-improvement",
            value=0.75, reference=None if word == "no baseline" else 0.74,
            limit="at least 0 better than the champion",
            margin=None if word == "no baseline" else 0.01,
            passed=None if word == "no baseline" else True, reason="met",
        ),
    )  # fmt: skip
    return Verdict(
        verdict=word,  # type: ignore[arg-type]
        promotable=True,
        reason="all goals are met",
        rows=rows,
    )


def registered(settings: Settings, version: int, **how: Any) -> None:
    """Register, judge and stage a version, as a nightly leaves it."""
    mlflow: MlflowClient = mlflow_runs.client(settings)
    run_id = mlflow_runs.continue_or_start(
        mlflow,
        settings,
        name=f"night-{version}",
        identity={mlflow_runs.FLOW_RUN_TAG: f"night-{version}"},
        tags={},
    )
    word = "no baseline" if version == 1 else "pass"
    days = {"columns": ["instrument", "verdict"], "data": [["AAA.test", "passed"]]}
    mlflow.log_dict(run_id, days, "validation/days.json")
    if version == 1:
        mlflow.create_registered_model(MODEL_NAME)
    made = mlflow.create_model_version(MODEL_NAME, source="file:///nowhere", run_id=run_id)
    assert int(made.version) == version
    facts: dict[str, Any] = {"verdict": word, "mlflow_run_id": run_id}
    record(settings, staged(settings.staging_repository, version, **(facts | how)))


def record(settings: Settings, folder: Path) -> None:
    """Write a staged version's verdict, benchmark and tags to MLflow, as its night does."""
    mlflow: MlflowClient = mlflow_runs.client(settings)
    manifest, sidecar = Manifest.load(folder), EngineSidecar.load(folder)
    judged = verdict(manifest.verdict).model_copy(update={"promotable": manifest.promotable})
    mlflow.log_text(manifest.mlflow_run_id, judged.model_dump_json(), VERDICT)
    latency_R, answers_N = np.full(8, 1.0), np.linspace(0.1, 0.9, 8)
    result = benchmark_run(
        (answers_N > 0.5).astype(np.int8),
        {REFERENCE_ENGINE: answers_N, sidecar.engine: answers_N},
        {REFERENCE_ENGINE: latency_R, sidecar.engine: latency_R},
    ).result
    rows = tuple(
        row.model_copy(update={"facts": row.facts.model_copy(update={"sha256": sidecar.sha256})})
        for row in result.rows
    )
    changes = {"rows": rows, "simulated": manifest.simulated}
    text = result.model_copy(update=changes).model_dump_json()
    mlflow.log_text(manifest.mlflow_run_id, text, BENCHMARK)
    tags = {
        **tags_of(manifest, sidecar),
        STAGED_TAG: manifest.identity,
    }
    for key, value in tags.items():
        mlflow.set_model_version_tag(MODEL_NAME, str(manifest.version), key, value)
