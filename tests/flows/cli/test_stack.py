"""`tickline ui`, `logs`, `pause`, what `up` deploys. The whole: tests/infra/test_supervisor.py.

`tickline worker` is in test_oncall.py, where it continues a run that failed.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect import get_client

from infra import stack_state
from infra.automations import remove_alerts
from infra.process import ProcessId
from infra.servers import HOST, free_ports, healthy
from infra.services import Plan
from infra.stack_state import StackState
from model_code.errors import ConfigError
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tests.support.cli import listening, running, tickline


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home folder that knows of no other Prefect server."""
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
    return Settings().resolved()


@pytest.mark.servers
def test_ui_serves_both_pages_of_the_home_folder_until_interrupted(
    alone: Settings, tmp_path: Path, mlflow_template: Path
) -> None:
    alone.home.mkdir()
    shutil.copyfile(mlflow_template, alone.home / "mlflow.db")
    mlflow_runs.experiment_id(mlflow_runs.client(alone), alone)
    ports = free_ports(2)
    prefect, mlflow = (f"http://{HOST}:{port}" for port in ports)
    with running(
        tmp_path / "printed", "ui", "--prefect-port", ports[0], "--mlflow-port", ports[1]
    ) as pages:
        pages.until(lambda: any(mlflow in line for line in pages.lines))
        assert any(prefect in line for line in pages.lines)
        for page in (prefect, mlflow):
            answer = httpx.get(page, follow_redirects=True)
            assert answer.status_code == httpx.codes.OK
            assert "<html" in answer.text
        assert httpx.get(f"{prefect}/ui-settings").json()["api_url"] == f"{prefect}/api"
        assert httpx.post(f"{prefect}/api/flow_runs/count", json={}).json() == 0
        assert (alone.home / "prefect" / "prefect.db").exists()
        found = httpx.get(
            f"{mlflow}/ajax-api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": alone.mlflow_experiment},
        )
        assert found.status_code == httpx.codes.OK  # what the home folder's store holds
        assert {host for host, _ in listening(pages.process.pid)} == {HOST}
        assert pages.interrupt() == 0
    assert not healthy(f"{prefect}/api/health")
    assert not healthy(f"{mlflow}/health")


@pytest.fixture
def running_stack(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home whose stack seems to run; its Prefect server is the session's."""
    monkeypatch.delenv("TICKLINE_WEBHOOK", raising=False)
    state = StackState(supervisor=ProcessId.own(), plan=Plan(names=(), ports={}), services=())
    stack_state.state_path(home).write_text(state.model_dump_json())
    yield home
    remove_alerts()
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():  # none may become due in another test
            client.delete_deployment(deployment.id)


def active() -> dict[str, tuple[bool, tuple[bool, ...]]]:
    """Whether each deployment with a schedule is active, and each of its schedules."""
    with get_client(sync_client=True) as client:
        return {
            found.name: (not found.paused, tuple(one.active for one in found.schedules))
            for found in client.read_deployments()
            if found.schedules
        }


def test_up_leaves_paused_what_is_paused_and_installs_the_alerts_once(
    running_stack: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = tickline("up")
    assert "no alerts" in printed
    assert "TICKLINE_WEBHOOK=https://... tickline up" in printed
    assert "is paused" not in printed
    assert set(active().values()) == {(True, (True,))}

    assert "tickline resume nightly" in tickline("pause")
    with get_client(sync_client=True) as client:  # as the switch in Prefect's page
        hourly = client.read_deployment_by_name("feedback/feedback")
        client.update_deployment_schedule(hourly.id, hourly.schedules[0].id, active=False)
    before = active()
    assert before == before | {"nightly": (False, (False,)), "feedback": (True, (False,))}
    monkeypatch.setenv("TICKLINE_WEBHOOK", "http://127.0.0.1:9/?token=hush")
    for word in ("7 alerts installed; they call", "7 alerts installed already, unchanged"):
        printed = tickline("up")
        assert word in printed
        assert "hush" not in printed
        for name in ("nightly", "feedback"):
            assert f"{name} is paused" in printed
            assert f"tickline resume {name}" in printed
        assert active() == before
    assert "nightly is paused" in tickline("status")

    tickline("resume")
    tickline("resume", "feedback")
    assert set(active().values()) == {(True, (True,))}
    assert "is paused" not in tickline("status")
    with pytest.raises(ConfigError, match="no deployment named weekly") as caught:
        tickline("pause", "weekly")
    assert "nightly" in str(caught.value.remedy)


def test_up_refuses_a_wrong_webhook_before_anything_starts(
    alone: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_WEBHOOK", "hush.example")
    with pytest.raises(ConfigError, match="http or https") as caught:
        tickline("up")
    assert "hush" not in str(caught.value)
    assert not stack_state.locked(alone)


def test_logs_print_the_last_lines_and_follow(alone: Settings, tmp_path: Path) -> None:
    path = stack_state.log_path(alone, "worker")
    path.parent.mkdir(parents=True)
    path.write_text("first\nsecond [bold]\nthird\n")
    assert tickline("logs", "worker", "-n", "2").strip() == "second [bold] third"
    with running(tmp_path / "printed", "logs", "worker", "-n", "1", "-f") as follower:
        follower.until(lambda: follower.lines == ["third"])
        with path.open("a") as log:
            log.write("fourth\n")
        follower.until(lambda: follower.lines == ["third", "fourth"])
        assert follower.interrupt() == 0
    with pytest.raises(ConfigError, match="no such log"):
        tickline("logs", "nobody")
