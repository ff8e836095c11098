"""Find a stored MLflow run by its name, its id or its flow run's id; read its specification."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import ValidationError
from yaml import YAMLError

from model_code.errors import ConfigError
from model_code.settings import MODEL_NAME, NightlySpec, Settings
from model_code.settings.changes import from_yaml
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import WEIGHTS_FILE, WEIGHTS_FOLDER

PREFIX = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,27}")  # of a flow run's id
LOGGED = "models:/"


def stored_run(mlflow: MlflowClient, name: str) -> Run:
    """Find a run in any experiment; of equally named runs, the newest.

    Args:
        mlflow: tracking client.
        name: of the run, which is its flow run's too; or the id of either, or the first 8
            or more digits of the flow run's id.

    Raises:
        MlflowException: there is none.
    """
    experiments = [found.experiment_id for found in mlflow.search_experiments()]
    quoted = name.replace("'", "")
    queries = [
        f"attributes.run_name = '{quoted}'",
        f"tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{quoted}'",
    ]
    if PREFIX.fullmatch(quoted):
        queries.append(f"tags.`{mlflow_runs.FLOW_RUN_TAG}` LIKE '{quoted}%'")
    for query in queries:
        newest = ["attributes.start_time DESC"]
        runs = mlflow.search_runs(experiments, query, max_results=1, order_by=newest)
        if runs:
            return runs[0]
    return mlflow.get_run(name)


def specification(settings: Settings, name: str) -> NightlySpec:
    """The specification of a stored run, with the test date that it was judged on.

    Raises:
        ConfigError: there is no such run, or none with a usable specification.
    """
    mlflow = mlflow_runs.client(settings)
    try:
        run = stored_run(mlflow, name)
    except MlflowException as error:
        raise ConfigError(
            f"no run is named {name!r}",
            where=settings.tracking_uri,
            remedy="pass the name or the id of a nightly or bench run in MLflow",
        ) from error
    spec = specification_of(mlflow, run.info.run_id)
    tested = {date for date, _ in instrument_days(run, "test")}
    if spec.test_date is None and len(tested) == 1:
        return spec.model_copy(update={"test_date": tested.pop()})
    return spec


def specification_of(mlflow: MlflowClient, run_id: str) -> NightlySpec:
    """The specification that a run logged.

    Raises:
        ConfigError: it logged none, or one of another version of Tickline.
    """
    where = f"MLflow run {run_id}, {mlflow_runs.SPEC_FILE}"
    text = spec_text(mlflow, run_id)
    if text is None:
        raise ConfigError(
            "the run has no specification",
            where=where,
            remedy="choose a nightly or bench run; older ones and nested runs have none",
        )
    try:
        return NightlySpec.model_validate(from_yaml(text))
    except (YAMLError, ValidationError) as error:
        raise ConfigError(
            f"the run's specification is not one of this version: {error}",
            where=where,
            remedy="download it, correct it, and pass it with --spec",
        ) from error


def night_of(mlflow: MlflowClient, version: int | str) -> str:
    """The run of the night that registered a model version; empty if the registry has none."""
    try:
        found = mlflow.get_model_version(MODEL_NAME, str(version))
    except MlflowException:
        return ""
    return str(found.tags.get("tickline.run") or found.run_id or "")


def model_of(version: ModelVersion) -> str | None:
    """Id of a version's logged model; None if it has none.

    MLflow's own field `model_id` stays empty in a SQL registry; the source has the id.
    """
    source = str(version.source)
    return source.removeprefix(LOGGED) if source.startswith(f"{LOGGED}m-") else None


def fetch_weights(settings: Settings, version: int, folder: Path) -> Path:
    """Download the weights of a registered version into a folder; return the file.

    Raises:
        ConfigError: the registry has no such version, or none of its weights.
    """
    try:
        mlflow = mlflow_runs.client(settings)
        found = mlflow.get_model_version(MODEL_NAME, str(version))
        weights = f"{WEIGHTS_FOLDER}/{WEIGHTS_FILE}"
        return Path(mlflow.download_artifacts(str(found.run_id), weights, str(folder)))
    except (MlflowException, OSError) as error:
        raise ConfigError(
            f"the weights of version {version} are not in the registry: {error}",
            where=settings.tracking_uri,
            remedy="name a version that this registry has; earlier Ticklines registered no weights",
        ) from error


def spec_text(mlflow: MlflowClient, run_id: str) -> str | None:
    """The YAML of the specification that a run logged; None if it logged none."""
    try:
        with TemporaryDirectory() as folder:
            path = mlflow.download_artifacts(run_id, mlflow_runs.SPEC_FILE, folder)
            return Path(path).read_text(encoding="utf-8")
    except (MlflowException, OSError):
        return None


def instrument_days(run: Run, context: str) -> list[tuple[str, str]]:
    """(date, symbol) of the run's datasets of a context, `training` or `test`, sorted."""
    given = run.inputs.dataset_inputs if run.inputs else []
    names = [
        entry.dataset.name.rpartition("/")  # SYMBOL/DATE; a symbol may hold "/"
        for entry in given
        if any(tag.value == context for tag in entry.tags)
    ]
    return sorted((date, symbol) for symbol, _, date in names)
