"""The links and the log of a flow run."""

import json

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from flows.runs.find import find_run
from infra import stack_state
from infra.process import ProcessId
from infra.services import Plan
from infra.stack_state import StackState
from model_code.repository.audit import account
from model_code.settings import NightlySpec, Settings
from tasks.runs import mlflow_runs
from tasks.runs.lifecycle import tracked


def test_links_lead_to_the_homes_own_stack(home: Settings, prefect_url: str) -> None:
    plan = Plan(names=("mlflow",), ports={"mlflow": 15000})
    state = StackState(supervisor=ProcessId.own(), plan=plan, services=())
    stack_state.state_path(home).write_text(state.model_dump_json())

    @flow(name="nightly", flow_run_name="linked")
    def nightly() -> str:
        with tracked(home, NightlySpec(), simulated=True) as run:
            return run.mlflow_run_id

    mlflow_run_id = nightly()
    flow_run_id = find_run("linked").id
    tags = mlflow_runs.client(home).get_run(mlflow_run_id).data.tags
    page = prefect_url.removesuffix("/api")
    assert tags["prefect.flow_run_url"] == f"{page}/runs/flow-run/{flow_run_id}"
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        (link,) = client.read_artifacts(artifact_filter=of_run)
    assert "http://127.0.0.1:15000/#/experiments/" in str(link.data)
    assert f"/runs/{mlflow_run_id}?workflowType=machine_learning" in str(link.data)


def test_a_run_says_who_started_what_with_which_parameters(home: Settings) -> None:
    spec = NightlySpec(market="simulated:", calendar="XNYS")

    @flow(name="nightly", flow_run_name="recorded")
    def nightly() -> tuple[str, str]:
        with tracked(home, spec, simulated=True) as run:
            mlflow = mlflow_runs.client(home)
            return run.mlflow_run_id, mlflow_runs.nested(mlflow, home, run.mlflow_run_id, "train")

    mlflow = mlflow_runs.client(home)
    night, nested = (mlflow.get_run(run_id).data for run_id in nightly())
    for data in (night, nested):
        assert data.tags["mlflow.user"] == account()
        assert data.tags["mlflow.source.name"] == "tickline nightly"
        assert data.tags["mlflow.source.type"] == "LOCAL"
    # MLflow's page hides "mlflow."
    shown = {name for name in night.tags if not name.startswith("mlflow.")}
    assert not any("process" in name or "heartbeat" in name for name in shown)
    assert night.params["calendar"] == "XNYS"
    assert night.params["benchmark.batches"] == "1, 8, 16, 32, 64"
    # what the run chooses, it logs later
    assert not {"instruments", "test_date", "features.label"} & set(night.params)
    assert not {"None", "()", "{}"} & set(night.params.values())


def test_a_nights_log_says_how_it_began_and_ended(home: Settings) -> None:
    @flow(name="nightly", flow_run_name="logged")
    def nightly() -> None:
        with tracked(home, NightlySpec(), simulated=True):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        nightly()
    (path,) = (home.home / "logs").glob("tickline-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    own = [line for line in lines if line["logger"] == "tickline"]
    assert [line["message"] for line in own] == ["run started", "run stopped"]
    assert (own[1]["cause"], own[1]["kind"], own[1]["what"]) == ("code", "ValueError", "no")
    assert all(line["mlflow_run_id"] and line["flow_run_id"] for line in own)
