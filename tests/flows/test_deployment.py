"""prefect.yaml, checked against the flows and run by a real worker on a real server."""

import inspect
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.flows import Flow, load_flow_from_entrypoint

from infra.deploy import QUEUES
from model_code.settings import NightlySpec, PromotionSpec, Settings
from tasks.runs import mlflow_runs
from tests.support.commands import make_pool, module
from tests.support.flow import schedule_run, tiny

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())[
    "deployments"
]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda found: found["name"])
def test_entrypoint_parameters_and_schedule_are_sound(deployment: dict[str, Any]) -> None:
    path, function = deployment["entrypoint"].split(":")
    flow: Flow[..., Any] = load_flow_from_entrypoint(f"{ROOT / path}:{function}")
    known = inspect.signature(flow.fn).parameters
    assert set(deployment["parameters"]) <= set(known)
    triggered = {
        name: 1 for trigger in deployment.get("triggers", []) for name in trigger["parameters"]
    }
    dates = {"start": "2024-08-06", "end": "2024-08-08"} if flow.name == "backfill" else {}
    given = flow.validate_parameters(deployment["parameters"] | triggered | dates)
    specs: dict[str, type] = {"nightly": NightlySpec, "bench": NightlySpec, "backfill": NightlySpec}
    specs |= {"promote": PromotionSpec}
    assert deployment["tags"][0] == "tickline"
    assert deployment["work_pool"]["work_queue_name"] in QUEUES
    if deployment["name"] in specs:
        assert isinstance(given["spec"], specs[deployment["name"]])
    for schedule in deployment.get("schedules", []):
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert ZoneInfo(schedule["timezone"])
        assert deployment["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"


def test_a_worker_runs_the_deployment(
    home: Settings, prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL", raising=False)
    goals = tmp_path / "goals.yaml"
    goals.write_text("goals: [{name: finite, metric: non_finite, kind: threshold, maximum: 0}]\n")
    make_pool()
    retired = "promotion-timeouts"
    flow = Flow(fn=lambda: None, name=retired)
    with get_client(sync_client=True) as client:
        client.create_deployment(flow_id=client.create_flow(flow), name=retired)
        for name in reversed(QUEUES):  # as a manual deployment may have left them
            with suppress(ObjectAlreadyExists):
                client.create_work_queue(name, work_pool_name="local")
    done = subprocess.run(
        [sys.executable, "-m", "infra.deploy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {found["name"] for found in DEPLOYMENTS} <= set(re.findall(r"[\w-]+", done.stdout))
    with get_client(sync_client=True) as client:
        assert retired not in {found.name for found in client.read_deployments()}
        for deployment in client.read_deployments():
            if deployment.schedules:  # none may become due while a test's worker polls
                client.pause_deployment(deployment.id)
        queues = client.request(
            "POST",
            "/work_pools/{work_pool_name}/queues/filter",
            path_params={"work_pool_name": "local"},
            json={},
        ).json()
    first = sorted(queues, key=lambda queue: queue["priority"])[:3]
    assert [queue["name"] for queue in first] == sorted(QUEUES, key=lambda name: QUEUES[name])
    spec = tiny("simulated:?seed=5&instruments=1&days=2&minutes=2", goals=str(goals))
    scheduled = schedule_run("nightly/nightly", {"spec": spec.model_dump(mode="json")})
    printed = module("flows.cli", "worker", "--once", cwd=tmp_path)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(scheduled.id).state
        schedules = client.read_deployment_by_name("nightly/nightly").schedules
    assert state is not None
    assert state.is_completed(), printed
    schedule = schedules[0].schedule
    assert isinstance(schedule, CronSchedule)
    assert str(schedule.timezone) == "America/New_York"
    mlflow = MlflowClient(home.tracking_uri)
    runs = mlflow.search_runs(
        [mlflow_runs.experiment_id(mlflow, home)],
        f"tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{scheduled.id}'",
    )
    assert [run.info.status for run in runs] == ["FINISHED"]
