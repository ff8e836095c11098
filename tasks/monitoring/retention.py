"""Find which files of a home folder are still needed. Prefect and MLflow must answer."""

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import ValidationError

from model_code.monitoring import retention, shared_retention
from model_code.monitoring.retention import Folders, Item, Needed, plan
from model_code.repository.manifest import MANIFEST_FILE, Manifest
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.shared import shared_objects
from model_code.storage.staged import fetch_all_staged
from tasks.runs import mlflow_runs
from tasks.runs.task_runs import PAGE, task_runs


def find(
    settings: Settings,
    *,
    keep: dt.timedelta,
    now: dt.datetime,
    expiring: Collection[Path] = (),
) -> list[Item]:
    """List everything in the home folder and in the shared store, with what needs it.

    An item is needed by a flow run that ended within `keep`; by a flow run that has not ended
    (running, scheduled, suspended); by the run behind a model version that has an alias (champion,
    previous, challenger), is staged or serves; by an MLflow run that is RUNNING.

    Args:
        settings: of the home folder.
        keep: how long to keep what ended runs need.
        now: with a time zone.
        expiring: folders of staged versions that need nothing any more.

    Raises:
        SharedStoreError: the shared store did not answer.
    """
    fetch_all_staged(settings)
    folders = Folders(
        artifacts=settings.artifacts,
        results=settings.home / "results",
        checkpoints=settings.checkpoints,
        logs=settings.home / "logs",
        repositories=(settings.staging_repository, settings.serving_repository),
        expiring=frozenset(expiring),
    )
    runs, hashes = _needed_by_models(settings, folders.expiring)
    runs |= _needed_by_mlflow(settings)
    results: dict[str, str] = {}
    open_since: dt.datetime | None = None
    with get_client(sync_client=True) as client:
        for run in _flow_runs(client):
            needed_by = runs.get(str(run.id)) or _needed_by_run(run, now - keep)
            if needed_by is None:
                continue
            results |= {name: needed_by for name in _results(client, run) if name not in results}
            started = run.start_time or run.created
            if started and not (run.state and run.state.is_completed()):
                open_since = min(open_since or started, started)
    needed = Needed(results=results, hashes=hashes, open_since=open_since)
    items = plan(folders, needed, now=now, keep_logs=keep)
    objects = shared_objects(settings)
    return items if objects is None else items + shared_retention.plan(objects, needed, now=now)


def delete(settings: Settings, items: Sequence[Item]) -> int:
    """Delete what is not needed, here and in the shared store; return the bytes freed.

    Raises:
        StorageError: a file cannot be deleted; the others are still consistent.
        SharedStoreError: the shared store did not answer; what is left is still consistent.
    """
    shared = [item for item in items if item.kind.startswith("shared ")]
    objects = shared_objects(settings)
    freed = 0 if objects is None else shared_retention.delete(objects, shared)
    return freed + retention.delete(item for item in items if item not in shared)


def _needed_by_run(run: FlowRun, since: dt.datetime) -> str | None:
    state = run.state
    if state is None or not state.is_final():
        return f"run {run.name} ({state.name if state else 'new'})"
    ended = run.end_time or state.timestamp
    return f"run {run.name}" if ended >= since else None


def _flow_runs(client: SyncPrefectClient) -> Iterator[FlowRun]:
    offset = 0
    while page := client.read_flow_runs(
        sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE, offset=offset
    ):
        yield from page
        offset += PAGE


def _results(client: SyncPrefectClient, run: FlowRun) -> Iterator[str]:
    """Yield the file names of a run's stage results, cached ones included."""
    for stage in task_runs(client, run.id):
        key = getattr(stage.state.data, "storage_key", None) if stage.state else None
        if key:
            yield Path(key).name


def _needed_by_models(
    settings: Settings, expiring: Collection[Path]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return flow runs and hashes of versions that have an alias, are staged or serve."""
    runs: dict[str, str] = {}
    hashes: dict[str, str] = {}
    objects = shared_objects(settings)
    for key in [] if objects is None else objects.keys("serving"):
        if objects and key.endswith(f"/{MANIFEST_FILE}"):
            served = Manifest.model_validate_json(objects.read(key) or b"")
            runs[served.flow_run_id] = f"shared serving version {served.version}"
    for root in (settings.staging_repository, settings.serving_repository):
        for path in root.rglob(MANIFEST_FILE):
            if path.parent in expiring:
                continue
            try:
                manifest = Manifest.model_validate_json(path.read_bytes())
            except ValidationError:
                continue  # `plan` still keeps its hashes: it reads them from the file's text
            runs[manifest.flow_run_id] = f"{root.name} version {manifest.version}"
    mlflow = mlflow_runs.client(settings)
    try:
        aliases = mlflow.get_registered_model(MODEL_NAME).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return runs, hashes
    for alias, number in aliases.items():
        tags = mlflow.get_model_version(MODEL_NAME, number).tags
        if mlflow_runs.FLOW_RUN_TAG in tags:
            runs[tags[mlflow_runs.FLOW_RUN_TAG]] = f"{alias} (version {number})"
        if "onnx_sha256" in tags:
            hashes[tags["onnx_sha256"]] = f"{alias} (version {number})"
    return runs, hashes


def _needed_by_mlflow(settings: Settings) -> dict[str, str]:
    """Return flow runs whose MLflow run is RUNNING."""
    mlflow: MlflowClient = mlflow_runs.client(settings)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    found = mlflow.search_runs([experiment], "attributes.status = 'RUNNING'", max_results=1000)
    return {
        run.data.tags[mlflow_runs.FLOW_RUN_TAG]: f"MLflow run {run.info.run_name} (RUNNING)"
        for run in found
        if mlflow_runs.FLOW_RUN_TAG in run.data.tags
    }
