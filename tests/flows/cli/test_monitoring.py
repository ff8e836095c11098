"""`tickline dashboard`, `metrics` and `alerts` on real stores; metrics go over real HTTP."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client, task
from prefect.automations import Automation
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import CallWebhook, DoNothing
from prefect.events.schemas.automations import Automation as ReadAutomation
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prometheus_client.parser import text_string_to_metric_families

from infra.automations import BLOCK, PREFIX, remove_alerts
from infra.servers import HOST, free_port, healthy
from model_code.errors import ConfigError
from model_code.settings import MODEL_NAME, Settings
from tasks.runs import mlflow_runs
from tasks.runs.task_runs import settled_task_runs
from tests.support.cli import listening, running, tickline
from tests.support.receiver import receiver
from tests.support.serving import serves

WEBHOOK = "http://127.0.0.1:9/hook?token=hush"


@task
def validate() -> None: ...


@flow
def small() -> UUID:
    """A flow run of one stage."""
    validate()
    return UUID(str(flow_run.id))


def record(settings: Settings, name: str, auc: float, flow_run_id: UUID) -> None:
    """Write a finished nightly to MLflow."""
    mlflow = mlflow_runs.client(settings)
    run = mlflow_runs.continue_or_start(
        mlflow,
        settings,
        name=name,
        identity={mlflow_runs.FLOW_RUN_TAG: str(flow_run_id)},
        tags={"tickline.verdict": "pass", "tickline.engine": "openvino-fp32"},
    )
    mlflow_runs.log_metrics(mlflow, run, {"auc": auc, "p50_ms": 2.5, "p99_ms": 6.25})
    mlflow_runs.finish(mlflow, run, "FINISHED")


def seed(settings: Settings) -> None:
    """Two nightlies, of which the newest left a stage in Prefect; a champion."""
    record(settings, "older-owl", 0.6125, uuid4())
    run = small()
    with get_client(sync_client=True) as client:
        settled_task_runs(client, run)
    record(settings, "newest-newt", 0.7375, run)
    mlflow = MlflowClient(settings.tracking_uri)
    mlflow.create_registered_model(MODEL_NAME)
    mlflow.create_model_version(MODEL_NAME, str(settings.home / "model"))
    mlflow.set_registered_model_alias(MODEL_NAME, "champion", "1")
    serves(settings, 1)


def values(text: str) -> dict[str, dict[frozenset[str], float]]:
    """Metric name -> label values -> value."""
    found: dict[str, dict[frozenset[str], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.values())] = sample.value
    return found


def require_newest(text: str, nights: int) -> None:
    """Assert that the metrics are those of `seed`, of so many nightlies."""
    found = values(text)
    assert found["tickline_auc"] == {frozenset({"candidate"}): 0.7375}
    assert found["tickline_nights"][frozenset({"FINISHED"})] == nights
    up = found["tickline_source_up"]
    assert up == {frozenset({name}): 1 for name in ("mlflow", "prefect", "audit")}
    assert list(found["tickline_nightly_stage_duration_seconds"]) == [
        frozenset({"validate", "Completed"})
    ]
    assert list(found["tickline_champion_since_timestamp_seconds"]) == [frozenset({"1"})]


def test_dashboard_writes_a_page_of_the_newest_nightlies(home: Settings, tmp_path: Path) -> None:
    seed(home)
    page = tmp_path / "page.html"
    tickline("dashboard", "--out", page)
    html = page.read_text()
    for text in ("older-owl", "0.6125", "newest-newt", "0.7375", "6.25", "version 1"):
        assert text in html
    assert html.count("<svg") == 3  # the third is the time by stage, which only Prefect knows

    tickline("dashboard", "--out", page, "--nights", "1")
    html = page.read_text()
    assert "newest-newt" in html
    assert "older-owl" not in html


def test_metrics_are_written_pushed_and_served(home: Settings, tmp_path: Path) -> None:
    seed(home)
    textfile, port = tmp_path / "tickline.prom", free_port()
    tickline("metrics", "--textfile", textfile)
    require_newest(textfile.read_text(), nights=2)
    with receiver() as (url, requests):
        tickline("metrics", "--push", url, "--nights", "1")
    ((method, path, body),) = requests
    assert (method, path) == ("PUT", "/metrics/job/tickline")
    require_newest(body, nights=1)

    page = f"http://{HOST}:{port}/metrics"
    with running(tmp_path / "log", "metrics", "--port", port) as server:
        server.until(lambda: healthy(page, timeout_s=30))
        require_newest(httpx.get(page, timeout=30).text, nights=2)
        record(home, "tonight", 0.875, uuid4())
        assert values(httpx.get(page, timeout=30).text)["tickline_auc"] == {
            frozenset({"candidate"}): 0.875
        }
        assert listening(server.process.pid) == {(HOST, port)}
        assert server.interrupt() == 0
    assert not healthy(page)


def test_metrics_go_to_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    textfile = tmp_path / "tickline.prom"
    with pytest.raises(ConfigError, match="--textfile"):
        tickline("metrics", "--textfile", textfile, "--push", "http://127.0.0.1:9")
    assert not textfile.exists()


@pytest.fixture
def deployed(home: Settings) -> Iterator[Settings]:
    """The nightly is deployed at one o'clock in New York; its schedule is off."""
    with get_client(sync_client=True) as client:
        cron = CronSchedule(cron="0 1 * * *", timezone="America/New_York")
        deployment = client.create_deployment(
            client.create_flow_from_name("nightly"),
            "nightly",
            schedules=[DeploymentScheduleCreate(schedule=cron, active=False)],
        )
        yield home
        remove_alerts()  # a failed test must not leave any to the others on this server
        client.delete_deployment(deployment)


def automations() -> dict[str, ReadAutomation]:
    with get_client(sync_client=True) as client:
        return {found.name: found for found in client.read_automations()}


def webhook() -> tuple[UUID, str]:
    """Id and URL of the block that the alerts call."""
    with get_client(sync_client=True) as client:
        block = client.read_block_document_by_name(BLOCK, "webhook", include_secrets=True)
    assert block.id
    return block.id, block.data["url"]


def test_alerts_are_installed_in_the_server_and_removed(
    deployed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Automation(
        name=f"another team's {uuid4()}",
        trigger=EventTrigger(expect={"never"}, posture=Posture.Reactive, threshold=1),
        actions=[DoNothing()],
    ).create()
    assert isinstance(other, Automation)
    assert other.id
    others = set(automations())
    try:
        printed = tickline("alerts", "install", "--webhook", WEBHOOK, "--stuck-after", "2.5",
                        "--deadline", "04:30")  # fmt: skip
        assert "hush" not in printed
        installed = {
            name: found for name, found in automations().items() if name.startswith(PREFIX)
        }
        assert all(name in printed for name in installed)
        assert all(found.enabled for found in installed.values())
        block, url = webhook()
        assert url == WEBHOOK
        called = {
            action.block_document_id
            for found in installed.values()
            for action in found.actions
            if isinstance(action, CallWebhook)
        }
        assert called == {block}
        # counted by Prefect: from a run's start until it is stuck, from one o'clock to the deadline
        waits = {
            found.trigger.within
            for found in installed.values()
            if isinstance(found.trigger, EventTrigger) and found.trigger.within
        }
        deadline = dt.timedelta(hours=3.5)
        # without a night since the one before: a day longer
        assert waits == {dt.timedelta(hours=2.5), deadline, deadline + dt.timedelta(days=1)}

        monkeypatch.setenv("TICKLINE_WEBHOOK", f"{WEBHOOK}-2")
        tickline("alerts", "install")
        assert set(automations()) == {*installed, *others}
        assert webhook() == (block, f"{WEBHOOK}-2")
        with pytest.raises(ConfigError, match="stuck"):
            tickline("alerts", "install", "--stuck-after", "0.001")
        assert set(automations()) == {*installed, *others}

        assert str(len(installed)) in tickline("alerts", "remove")
        assert set(automations()) == others
        with pytest.raises(ObjectNotFound):
            webhook()
    finally:
        with get_client(sync_client=True) as client:
            client.delete_automation(other.id)


def test_alerts_without_a_webhook_are_refused(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKLINE_WEBHOOK", raising=False)
    with pytest.raises(ConfigError, match="no webhook"):
        tickline("alerts", "install")
    assert not any(name.startswith(PREFIX) for name in automations())
