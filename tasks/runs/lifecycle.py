"""The beginning and the end of a flow run: one MLflow parent run, one flow at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.tracking import MlflowClient
from prefect.artifacts import create_link_artifact
from prefect.exceptions import Pause
from prefect.runtime import flow_run

from infra.logs import json_log
from model_code import __version__
from model_code.settings import NightlySpec, Settings
from tasks.caching.stage import RunRef, console
from tasks.runs import mlflow_runs
from tasks.runs.cleanup import clean_up
from tasks.runs.faults import Fault
from tasks.runs.heartbeat import heartbeat, heartbeat_tags
from tasks.runs.lock import hold_lock, record_owner


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the home folder's lock, and first set right what a dead flow run left behind.

    Raises:
        BusyError: another process holds it.
    """
    with hold_lock(settings):
        try:
            swept = clean_up(settings, own=str(flow_run.id))
        except Exception as error:  # tidying up must not cost a night
            console.print(f"[yellow]runs of dead processes could not be closed: {error}")
        else:
            for name in swept.crashed:
                console.print(f"[yellow]{name} had died without a word: now Crashed")
        record_owner(settings)
        yield


@contextmanager
def tracked(settings: Settings, spec: NightlySpec, *, simulated: bool) -> Iterator[RunRef]:
    """One parent MLflow run for this flow run; a retried flow run continues its own.

    The MLflow run carries the Prefect run's id and address, the Prefect run a link to MLflow's.
    """
    mlflow = mlflow_runs.client(settings)
    flow_run_id, name = str(flow_run.id), str(flow_run.name)
    run_id = mlflow_runs.continue_or_start(
        mlflow,
        settings,
        name=name,
        identity={mlflow_runs.FLOW_RUN_TAG: flow_run_id},
        tags={
            "prefect.flow_run_name": name,
            "prefect.flow_run_url": f"{settings.prefect_ui_url}/runs/flow-run/{flow_run_id}",
            "tickline.version": __version__,
            "tickline.simulated": str(simulated).lower(),
            "tickline.market": str(spec.market),
            "mlflow.source.git.commit": mlflow_runs.code_commit(),
        },
        marks=heartbeat_tags(),
    )
    run = RunRef(settings=settings, mlflow_run_id=run_id, flow_run_id=flow_run_id)
    ids = {"flow_run_id": flow_run_id, "flow_run_name": name, "mlflow_run_id": run_id}
    try:
        with heartbeat(mlflow, run_id), json_log(settings, **ids):
            experiment = mlflow_runs.experiment_id(mlflow, settings)
            create_link_artifact(
                link=f"{settings.mlflow_ui_url}/#/experiments/{experiment}/runs/{run_id}",
                link_text="MLflow run",
                key="mlflow-run",
                description="Parameters, curves, plots, engines and the model of this run.",
            )
            mlflow_runs.log_params(mlflow, run_id, mlflow_runs.flatten(spec))
            mlflow_runs.log_environment(mlflow, run_id)
            yield run
    except Pause:
        raise
    except BaseException as error:
        _close(mlflow, run_id, error)
        raise
    for tag in mlflow.get_run(run_id).data.tags.keys() & {
        mlflow_runs.ERROR_TAG,
        mlflow_runs.FAULT_TAG,
    }:
        mlflow.delete_tag(run_id, tag)  # of an earlier attempt
    mlflow_runs.finish(mlflow, run_id, "FINISHED")


def _close(mlflow: MlflowClient, run_id: str, error: BaseException) -> None:
    text = str(error)[:500] or type(error).__name__
    tags = {mlflow_runs.ERROR_TAG: text, mlflow_runs.FAULT_TAG: Fault.of(error).model_dump_json()}
    try:
        mlflow_runs.set_tags(mlflow, run_id, tags)
        mlflow_runs.finish(mlflow, run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
    except Exception as second:  # the first error is the one to tell; the next sweep closes the run
        console.print(f"[yellow]the MLflow run could not be closed: {second}")
