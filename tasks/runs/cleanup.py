"""Close runs that dead processes left open in MLflow and Prefect.

The run of a live process is never closed. On this machine the process itself is checked. A run of
another machine counts as dead once its heartbeat is `SILENT_S` old.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.process import ProcessId, birth
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.faults import CANCELLED
from tasks.runs.heartbeat import (
    BEAT_TAG,
    EARLIER_BEAT_TAG,
    EARLIER_PROCESS_TAG,
    PROCESS_TAG,
    SILENT_S,
)
from tasks.runs.lock import read_owner

FLOWS = ("nightly", "bench", "tune", "backfill", "backfill night", "promote", "rollback")
ACTIVE = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
START_S = 600.0  # a run that is Pending for longer, without a process, has lost its worker
MESSAGE = "its process no longer exists"


class CleanedUp(BaseModel):
    """The runs that were closed.

    Attributes:
        crashed: names of Prefect flow runs marked Crashed.
        cancelled: names of those that a person was cancelling, marked Cancelled.
        closed: names of MLflow runs marked KILLED.
    """

    model_config = ConfigDict(frozen=True)

    crashed: tuple[str, ...]
    cancelled: tuple[str, ...] = ()
    closed: tuple[str, ...]


def clean_up(settings: Settings, *, own: str | None = None) -> CleanedUp:
    """Close the runs of dead processes in both stores; runs of live processes stay open.

    Args:
        settings: where the stores are.
        own: id of the calling flow run, which is alive and holds the home folder's lock.
    """
    mlflow = mlflow_runs.client(settings)
    with get_client(sync_client=True) as client:
        dead = {
            run.data.tags[mlflow_runs.FLOW_RUN_TAG]: run
            for tag in (PROCESS_TAG, EARLIER_PROCESS_TAG)
            for run in _running(mlflow, f"tags.`{tag}` LIKE '%'")
            if run.data.tags.get(mlflow_runs.FLOW_RUN_TAG) not in {None, own} and _is_dead(run)
        }
        ended = list(_mark_ended(client, settings, set(dead), own))
        _mark_tasks_crashed(client)
        closed = []
        for flow_run_id, run in dead.items():
            state = _state(client, flow_run_id)
            if state is None or not state.is_paused():
                cancelled = state is not None and state.is_cancelled()
                _tag_cause(mlflow, run, cancelled=cancelled)
                mlflow_runs.finish(mlflow, run.info.run_id, "KILLED")
                closed.append(str(run.info.run_name))
        closed += _close_orphans(client, mlflow)
    return CleanedUp(
        crashed=tuple(run.name for run, cancelled in ended if not cancelled),
        cancelled=tuple(run.name for run, cancelled in ended if cancelled),
        closed=tuple(closed),
    )


def _tag_cause(mlflow: MlflowClient, run: Run, *, cancelled: bool) -> None:
    """Tag why it ended, in place of what an earlier attempt left."""
    run_id, tag = run.info.run_id, mlflow_runs.FAULT_TAG
    if cancelled:
        tags = {mlflow_runs.ERROR_TAG: CANCELLED.what, tag: CANCELLED.model_dump_json()}
        mlflow_runs.set_tags(mlflow, run_id, tags)
        return
    mlflow.set_tag(run_id, mlflow_runs.ERROR_TAG, MESSAGE)
    if tag in run.data.tags:
        mlflow.delete_tag(run_id, tag)


def _running(mlflow: MlflowClient, condition: str) -> list[Run]:
    experiments = [found.experiment_id for found in mlflow.search_experiments()]
    query = f"attributes.status = 'RUNNING' and {condition}"
    return list(mlflow.search_runs(experiments, query, max_results=1000))


def _is_dead(run: Run) -> bool:
    tags = run.data.tags
    try:
        process = ProcessId.model_validate_json(tags.get(PROCESS_TAG) or tags[EARLIER_PROCESS_TAG])
    except ValidationError:
        return False
    if process.here:
        return not process.lives
    beat = tags.get(BEAT_TAG) or tags.get(EARLIER_BEAT_TAG) or 0.0
    return time.time() - float(beat) > SILENT_S


def _close_orphans(client: SyncPrefectClient, mlflow: MlflowClient) -> Iterator[str]:
    """Close nested runs whose parent has ended; skip promotions, which may outlast it."""
    for run in _running(mlflow, f"tags.`{MLFLOW_PARENT_RUN_ID}` LIKE '%'"):
        parent = mlflow.get_run(run.data.tags[MLFLOW_PARENT_RUN_ID])
        if parent.info.status != "RUNNING" and not _is_open_promotion(client, run):
            mlflow.set_terminated(run.info.run_id, "KILLED")
            yield str(run.info.run_name)


def _is_open_promotion(client: SyncPrefectClient, run: Run) -> bool:
    """Whether it belongs to a promotion that is running or waits for approval or a worker."""
    flow_run_id = run.data.tags.get(mlflow_runs.PROMOTION_TAG)
    state = _state(client, flow_run_id) if flow_run_id else None
    if state is None or state.is_final():
        return False
    return not state.is_running() or not _is_dead(run)


def _mark_ended(
    client: SyncPrefectClient, settings: Settings, dead: set[str], own: str | None
) -> Iterator[tuple[FlowRun, bool]]:
    """Mark the flow runs of dead processes Crashed, or Cancelled; yield each and whether it is."""
    owner = read_owner(settings)
    # the caller holds the lock, so the recorded owner is gone, even one of another machine
    if owner and (own or owner.has_ended):
        dead = dead | {owner.flow_run_id}
    active = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ACTIVE)))
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(state=active),
    )
    for run in runs:
        if str(run.id) == own or not (str(run.id) in dead or _has_lost_process(run)):
            continue
        cancelling = run.state is not None and run.state.is_cancelling()
        end: State[Any] = (
            Cancelled(message=CANCELLED.what) if cancelling else Crashed(message=MESSAGE)
        )
        client.set_flow_run_state(run.id, end, force=True)
        yield run, cancelling


def _mark_tasks_crashed(client: SyncPrefectClient) -> None:
    """Mark the unfinished tasks of crashed flow runs Crashed."""
    crashed = FlowRunFilterStateType(any_=[StateType.CRASHED])
    active = TaskRunFilterStateType(any_=list(ACTIVE))
    runs = client.read_task_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=crashed)),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=active)),
    )
    for run in runs:
        client.set_task_run_state(run.id, Crashed(message=MESSAGE), force=True)


def process_lives(run: FlowRun) -> bool | None:
    """Whether the process that a worker started for it is alive; None if unknown here."""
    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    if run.deployment_id is None or not pid.isdigit():
        return None
    if not host:  # Prefect 3.8's process worker: the pid may be of another host
        return True if _runs(int(pid), run) else None
    return birth(int(pid)) is not None if host == ProcessId.own().host else None


def _runs(pid: int, run: FlowRun) -> bool:
    """Whether a process of this machine is the one that a worker started for the run."""
    try:
        return psutil.Process(pid).environ().get("PREFECT__FLOW_RUN_ID") == str(run.id)
    except (psutil.Error, OSError):
        return False


def _has_lost_process(run: FlowRun) -> bool:
    """Whether a worker took the run, but its process is gone or never started."""
    if run.deployment_id is None or run.state is None:
        return False
    if run.infrastructure_pid:
        return process_lives(run) is False
    waited = datetime.now(UTC) - run.state.timestamp
    return run.state.is_pending() and waited > timedelta(seconds=START_S)


def _state(client: SyncPrefectClient, flow_run_id: str) -> State[Any] | None:
    try:
        return client.read_flow_run(UUID(flow_run_id)).state
    except (ObjectNotFound, ValueError):
        return None
