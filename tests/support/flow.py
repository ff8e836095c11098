"""Nights small enough for tests, large enough for every stage, and what they left in the stores."""

from typing import Any
from uuid import UUID

from mlflow.entities import DatasetInput, Run
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.nightly import nightly
from flows.runs.find import find_run
from flows.runs.outcome import Outcome
from model_code.settings import (
    AttributionSpec,
    BenchmarkSpec,
    NetworkSpec,
    NightlySpec,
    Settings,
    SplitSpec,
    TrainingSpec,
    ValidationSpec,
)
from tasks.runs import mlflow_runs
from tasks.runs.task_runs import settled_task_runs

TINY_NETWORK = NetworkSpec(d_model=16, heads=2, layers=1, feed_forward=32)
QUICK_BENCHMARK = BenchmarkSpec(
    engines=("onnxruntime-fp32", "openvino-fp32", "tensorrt-fp16"),
    warmup=2,
    requests=40,
    rounds=2,
    batches=(1, 64),
    throughput_rounds=1,
    open_loop_requests=6,
    served=False,
    concurrency=(1, 4),
    concurrent_requests=20,
)


def tiny(market: str, **changes: object) -> NightlySpec:
    """A nightly of seconds."""
    values: dict[str, object] = {
        "market": market,
        "validation": ValidationSpec(minimum_rows=100),
        "split": SplitSpec(train_windows=512, validation_windows=256, test_windows=256),
        "network": TINY_NETWORK,
        "training": TrainingSpec(epochs=2, batch_size=32, learning_rate=2e-3),
        "attributions": AttributionSpec(windows=0),  # the first in a process takes seconds
        "benchmark": QUICK_BENCHMARK,
    }
    return NightlySpec(**(values | changes))  # type: ignore[arg-type]


def nightly_outcome(spec: NightlySpec) -> Outcome:
    """Run a nightly that is not skipped; what it came to."""
    outcome = nightly(spec)
    assert isinstance(outcome, Outcome)
    return outcome


def schedule_run(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """A run of the deployment that waits for a worker."""
    run = run_deployment(deployment, parameters=parameters, timeout=0)
    assert isinstance(run, FlowRun)
    return run


SIMULATED = "simulated:?seed=3&instruments=1&days=2&minutes=2"
EASY = """
minimum_events: 1  # of a few hundred windows
goals:
  - {name: finite, metric: non_finite, kind: threshold, maximum: 0}
  - {name: like FP32, metric: max_abs_dp, kind: threshold, maximum: 0.02}
  - {name: no worse, metric: auc, kind: min-improvement, limit: 0.0, unit: absolute}
"""


def parents(settings: Settings) -> list[Run]:
    mlflow = MlflowClient(settings.tracking_uri)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    runs = mlflow.search_runs([experiment], order_by=["attributes.start_time ASC"])
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


def children(settings: Settings, parent: str) -> dict[str, Run]:
    mlflow = MlflowClient(settings.tracking_uri)
    found = mlflow.search_runs(
        [mlflow_runs.experiment_id(mlflow, settings)], f"tags.`mlflow.parentRunId` = '{parent}'"
    )
    return {run.data.tags[mlflow_runs.STAGE_TAG]: run for run in found}


def dataset_inputs(run: Run) -> list[DatasetInput]:
    """The datasets that the run logged."""
    assert run.inputs is not None
    return run.inputs.dataset_inputs


def paths(mlflow: MlflowClient, run_id: str, folder: str) -> set[str]:
    return {entry.path for entry in mlflow.list_artifacts(run_id, folder)}


def stage_states(flow_run: str) -> dict[str, str]:
    """Final state by stage of a flow run that has ended, as the server has it; of the last try."""
    return states_of(find_run(flow_run).id)


def states_of(flow_run: UUID) -> dict[str, str]:
    """As `stage_states`, of a run of any flow."""
    with get_client(sync_client=True) as client:
        runs = settled_task_runs(client, flow_run)
    newest_last = reversed(runs)
    return {run.name: str(run.state.name) for run in newest_last if run.state}
