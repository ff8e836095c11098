"""Nightly runs read from a real MLflow store and a real Prefect server."""

import datetime as dt
import time
from pathlib import Path
from uuid import UUID

import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client, task
from prefect.runtime import flow_run
from prefect.states import Cancelled

from infra.servers import record_server
from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import ApprovedException
from model_code.settings import MODEL_NAME, Settings
from tasks.monitoring.history import APPROVED_AT, prefect_url, read_history
from tasks.runs import mlflow_runs, task_runs
from tasks.runs.tick_source import TickDay, TickSource
from tests.support.serving import serves

BEGUN: list[UUID] = []


@task
def validate(number: int) -> int:
    return number


@task
def train() -> None:
    raise ValueError("no")


@flow
def small() -> None:
    """A miniature nightly: one MLflow parent run, two stages."""
    BEGUN.append(UUID(str(flow_run.id)))
    settings = Settings().resolved()
    mlflow = mlflow_runs.client(settings)
    run_id = mlflow_runs.continue_or_start(
        mlflow,
        settings,
        name=str(flow_run.name),
        identity={mlflow_runs.FLOW_RUN_TAG: str(flow_run.id)},
        tags={"tickline.simulated": "true", "prefect.flow_run_name": str(flow_run.name)},
    )
    mlflow_runs.nested(mlflow, settings, run_id, "training")
    day = TickSource("simulated:", [TickDay("2024-08-09", "BTCUSDT", "0" * 64)])
    mlflow_runs.log_datasets(
        mlflow,
        run_id,
        [mlflow_runs.DatasetEntry("BTCUSDT/2024-08-09", "0" * 36, day, "test", {"rows": 1})],
    )
    mlflow_runs.log_metrics(mlflow, run_id, {"auc": 0.75, "p99_ms": float("nan")})
    mlflow.log_metric(run_id, "rows", 10.0)
    mlflow_runs.set_tags(mlflow, run_id, {"tickline.verdict": "no baseline"})
    validate(1)
    validate(2)
    try:
        train()
    finally:
        mlflow_runs.finish(mlflow, run_id, "FAILED")


def failed_night() -> None:
    """Run a failing nightly; return once the server knows all its stages."""
    with pytest.raises(ValueError, match="no"):
        small()
    with get_client(sync_client=True) as client:
        task_runs.settled_task_runs(client, BEGUN[-1])


def test_a_nightly_is_read_with_its_stages_and_the_champion(home: Settings) -> None:
    failed_night()
    mlflow = MlflowClient(home.tracking_uri)
    mlflow.create_registered_model(MODEL_NAME)
    mlflow.create_model_version(MODEL_NAME, str(home.home / "model"))
    mlflow.set_registered_model_alias(MODEL_NAME, "champion", "1")
    serves(home, 1)

    seen = read_history(home)
    assert seen.sources == {"mlflow": True, "prefect": True, "audit": True}
    (night,) = seen.nights  # without the nested run
    assert (night.status, night.verdict, night.simulated) == ("FAILED", "no baseline", True)
    assert night.metrics == {"auc": 0.75, "rows": 10.0}  # new names and those of earlier versions
    assert night.test_date == dt.date(2024, 8, 9)
    assert night.mlflow_url.endswith(f"/runs/{night.mlflow_run_id}?workflowType=machine_learning")
    assert night.prefect_url.endswith(f"/runs/flow-run/{night.flow_run_id}")
    assert night.seconds is not None
    stages = {stage.name: stage.state for stage in night.stages}
    assert stages == {"validate": "Completed", "train": "Failed"}
    assert seen.champion is not None
    assert seen.champion.version == "1"
    assert dt.datetime.now(dt.UTC) - seen.champion.since < dt.timedelta(minutes=5)

    mlflow.set_model_version_tag(MODEL_NAME, "1", APPROVED_AT, "2026-11-01T10:00:00+00:00")
    champion = read_history(home).champion
    assert champion is not None
    assert champion.since == dt.datetime(2026, 11, 1, 10, tzinfo=dt.UTC)


def test_a_run_that_prefect_cancelled_is_cancelled_whatever_mlflow_kept(home: Settings) -> None:
    failed_night()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(BEGUN[-1], Cancelled(), force=True)
    (night,) = read_history(home).nights
    assert night.status == "CANCELLED"


def test_unreachable_stores_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    dead = Settings(home=tmp_path, prefect_api_url="http://127.0.0.1:9/api")
    assert prefect_url(dead) is None
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seen = read_history(dead.resolved(mlflow_tracking_uri="http://127.0.0.1:9"))
    assert seen.sources == {"mlflow": False, "prefect": False, "audit": True}
    assert seen.nights == ()


def test_the_exception_of_the_serving_version_is_read(home: Settings) -> None:
    log = AuditLog(home.audit_file)
    known = ApprovedException(
        version=1, reasons=("no baseline",), owner="ada", expires=dt.date(2000, 2, 10)
    )
    log.append("approved", "a", {"version": 1} | known.facts())
    log.append("promoted", "b", {"version": 1})
    seen = read_history(home)
    assert (seen.exception, seen.sources["audit"]) == (known, True)
    home.audit_file.write_text(home.audit_file.read_text().replace("ada", "eve"))
    seen = read_history(home)
    assert (seen.exception, seen.sources["audit"]) == (None, False)


def test_all_pages_of_a_nightlys_stages_are_read(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runs, "PAGE", 1)
    failed_night()
    (night,) = read_history(home).nights
    assert [stage.name for stage in night.stages] == ["validate", "train"]
    with get_client(sync_client=True) as client:
        found = task_runs.task_runs(client, UUID(night.flow_run_id))
    assert len({run.id for run in found}) == len(found) == 3


def test_does_not_wait_for_a_restarting_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    settings = Settings(home=tmp_path)
    record_server(settings, "http://127.0.0.1:9/api")  # its owner, this process, is alive
    began = time.monotonic()
    assert prefect_url(settings) is None
    assert time.monotonic() - began < 10
