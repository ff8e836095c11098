"""A night's traces in MLflow for a staged version."""

from typing import Any

from mlflow.tracking import MlflowClient

from model_code.benchmark.gate import Verdict
from model_code.benchmark.verdict import GoalRow
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from tasks.runs import mlflow_runs
from tests.support.serving import staged

# a busy machine is slow, not wrong
PATIENT = PromotionSpec(
    load_requests=40,
    shadow_requests=40,
    canary_requests=60,
    canary_patience=2,
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
    mlflow.log_text(run_id, verdict(word).model_dump_json(), "gate/verdict.json")
    days = {"columns": ["instrument", "verdict"], "data": [["AAA.test", "passed"]]}
    mlflow.log_dict(run_id, days, "validation/days.json")
    if version == 1:
        mlflow.create_registered_model(MODEL_NAME)
    made = mlflow.create_model_version(MODEL_NAME, source="file:///nowhere", run_id=run_id)
    assert int(made.version) == version
    facts: dict[str, Any] = {"verdict": word, "mlflow_run_id": run_id}
    staged(settings.staging_repository, version, **(facts | how))
