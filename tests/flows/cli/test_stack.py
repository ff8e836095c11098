"""`tickline ui` and `logs`. The whole stack is in tests/infra/test_supervisor.py.

`tickline worker` is in test_oncall.py, where it continues a run that failed.
"""

import shutil
from pathlib import Path

import httpx
import pytest

from infra import stack_state
from infra.servers import HOST, free_ports, healthy
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
