"""Read the history of nightly runs; report an unreachable store instead of failing."""

import datetime as dt
import math
import os
from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from infra.servers import environment, healthy, running_server
from infra.stack_state import mlflow_page, prefect_page
from infra.ui import mlflow_link
from model_code.errors import IntegrityError
from model_code.monitoring.history import (
    BAD_STATES,
    CANCELLED,
    FINISHED,
    History,
    Night,
    Serving,
    StageTime,
)
from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import ApprovedException, serving_exception
from model_code.settings import MODEL_NAME, Settings
from tasks.monitoring.deadline import due_night, next_night
from tasks.runs import mlflow_runs
from tasks.runs.faults import Fault
from tasks.runs.metric_names import plain
from tasks.runs.serving_version import serving_version
from tasks.runs.stored import instrument_days
from tasks.runs.task_runs import stage_name, task_runs

if TYPE_CHECKING:
    from prefect.client.schemas.objects import TaskRun

SCRAPE_S = 4.0  # Prometheus allows 10 s for the whole scrape
APPROVED_AT = "approved_at"  # model version tag written by a promotion, ISO 8601


def read_history(settings: Settings, *, nights: int = 30) -> History:
    """Read the newest nightly runs, the champion, and which stores answered.

    Args:
        settings: where the stores are.
        nights: at most this many runs, newest first.
    """
    exception, intact = _exception(settings)
    try:
        mlflow = mlflow_runs.client(settings)
        found = _nights(mlflow, settings, nights)
        champion, problem = _champion(mlflow, settings)
    except (MlflowException, SQLAlchemyError):
        sources = {"mlflow": False, "prefect": False, "audit": intact}
        return History(nights=(), champion=None, sources=sources, exception=exception)
    url = prefect_url(settings)
    if url:
        found = _with_prefect(settings, url, found)
    sources = {"mlflow": True, "prefect": url is not None, "audit": intact}
    now = dt.datetime.now(dt.UTC)
    return History(
        nights=tuple(found),
        champion=champion,
        sources=sources,
        exception=exception,
        problem=problem,
        due=due_night(settings, url, now),
        upcoming=next_night(settings, url, now),
    )


def prefect_url(settings: Settings) -> str | None:
    """Return the URL of a running Prefect server, or None. Starts none and does not wait."""
    url = settings.prefect_api_url or os.environ.get("PREFECT_API_URL")
    url = url or running_server(settings, wait_s=0.0)  # a scrape must not time out
    return url if url and healthy(f"{url}/health", timeout_s=SCRAPE_S) else None


def _nights(mlflow: MlflowClient, settings: Settings, limit: int) -> list[Night]:
    experiment = mlflow.get_experiment_by_name(settings.mlflow_experiment)
    if experiment is None:
        return []
    # MLflow cannot search for a missing tag, so nested runs are skipped here
    nights: list[Night] = []
    token = None
    while len(nights) < limit:
        page = mlflow.search_runs(
            [experiment.experiment_id],
            max_results=200,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        nights += [_night(run, settings) for run in page if _is_parent(run)]
        token = page.token
        if not token:
            break
    return nights[:limit]


def _is_parent(run: Run) -> bool:
    tags = run.data.tags
    return MLFLOW_PARENT_RUN_ID not in tags and mlflow_runs.FLOW_RUN_TAG in tags


def _night(run: Run, settings: Settings) -> Night:
    tags = run.data.tags
    flow_run_id, experiment = tags[mlflow_runs.FLOW_RUN_TAG], run.info.experiment_id
    tested = {date for date, _ in instrument_days(run, "test")}
    ended = run.info.end_time if run.info.status != "RUNNING" else None
    return Night(
        name=tags.get("prefect.flow_run_name", run.info.run_name),
        mlflow_run_id=run.info.run_id,
        flow_run_id=flow_run_id,
        status=_status(run),
        started=dt.datetime.fromtimestamp(run.info.start_time / 1000, dt.UTC),
        seconds=None if ended is None else (ended - run.info.start_time) / 1000,
        simulated=tags.get("tickline.simulated") == "true",
        test_date=dt.date.fromisoformat(tested.pop()) if len(tested) == 1 else None,
        mlflow_url=mlflow_link(
            mlflow_page(settings), f"experiments/{experiment}/runs/{run.info.run_id}"
        ),
        prefect_url=f"{prefect_page(settings)}/runs/flow-run/{flow_run_id}",
        verdict=tags.get("tickline.verdict"),
        engine=tags.get("tickline.engine"),
        error=tags.get("tickline.error"),
        metrics={
            plain(name): value for name, value in run.data.metrics.items() if math.isfinite(value)
        },
    )


def _status(run: Run) -> str:
    try:
        fault = Fault.model_validate_json(run.data.tags[mlflow_runs.FAULT_TAG])
    except (KeyError, ValidationError):
        return str(run.info.status)
    stopped = run.info.status == "KILLED" and fault.cause == "person"
    return CANCELLED if stopped else str(run.info.status)


def _champion(mlflow: MlflowClient, settings: Settings) -> tuple[Serving | None, str]:
    """The serving version, and what contradicts it."""
    try:
        serving = serving_version(settings)
    except IntegrityError as error:
        return None, f"{error.what}: {error.where}. {error.remedy}"
    if serving.version is None:
        return None, serving.warning
    try:
        version = mlflow.get_model_version(MODEL_NAME, str(serving.version))
    except MlflowException:
        return None, f"version {serving.version} serves, but the registry does not have it"
    approved = version.tags.get(APPROVED_AT)
    since = (
        dt.datetime.fromisoformat(approved)
        if approved
        else dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.UTC)
    )
    return Serving(version=str(version.version), since=since), serving.warning


def _exception(settings: Settings) -> tuple[ApprovedException | None, bool]:
    """The serving version's exception, and whether the audit file can be read."""
    try:
        return serving_exception(AuditLog.of(settings).read()), True
    except (IntegrityError, OSError):
        return None, False


def _with_prefect(settings: Settings, url: str, nights: list[Night]) -> list[Night]:
    """The nights with their stages; cancelled where Prefect says so, whatever MLflow kept."""
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    auth = environment(settings).get("PREFECT_API_AUTH_STRING")
    known: list[Night] = []
    changes = {PREFECT_API_URL: url} | ({PREFECT_API_AUTH_STRING: auth} if auth else {})
    with temporary_settings(changes), get_client(sync_client=True) as client:
        wanted = FlowRunFilter(
            id=FlowRunFilterId(any_=[UUID(night.flow_run_id) for night in nights]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CANCELLED])),
        )
        cancelled = {str(run.id) for run in client.read_flow_runs(flow_run_filter=wanted)}
        for night in nights:
            stages = summarise(task_runs(client, UUID(night.flow_run_id)))
            stopped = night.flow_run_id in cancelled and night.status != FINISHED
            status = CANCELLED if stopped else night.status
            known.append(night.model_copy(update={"stages": stages, "status": status}))
    return known


def summarise(runs: "list[TaskRun]") -> tuple[StageTime, ...]:
    """Group task runs by stage, in the order in which the stages started."""
    grouped: dict[str, list[TaskRun]] = defaultdict(list)
    started = [run for run in runs if run.start_time]
    for run in sorted(started, key=lambda run: run.start_time or dt.datetime.max):
        grouped[stage_name(run.task_key)].append(run)
    return tuple(
        StageTime(
            name=name,
            state=_worst([run.state_name or "Pending" for run in members]),
            seconds=sum(run.total_run_time.total_seconds() for run in members),
        )
        for name, members in grouped.items()
    )


def _worst(states: list[str]) -> str:
    others = [state for state in states if state not in {"Completed", "Cached"}]
    bad = [state for state in others if state in BAD_STATES]
    return next(iter([*bad, *others]), "Completed" if "Completed" in states else "Cached")
