"""Resume a flow run that failed, crashed or was killed: the same run, from where it stopped."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect import Flow, get_client
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from flows.runs.find import (
    EXPLAINED,
    NIGHTLY,
    find_run,
    flow_of,
    is_resumable,
    last_failed,
)
from model_code.errors import ConfigError
from model_code.settings import Settings
from tasks.caching.repair import damaged_artefact, drop_artefact
from tasks.runs import mlflow_runs
from tasks.runs.cleanup import clean_up, process_lives
from tasks.runs.heartbeat import SILENT_S
from tasks.runs.lock import BusyError, require_idle
from tasks.runs.names import RERUNNABLE, next_command, title
from tasks.runs.task_runs import plain_name, settled_task_runs, task_runs

POLL_S = 1.0
SHUTDOWN_S = 30.0
Say = Callable[[str], None]


def rerun(settings: Settings, run: str | None, *, say: Say) -> FlowRun | object:
    """Resume a run here, or hand it back to a worker if a worker started it.

    Args:
        settings: where its stores are.
        run: the flow run's name or id; None for the newest nightly that is not completed and that
            nobody cancelled.
        say: called with each progress message.

    Returns:
        What the flow returned, or the flow run if a worker resumes it.

    Raises:
        ConfigError: no such run, it is completed, or it is still running.
        TicklineError: it failed again.
    """
    _require_idle(settings)
    clean_up(settings)
    found = last_failed((NIGHTLY,)) if run is None else find_run(run, EXPLAINED, say=say)
    _require_rerunnable(found)
    if not is_resumable(found):
        raise ConfigError(
            f"{title(flow_of(found), found.name)} is completed: nothing to rerun",
            remedy="to compute everything again: tickline nightly --refresh",
        )
    _require_ended(settings, found)
    _await_exit(found)
    _drop_damaged_artefact(settings, found, say)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(found.id, Scheduled(message="tickline rerun"), force=True)
        found = client.read_flow_run(found.id)
        if found.deployment_id:
            _warn_without_worker(found, say)
            return found
    flow = _flow(flow_of(found))
    parameters = flow.validate_parameters(found.parameters)
    say(f"resuming {found.name}")
    outcome: object = run_flow(flow, flow_run=found, parameters=parameters)
    return outcome


def follow(flow_run_id: UUID, *, say: Say) -> State[Any]:
    """Report each stage that ends until the flow run has ended; return its final state."""
    with get_client(sync_client=True) as client:
        reported = {
            (stage.id, str(stage.end_time))  # of an earlier attempt
            for stage in task_runs(client, flow_run_id)
        }
        while True:
            state = client.read_flow_run(flow_run_id).state
            over = state is not None and state.is_final()
            read = settled_task_runs if over else task_runs
            for stage in read(client, flow_run_id):
                ended = stage.state is not None and stage.state.is_final()
                if ended and (stage.id, str(stage.end_time)) not in reported:
                    reported.add((stage.id, str(stage.end_time)))
                    say(f"  {stage.state_name:<9} {plain_name(stage)}")
            if state is not None and over:
                return state
            time.sleep(POLL_S)


def _require_idle(settings: Settings) -> None:
    # a killed run still reads Running in Prefect; the lock tells whether it is alive
    try:
        require_idle(settings)
    except BusyError as error:
        raise ConfigError(
            error.what,
            where=error.where,
            remedy="wait for it; only a run that has ended can be rerun"
            if settings.store is None
            else error.remedy,
        ) from error


def _require_rerunnable(run: FlowRun) -> None:
    flow = flow_of(run)
    if flow in RERUNNABLE:
        return
    again = next_command(flow, run) or f"tickline {flow}"
    raise ConfigError(f"{run.name} is a {flow}, which rerun does not resume", remedy=again)


def _require_ended(settings: Settings, run: FlowRun) -> None:
    # the lock covers only this home; a run of another home that `clean_up` left open is alive
    if run.state is None or run.state.is_final():
        return
    mlflow = mlflow_runs.client(settings)
    query = f"tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{run.id}' and attributes.status = 'RUNNING'"
    experiments = [found.experiment_id for found in mlflow.search_experiments()]
    if mlflow.search_runs(experiments, query, max_results=1):
        raise ConfigError(
            f"{run.name} is running on another machine or in another home folder",
            remedy="wait for it. If that machine is gone, retry "
            f"{SILENT_S / 60:.0f} minutes after the run's last heartbeat",
        )


def _await_exit(run: FlowRun) -> None:
    # once its worker is killed, a run's process takes some seconds to exit; scheduled before that,
    # the run would be marked Crashed by its old process
    if run.state is None or run.state.is_final():
        return
    deadline = time.monotonic() + SHUTDOWN_S
    while process_lives(run):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{run.name}'s process is still shutting down after {SHUTDOWN_S:.0f} s",
                where=str(run.infrastructure_pid),
                remedy="kill it, then run the same command",
            )
        time.sleep(POLL_S)


def _drop_damaged_artefact(settings: Settings, run: FlowRun, say: Say) -> None:
    message = (run.state.message if run.state else None) or ""
    damaged = damaged_artefact(settings, message)
    if damaged is not None:
        drop_artefact(settings, damaged)
        say(f"{damaged.name} is damaged: it is computed again")


def _warn_without_worker(run: FlowRun, say: Say) -> None:
    if run.work_pool_name is None:
        return
    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(run.work_pool_name)
    if any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return
    say(
        f"[yellow]no worker of pool {run.work_pool_name} is online: tickline up, or tickline worker"
    )


def _flow(name: str) -> Flow[Any, Any]:
    match name:
        case "bench":
            from flows.bench import bench

            return bench
        case "backfill":
            from flows.backfill import backfill

            return backfill
        case _:
            from flows.nightly import nightly

            return nightly
