"""`tickline sweep` on the runs of a dead process; `tickline rerun --wait` with a real worker."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed, Running

from infra.process import ProcessId
from model_code.errors import TicklineError
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.heartbeat import PROCESS_TAG
from tests.support.cli import running, tickline
from tests.support.deployed import scheduled


@flow(name="nightly")
def nothing() -> None: ...


Start = Callable[[str, ProcessId], tuple[UUID, str]]


@pytest.fixture
def start(home: Settings) -> Iterator[Start]:
    """Make a nightly that reads RUNNING in both stores; its ids in Prefect and in MLflow."""
    made: list[UUID] = []
    with get_client(sync_client=True) as client:

        def start_as(name: str, process: ProcessId) -> tuple[UUID, str]:
            run = client.create_flow_run(nothing, name=name, state=Running())
            made.append(run.id)
            mlflow_run = mlflow_runs.continue_or_start(
                mlflow_runs.client(home),
                home,
                name=name,
                identity={mlflow_runs.FLOW_RUN_TAG: str(run.id)},
                tags={PROCESS_TAG: process.model_dump_json()},
            )
            return run.id, mlflow_run

        yield start_as
        for flow_run_id in made:
            client.delete_flow_run(flow_run_id)


def statuses(settings: Settings, flow_run_id: UUID, mlflow_run_id: str) -> tuple[str | None, str]:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run_id).state
    assert state is not None
    run = MlflowClient(settings.tracking_uri).get_run(mlflow_run_id)
    return state.name, str(run.info.status)


def test_sweep_closes_the_runs_of_dead_processes_only(home: Settings, start: Start) -> None:
    own = ProcessId.own()
    lives = start("lively-lynx", own)
    dead = start("dead-dodo", own.model_copy(update={"birth": "earlier"}))
    printed = tickline("sweep")
    assert statuses(home, *dead) == ("Crashed", "KILLED")
    assert statuses(home, *lives) == ("Running", "RUNNING")
    assert printed.count("dead-dodo") == 2  # one line for each store
    assert "lively-lynx" not in printed
    assert "dead-dodo" not in tickline("sweep")


def fail(client: SyncPrefectClient, run: FlowRun) -> None:
    """Make it a run that has begun and failed."""
    client.set_flow_run_state(run.id, Running(), force=True)
    client.set_flow_run_state(run.id, Failed(message="it failed before"), force=True)


def test_rerun_waits_for_the_worker_and_tells_how_the_run_ended(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "0.5")
    needed = tmp_path / "needed"
    with scheduled(needed) as (pool, run), get_client(sync_client=True) as client:

        def state() -> str | None:
            return client.read_flow_run(run.id).state_name

        fail(client, run)
        with running(tmp_path / "worker.log", "worker", "--pool", pool) as worker:
            worker.until(lambda: client.read_workers_for_work_pool(pool))
            with pytest.raises(TicklineError, match="Failed") as caught:
                tickline("rerun", run.name, "--wait")
            assert state() == "Failed"
            assert worker.process.poll() is None
            assert caught.value.remedy
            assert run.name in caught.value.remedy

            needed.touch()
            printed = tickline("rerun", run.name, "--wait")
            assert state() == "Completed"
            assert "Completed check file" in printed
            assert "Failed" not in printed  # the stages of earlier attempts are not reported again
            assert worker.interrupt() == 0


def test_rerun_without_wait_leaves_the_run_to_the_worker(home: Settings, tmp_path: Path) -> None:
    with scheduled(tmp_path / "needed") as (pool, run), get_client(sync_client=True) as client:
        fail(client, run)
        printed = tickline("rerun", run.name)
        found = client.read_flow_run(run.id)
    assert found.state_name == "Scheduled"
    assert run.name in printed
    assert pool in printed  # which no worker serves
