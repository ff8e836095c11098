"""MLflow runs: one parent run per flow run, nested runs per stage.

Everything uses `MlflowClient` with explicit run ids: no hidden active run, safe in threads.
A retried flow run finds its parent run by tag and continues it.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import (
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)
from pydantic import BaseModel
from rich.markup import escape
from sqlalchemy.exc import DatabaseError

from infra.home.moved import relocate
from infra.redact import redact
from infra.servers import database_error
from infra.stack_state import mlflow_page
from infra.ui import VIEW_TAG, mlflow_link
from model_code import __version__
from model_code.machine import facts
from model_code.settings import Settings
from tasks.runs.console import console
from tasks.runs.metric_names import logged_as, view_state
from tasks.runs.tick_source import TickSource

DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")  # a driver may follow
FLOW_RUN_TAG = "prefect.flow_run_id"
STAGE_TAG = "tickline.stage"
COMMIT_VARIABLE = "TICKLINE_COMMIT"
COMMIT_TAG = "mlflow.source.git.commit"
FEATURES_TAG = "tickline.features_version"
ERROR_TAG = "tickline.error"
PROMOTION_TAG = "tickline.promotion"  # flow run id; its MLflow run may outlast the parent run
SPEC_FILE = "spec.yaml"  # artifact: the run's whole specification
FAULT_TAG = "tickline.fault"  # JSON of `tasks.runs.faults.Fault`
MAX_PARAM = 6000
DIGEST_CHARS = 36  # of a dataset, as far as MLflow keeps it
CARRIED = (MLFLOW_USER, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE)  # and `tickline.*`, to nested runs
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # MLflow: no such model or alias


def client(settings: Settings) -> MlflowClient:
    """Return a client of the tracking store (default: SQLite under the home folder).

    Raises:
        StorageError: as `relocate`.
        ConfigError: the database is of another version of MLflow, or no database of MLflow.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        relocate(settings)
        return MlflowClient(tracking_uri=settings.tracking_uri)
    except (MlflowException, DatabaseError) as error:
        raise database_error(str(error), settings) or error from error


def experiment_id(mlflow: MlflowClient, settings: Settings) -> str:
    """Return the experiment's id; create it on first use.

    Where no MLflow server decides, its artefacts are in the shared store, else in the home folder.

    An experiment that was deleted in MLflow's page is restored with its runs: MLflow takes no run
    for it otherwise, and no other experiment of its name.
    """
    found = mlflow.get_experiment_by_name(settings.mlflow_experiment)
    if found is not None:
        if found.lifecycle_stage == LifecycleStage.DELETED:
            mlflow.restore_experiment(found.experiment_id)
            console.print(
                f"  [yellow]note[/]: the experiment {escape(settings.mlflow_experiment)} was "
                "deleted in MLflow: it is restored with its runs"
            )
        if found.tags.get(VIEW_TAG) != view_state():
            mlflow.set_experiment_tag(found.experiment_id, VIEW_TAG, view_state())
        return str(found.experiment_id)
    location = None  # an MLflow server decides; for a database MLflow takes the working directory
    if settings.tracking_uri.startswith(DATABASES):
        root = f"{settings.store}/mlflow" if settings.store else settings.mlflow_artifacts.as_uri()
        location = f"{root}/{settings.mlflow_experiment}"
    try:
        made = mlflow.create_experiment(
            settings.mlflow_experiment,
            artifact_location=location,
            tags={
                "mlflow.experimentKind": "custom_model_development",  # the UI's training view
                VIEW_TAG: view_state(),
            },
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        found = mlflow.get_experiment_by_name(settings.mlflow_experiment)
        if found is None:
            raise
        return str(found.experiment_id)  # a concurrent run created it first
    return str(made)


def continue_or_start(
    mlflow: MlflowClient,
    settings: Settings,
    *,
    name: str,
    identity: Mapping[str, str],
    tags: Mapping[str, str],
    marks: Mapping[str, str] | None = None,
) -> str:
    """Return the id of the run with the `identity` tags: reopened if it exists, else new.

    Args:
        mlflow: tracking client.
        settings: of the experiment.
        name: of a new run.
        identity: tags that no other run has.
        tags: of a new run.
        marks: tags of the owning process, written before the run becomes RUNNING.
    """
    marks = marks or {}
    experiment = experiment_id(mlflow, settings)
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    found: Sequence[Run] = mlflow.search_runs([experiment], query, max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        if marks:
            set_tags(mlflow, run_id, marks)
        mlflow.update_run(run_id, status="RUNNING")
        return run_id
    run = mlflow.create_run(
        experiment,
        tags={MLFLOW_RUN_NAME: name, **identity, **_clean(tags), **marks},
        run_name=name,
    )
    return str(run.info.run_id)


def nested(mlflow: MlflowClient, settings: Settings, parent: str, stage: str) -> str:
    """Return the id of a stage's nested run: reopened if it exists, else new."""
    parent_tags = mlflow.get_run(parent).data.tags
    carried = {
        key: value
        for key, value in parent_tags.items()
        if key.startswith("tickline.") or key in CARRIED
    }
    return continue_or_start(
        mlflow,
        settings,
        name=stage,
        identity={MLFLOW_PARENT_RUN_ID: parent, STAGE_TAG: stage},
        tags=carried,
    )


def run_link(mlflow: MlflowClient, settings: Settings, run_id: str, tab: str = "") -> str:
    """Link to a run's page in MLflow, or to one of its tabs, e.g. `artifacts`."""
    experiment = mlflow.get_run(run_id).info.experiment_id
    place = "/".join(filter(None, ("experiments", experiment, "runs", run_id, tab)))
    return mlflow_link(mlflow_page(settings), place)


def finish(mlflow: MlflowClient, run_id: str, status: str) -> None:
    """End a run, and its nested runs that are RUNNING, as FINISHED, FAILED or KILLED."""
    run = mlflow.get_run(run_id)
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' and attributes.status = 'RUNNING'"
    for child in mlflow.search_runs([run.info.experiment_id], query):
        mlflow.set_terminated(child.info.run_id, status)
    mlflow.set_terminated(run_id, status)


def log_params(mlflow: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """Log parameters that the run does not have yet (MLflow's parameters are immutable)."""
    known = mlflow.get_run(run_id).data.params
    shown = {key: redact(_shown(value))[:MAX_PARAM] for key, value in values.items()}
    new = [Param(key, value) for key, value in shown.items() if key not in known]
    mlflow.log_batch(run_id, params=new)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def log_metrics(
    mlflow: MlflowClient,
    run_id: str,
    values: Mapping[str, float | None],
    step: int = 0,
    **of: str,
) -> None:
    """Log metrics at a step; None values are skipped.

    Args:
        mlflow: tracking client.
        run_id: of the run.
        values: by plain name; logged as `metric_names.logged_as`.
        step: of all of them.
        of: `model_id` of a logged model, `dataset_name` and `dataset_digest`, to link them to.
    """
    now = time.time_ns() // 1_000_000
    metrics = [
        Metric(logged_as(key), float(value), now, step, **of)
        for key, value in values.items()
        if value is not None
    ]
    mlflow.log_batch(run_id, metrics=metrics)


class DatasetEntry(NamedTuple):
    """A dataset that a run was fed: its hash, where it can be read again, its context, its size."""

    name: str
    sha256: str
    source: TickSource
    context: str
    profile: Mapping[str, int]

    @property
    def digest(self) -> str:
        """The hash, as far as MLflow keeps it."""
        return self.sha256[:DIGEST_CHARS]


def log_datasets(mlflow: MlflowClient, run_id: str, datasets: Sequence[DatasetEntry]) -> None:
    """Log dataset inputs; `mlflow.data.get_source(input).load()` reads one again."""
    inputs = [
        DatasetInput(
            Dataset(
                name=entry.name,
                digest=entry.digest,
                source_type="tickline",
                source=entry.source.to_json(),
                profile=json.dumps(dict(entry.profile)),
            ),
            [InputTag("mlflow.data.context", entry.context)],
        )
        for entry in datasets
    ]
    mlflow.log_inputs(run_id, inputs)


def flatten(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Fields of a specification as dotted parameter names."""
    flat: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            flat |= flatten(value, f"{prefix}{name}.")
        elif name != "KIND":
            flat[f"{prefix}{name}"] = value
    return flat


def _clean(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags without secrets: an error's text or a market's address may have one."""
    return {key: redact(value) for key, value in tags.items()}


def set_tags(mlflow: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set several tags at once."""
    mlflow.log_batch(run_id, tags=[RunTag(key, value) for key, value in _clean(tags).items()])


def note(mlflow: MlflowClient, run_id: str, markdown: str) -> None:
    """Set the run's description, which the UI shows first."""
    set_tags(mlflow, run_id, {MLFLOW_RUN_NOTE: markdown})


def log_environment(mlflow: MlflowClient, run_id: str) -> None:
    """Log what ran: machine, installed packages, git commit and uncommitted diff."""
    from importlib.metadata import distributions

    packages = sorted(f"{found.name}=={found.version}" for found in distributions())
    mlflow.log_text(run_id, "\n".join(packages), "environment/packages.txt")
    mlflow.log_dict(run_id, facts() | {"tickline": __version__}, "environment/machine.json")
    diff = git("diff", "HEAD")
    if diff:
        mlflow.log_text(run_id, diff, "environment/uncommitted.diff")


def git(*arguments: str) -> str:
    """Output of a git command in the code's own checkout; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def code_commit() -> str:
    """Commit of the running code, marked `-dirty` with uncommitted changes; `unknown` if none.

    An image has no checkout: its build leaves the commit in `TICKLINE_COMMIT`.
    """
    commit = git("rev-parse", "HEAD")
    if not commit:
        return os.environ.get(COMMIT_VARIABLE) or "unknown"
    return f"{commit}-dirty" if git("status", "--porcelain") else commit
