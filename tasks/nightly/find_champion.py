"""Stage `find champion`: the serving version and the one of many nights ago, measured too."""

import datetime as dt
import json
import shutil
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from prefect import task
from rich.markup import escape

from model_code.artifacts import ArtifactRef
from model_code.engines.sidecar import SIDECAR_FILE, EngineSidecar
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME
from model_code.storage.serving import fetch_served
from model_code.training.start import StartingPoint
from model_code.training.threshold import DEFAULT_THRESHOLD
from tasks.caching.stage import RunRef, announced
from tasks.nightly.records import Champion
from tasks.runs import mlflow_runs
from tasks.runs.console import console
from tasks.runs.serving_version import CHANGES, serving_version
from tasks.runs.version_tags import (
    START_TAG,
    THRESHOLD_TAG,
    WEIGHTS_FILE,
    WEIGHTS_FOLDER,
    seen_of,
    terms_of,
)

NO_PROMOTION = "the audit file names no version that served {nights} nights ago"


@task(
    **announced("find champion", nothing="no version serves yet")
)  # never cached: it reads the registry
def find_champion(
    run: RunRef, weights: bool = False, anchor_nights: int | None = None
) -> Champion | None:
    """Return the serving model version; None before the first promotion.

    An unreachable registry is an error. Without the champion the gate would have nothing to
    compare against.

    Args:
        run: names the registry and the serving repository.
        weights: also fetch the weights, for `training.start` champion.
        anchor_nights: also fetch the version that served so many nights of 24 hours ago.

    Raises:
        PromotionError: the registry does not have the version that serves.
    """
    registry = mlflow_runs.client(run.settings)
    serving = serving_version(run.settings)
    if serving.warning:
        console.print(f"  [yellow]warning[/]: {escape(serving.warning)}")
    if serving.version is None:
        return None
    version = _registered(run, registry, serving.version)
    found = _fetch(run, version)
    with run.store.scratch() as scratch:
        engine = _served_engine(run, int(version.version), scratch / "engine")
        start = _start(run, version, scratch / "start") if weights else None
    anchor, why = None, ""
    if anchor_nights is not None:
        anchor, why = _anchor(run, registry, found, anchor_nights)
    return found.model_copy(
        update={"engine": engine, "start": start, "anchor": anchor, "no_anchor": why}
    )


def _registered(run: RunRef, registry: MlflowClient, number: int) -> ModelVersion:
    try:
        return registry.get_model_version(MODEL_NAME, str(number))
    except MlflowException as error:
        if error.error_code not in mlflow_runs.ABSENT:
            raise
        raise PromotionError(
            f"version {number} serves, but the registry does not have it: nothing to compare with",
            where=run.settings.tracking_uri,
            remedy="put a version into service that it has: tickline rollback --to N",
        ) from error


def _fetch(run: RunRef, version: ModelVersion) -> Champion:
    """A version's graph and what its tags say; without engine and weights."""
    with run.store.scratch() as scratch:
        folder = mlflow.artifacts.download_artifacts(
            version.source, dst_path=str(scratch), tracking_uri=run.settings.tracking_uri
        )
        graph = run.store.put(Path(folder) / "model.onnx")
    return Champion(
        version=str(version.version),
        onnx=graph,
        engine=None,
        threshold=float(version.tags.get(THRESHOLD_TAG, DEFAULT_THRESHOLD)),
        features=seen_of(version.tags),
        terms=terms_of(version.tags),
    )


def _anchor(
    run: RunRef, registry: MlflowClient, champion: Champion, nights: int
) -> tuple[Champion | None, str]:
    """The version that served so many nights ago, or why there is none."""
    try:
        number = served_at(
            AuditLog.of(run.settings), dt.datetime.now(dt.UTC) - dt.timedelta(days=nights)
        )
    except IntegrityError as error:
        return None, error.what
    if number is None:
        return None, NO_PROMOTION.format(nights=nights)
    if str(number) == champion.version:
        return champion, ""
    try:
        return _fetch(run, registry.get_model_version(MODEL_NAME, str(number))), ""
    except MlflowException as error:
        if error.error_code not in mlflow_runs.ABSENT:
            raise
        return None, f"version {number}, which served {nights} nights ago, is not in the registry"


def served_at(audit: AuditLog, moment: dt.datetime) -> int | None:
    """The version that served at a moment, from the audit file; None if it names none.

    Raises:
        IntegrityError: the audit file was changed.
    """
    found: int | None = None
    for record in audit.read():
        if dt.datetime.fromisoformat(record.at) > moment:
            break
        if record.event in CHANGES:
            found = int(str(record.facts["version"]))
    return found


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
    folder = scratch.with_name("served")
    if version in repository.known():
        folder = repository.folder(version)
    elif not fetch_served(run.settings, version, folder):
        return None
    scratch.mkdir()
    for name in (EngineSidecar.load(folder).file, SIDECAR_FILE):
        shutil.copyfile(folder / name, scratch / name)
    return run.store.put(scratch)
