"""Stage `find champion`: the serving model version, which the benchmark measures too."""

import json
import shutil
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prefect import task

from model_code.artifacts import ArtifactRef
from model_code.engines.sidecar import SIDECAR_FILE, EngineSidecar
from model_code.repository.serving import ServingRepository
from model_code.settings import (
    CHAMPION_ALIAS,
    MODEL_NAME,
)
from model_code.training.start import StartingPoint
from model_code.training.threshold import DEFAULT_THRESHOLD
from tasks.caching.stage import RunRef
from tasks.nightly.records import Champion
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import START_TAG, THRESHOLD_TAG, WEIGHTS_FILE, WEIGHTS_FOLDER, seen_of


@task(name="find champion")  # never cached: it reads the registry
def find_champion(run: RunRef, weights: bool = False) -> Champion | None:
    """Return the serving model version; None before the first promotion.

    An unreachable registry is an error. Without the champion the gate would have nothing to
    compare against.

    Args:
        run: names the registry.
        weights: also fetch the weights, for `training.start` champion.
    """
    registry = mlflow_runs.client(run.settings)
    try:
        version = registry.get_model_version_by_alias(MODEL_NAME, CHAMPION_ALIAS)
    except MlflowException as error:
        if error.error_code in mlflow_runs.ABSENT:
            return None
        raise
    with run.store.scratch() as scratch:
        folder = mlflow.artifacts.download_artifacts(
            version.source, dst_path=str(scratch), tracking_uri=run.settings.tracking_uri
        )
        graph = run.store.put(Path(folder) / "model.onnx")
        engine = _served_engine(run, int(version.version), scratch / "engine")
        start = _start(run, version, scratch / "start") if weights else None
    return Champion(
        version=str(version.version),
        onnx=graph,
        engine=engine,
        threshold=float(version.tags.get(THRESHOLD_TAG, DEFAULT_THRESHOLD)),
        features=seen_of(version.tags),
        start=start,
    )


def _start(run: RunRef, version: ModelVersion, scratch: Path) -> StartingPoint | None:
    """None if the version was registered without its weights."""
    if START_TAG not in version.tags:
        return None
    path = mlflow.artifacts.download_artifacts(
        run_id=version.run_id,
        artifact_path=f"{WEIGHTS_FOLDER}/{WEIGHTS_FILE}",
        dst_path=str(scratch),
        tracking_uri=run.settings.tracking_uri,
    )
    trained = json.loads(version.tags[START_TAG])
    return StartingPoint.model_validate(trained | {"weights": run.store.put(Path(path))})


def _served_engine(run: RunRef, version: int, scratch: Path) -> ArtifactRef | None:
    repository = ServingRepository(run.settings.serving_repository)
    if version not in repository.known():
        return None
    folder = repository.folder(version)
    scratch.mkdir()
    for name in (EngineSidecar.load(folder).file, SIDECAR_FILE):
        shutil.copyfile(folder / name, scratch / name)
    return run.store.put(scratch)
