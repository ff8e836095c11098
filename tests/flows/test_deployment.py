"""prefect.yaml, checked against the flows and run by a real worker of a real server."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from builders_flow import tiny
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments import run_deployment
from prefect.flows import load_flow_from_entrypoint

from model_code.settings import NightlySpec, Settings
from tasks import tracking

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())[
    "deployments"
]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda found: found["name"])
def test_entrypoint_parameters_and_schedule_are_sound(deployment: dict[str, Any]) -> None:
    path, function = deployment["entrypoint"].split(":")
    flow = load_flow_from_entrypoint(f"{ROOT / path}:{function}")
    known = inspect.signature(flow.fn).parameters
    assert set(deployment["parameters"]) <= set(known)
    assert isinstance(flow.validate_parameters(deployment["parameters"])["spec"], NightlySpec)
    for schedule in deployment["schedules"]:
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert ZoneInfo(schedule["timezone"])
    assert deployment["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"


def prefect(*arguments: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=cwd,
        env=os.environ | {"PWD": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_worker_runs_the_deployment(
    home: Settings, prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL", raising=False)
    goals = tmp_path / "goals.yaml"
    goals.write_text("goals: [{name: finite, metric: non_finite, kind: threshold, maximum: 0}]\n")
    prefect("work-pool", "create", "--overwrite", "--type", "process", "local")
    prefect("deploy", "--all")
    spec = tiny("simulated:?seed=5&instruments=1&days=2&minutes=2", goals=str(goals))
    scheduled = run_deployment(
        "nightly/nightly", parameters={"spec": spec.model_dump(mode="json")}, timeout=0
    )
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "worker", "--once"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(scheduled.id).state
        schedules = client.read_deployment_by_name("nightly/nightly").schedules
    assert state is not None
    assert state.is_completed(), done.stdout + done.stderr
    assert str(schedules[0].schedule.timezone) == "America/New_York"
    mlflow = MlflowClient(home.tracking_uri)
    runs = mlflow.search_runs(
        [tracking.experiment_id(mlflow, home)],
        f"tags.`{tracking.FLOW_RUN_TAG}` = '{scheduled.id}'",
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
