"""Start and end of a flow run: its log, one parent run in MLflow, one flow at a time."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER
from prefect import get_client
from prefect.artifacts import create_link_artifact
from prefect.exceptions import Pause
from prefect.runtime import flow_run

from infra.leases.lease import LeaseLostError
from infra.logs import json_log, log
from infra.stack_state import prefect_page
from model_code import __version__
from model_code.features.definition import FEATURES_VERSION
from model_code.settings import NightlySpec, Settings
from model_code.settings.changes import to_yaml
from tasks.caching.stage import RunRef
from tasks.runs import mlflow_runs
from tasks.runs.cleanup import clean_up
from tasks.runs.console import console
from tasks.runs.faults import CANCELLED, Fault
from tasks.runs.heartbeat import heartbeat, heartbeat_tags
from tasks.runs.lock import hold_lock, record_owner
from tasks.runs.page import say
from tasks.runs.started_by import TAG, by_worker, started_by, with_name

P = ParamSpec("P")
R = TypeVar("R")
RESOLVED = ("instruments", "test_date")  # parameters that a run logs once it knows its days


@contextmanager
def run_log(settings: Settings, *, mlflow_run_id: str = "") -> Iterator[None]:
    """Write the block's records to the home's structured log, and how the run ended.

    Args:
        settings: of the home folder.
        mlflow_run_id: empty if the run has none, or not yet (`infra.logs.identify` sets it).
    """
    ids = {"flow_run_id": str(flow_run.id), "flow_run_name": str(flow_run.name)}
    with json_log(settings, **ids, mlflow_run_id=mlflow_run_id):
        log("run started", flow=str(flow_run.flow_name))
        try:
            yield
        except Pause:
            log("run suspended")
            raise
        except BaseException as error:
            fault = fault_of(error)
            log("run stopped", level=logging.ERROR, **fault.model_dump())
            raise
        log("run completed")


def logged(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a flow's function in `run_log`, for a flow without a parent run in MLflow."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with run_log(Settings().resolved()):
            return function(*args, **kwargs)

    return run


def fault_of(error: BaseException) -> Fault:
    """Why the current flow run stops: what was raised, unless a person cancelled the run."""
    if not isinstance(error, Exception):  # Prefect stops a cancelled run by a signal
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(UUID(str(flow_run.id))).state
        except Exception:  # the server is gone too
            state = None
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            return CANCELLED
    return Fault.of(error)


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Hold the home folder's lock; at the start close the runs that dead processes left open.

    Raises:
        BusyError: another process holds it.
    """
    with hold_lock(settings):
        try:
            closed = clean_up(settings, own=str(flow_run.id))
        except Exception as error:  # a failed clean-up must not stop the run
            console.print(f"[yellow]could not close the runs of dead processes: {error}")
        else:
            for name in closed.crashed:
                console.print(f"[yellow]{name} marked Crashed: its process no longer exists")
        record_owner(settings)
        yield


@contextmanager
def tracked(settings: Settings, spec: NightlySpec, *, simulated: bool) -> Iterator[RunRef]:
    """Open this flow run's parent run in MLflow; a retried flow run continues its own.

    Tags of the MLflow run hold the Prefect run's id and URL. The Prefect run links to MLflow.
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
            "prefect.flow_run_url": f"{prefect_page(settings)}/runs/flow-run/{flow_run_id}",
            "tickline.version": __version__,
            "tickline.simulated": str(simulated).lower(),
            "tickline.market": str(spec.market),
            mlflow_runs.COMMIT_TAG: mlflow_runs.code_commit(),
            mlflow_runs.FEATURES_TAG: FEATURES_VERSION,
            MLFLOW_SOURCE_NAME: f"tickline {str(flow_run.flow_name).split()[0]}",
            MLFLOW_SOURCE_TYPE: "JOB" if by_worker() else "LOCAL",
        },
        marks=heartbeat_tags(),
    )
    names = with_name(mlflow.get_run(run_id).data.tags.get(TAG, ""), started_by())
    # an earlier attempt may have had another name
    found = {TAG: names, MLFLOW_USER: names, "prefect.flow_run_name": name}
    mlflow_runs.set_tags(mlflow, run_id, found)
    mlflow.update_run(run_id, name=name)
    run = RunRef(settings=settings, mlflow_run_id=run_id, flow_run_id=flow_run_id, started_by=names)
    try:
        with heartbeat(mlflow, run_id), run_log(settings, mlflow_run_id=run_id):
            link = mlflow_runs.run_link(mlflow, settings, run_id)
            create_link_artifact(
                link=link,
                link_text="MLflow run",
                key="mlflow-run",
                description="Parameters, curves, plots, engines and the model of this run.",
            )
            mlflow_runs.log_params(mlflow, run_id, _given(spec))
            mlflow.log_text(run_id, to_yaml(spec), mlflow_runs.SPEC_FILE)
            mlflow_runs.log_environment(mlflow, run_id)
            yield run
            say(f"MLflow run: {link}")
            say(f"reports: {mlflow_runs.run_link(mlflow, settings, run_id, 'artifacts')}")
    except Pause:
        raise
    except LeaseLostError:  # another host may have resumed the run: its MLflow run is that one's
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


def _given(spec: NightlySpec) -> dict[str, Any]:
    """Parameters that the specification sets; what it leaves to the run is logged later."""
    flat = mlflow_runs.flatten(spec)
    return {
        name: value
        for name, value in flat.items()
        if name not in RESOLVED and value not in (None, (), {})
    }


def _close(mlflow: MlflowClient, run_id: str, error: BaseException) -> None:
    fault = fault_of(error)
    text = str(error)[:500] or type(error).__name__
    tags = {
        mlflow_runs.ERROR_TAG: fault.what if fault == CANCELLED else text,
        mlflow_runs.FAULT_TAG: fault.model_dump_json(),
    }
    try:
        mlflow_runs.set_tags(mlflow, run_id, tags)
        mlflow_runs.finish(mlflow, run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
    except Exception as second:  # report the first error; the next clean-up closes the run
        console.print(f"[yellow]could not close the MLflow run: {second}")
