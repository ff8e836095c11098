"""Expire what nobody promoted: staged versions, their model files, and files of old nights.

A version expires in four steps: the tag `expired` in the registry, its staged folder, its files in
MLflow, the tag that they are gone. After a crash the next `tickline gc` continues; a promotion
refuses the version from the first step on.
"""

import datetime as dt
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import BaseModel, ConfigDict

from model_code.errors import StorageError
from model_code.monitoring.retention import size_of
from model_code.repository.audit import AuditLog
from model_code.repository.serving import ServingRepository
from model_code.repository.staging import staged_versions
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.staged import drop_staged
from tasks.caching.repair import drop_results_of_version
from tasks.promotion.promotion_runs import open_runs
from tasks.runs import mlflow_runs
from tasks.runs.stored import model_of
from tasks.runs.version_tags import EXPIRED_TAG, FREED_TAG, STAGED_BY_TAG, WEIGHTS_FOLDER

Kind = Literal["staged version", "model files", "files of a night"]
KEEP_NIGHTS = 30  # their benchmarks can be judged again, whatever their age
LARGE = ("benchmark", "models")  # of a night's own run; verdict, specification, reports stay
WAITING = (  # events after which a version still has not served
    "started", "approved", "rejected", "stopped",
)  # fmt: skip
HIDDEN = ".expired-"  # a folder that is being deleted; no version


class Expiry(BaseModel):
    """One thing that is kept or deleted as a whole.

    Attributes:
        kind: of the thing.
        name: of the version or the night.
        id: version number, or id of the MLflow run.
        folder: of a staged version; None: there is none.
        uris: of files in MLflow.
        size: in bytes.
        needed: why it is kept; None: it expires.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    id: str
    folder: Path | None = None
    uris: tuple[str, ...] = ()
    size: int
    needed: str | None


def find_expiring(settings: Settings, *, keep: dt.timedelta, now: dt.datetime) -> list[Expiry]:
    """List staged versions, registered models' files and nights' files, with what needs them.

    A version that never served expires `settings.staged_days` after its registration or the last
    entry of the audit file about it. Kept are the newest staged version, versions with an alias or
    an open promotion. A night's files expire after `keep`, except of the last `KEEP_NIGHTS` nights
    and of a version that is kept.

    Raises:
        IntegrityError: the audit file is broken.
    """
    mlflow = mlflow_runs.client(settings)
    versions = sorted(_versions(mlflow), key=lambda one: int(one.version))
    reasons = _reasons(settings, mlflow, versions, now)
    found = list[Expiry]()
    for version in versions:
        if FREED_TAG in version.tags:
            continue
        number, needed = int(version.version), reasons[int(version.version)]
        folder = settings.staging_repository / MODEL_NAME / str(number)
        if folder.is_dir():
            found.append(
                Expiry(
                    kind="staged version", name=f"version {number}", id=str(number),
                    folder=folder, size=size_of(folder), needed=needed,
                )
            )  # fmt: skip
        uris = _model_files(mlflow, version)
        found.append(
            Expiry(
                kind="model files", name=f"version {number}", id=str(number), uris=uris,
                size=_size(settings, uris), needed=needed,
            )
        )  # fmt: skip
    kept = {
        one.tags[STAGED_BY_TAG]: f"version {one.version}"
        for one in versions
        if STAGED_BY_TAG in one.tags and reasons[int(one.version)]
    }
    return [*found, *_nights(settings, mlflow, kept, keep, now)]


def expire(settings: Settings, found: Iterable[Expiry], now: dt.datetime) -> int:
    """Delete what nothing needs; a version whose promotion was opened meanwhile stays.

    Returns:
        Bytes freed.

    Raises:
        StorageError: files cannot be deleted; run it again.
    """
    mlflow, freed = mlflow_runs.client(settings), 0
    at = now.isoformat(timespec="seconds")
    expiring = [one for one in found if one.needed is None]
    skipped = set[str]()
    for number in dict.fromkeys(one.id for one in expiring if one.kind != "files of a night"):
        mlflow.set_model_version_tag(MODEL_NAME, number, EXPIRED_TAG, at)
        if int(number) in _open():  # opened before the tag was there
            mlflow.delete_model_version_tag(MODEL_NAME, number, EXPIRED_TAG)
            skipped.add(number)
        else:
            drop_results_of_version(settings, int(number))
            drop_staged(settings, int(number))
    for leftover in (settings.staging_repository / MODEL_NAME).glob(f"{HIDDEN}*"):
        _remove(leftover)
    for one in expiring:
        if one.id in skipped:
            continue
        if one.folder is not None:
            hidden = one.folder.with_name(f"{HIDDEN}{one.folder.name}")
            one.folder.rename(hidden)  # it disappears whole
            _remove(hidden)
        for uri in one.uris:
            _delete(settings, uri)
        if one.kind == "model files":
            mlflow.set_model_version_tag(MODEL_NAME, one.id, FREED_TAG, at)
        elif one.kind == "files of a night":
            mlflow.set_tag(one.id, FREED_TAG, at)
        freed += one.size
    return freed


def _versions(mlflow: MlflowClient) -> Iterator[ModelVersion]:
    token: str | None = None
    while token != "":
        page = mlflow.search_model_versions(f"name = '{MODEL_NAME}'", page_token=token)
        yield from page
        token = page.token or ""


def _reasons(
    settings: Settings, mlflow: MlflowClient, versions: list[ModelVersion], now: dt.datetime
) -> dict[int, str | None]:
    """Why each version is kept; None: it expires."""
    aliases: dict[int, str] = {}
    if versions:
        named = mlflow.get_registered_model(MODEL_NAME).aliases
        aliases = {int(number): alias for alias, number in named.items()}
    served = set(ServingRepository(settings.serving_repository).known())
    touched = dict[int, dt.datetime]()
    for record in AuditLog.of(settings).read():
        number = record.facts.get("version")
        if isinstance(number, int):
            touched[number] = dt.datetime.fromisoformat(record.at)
            served |= {number} if record.event not in WAITING else set()
    waiting, newest = _open(), max(staged_versions(settings.staging_repository), default=0)
    since = now - dt.timedelta(days=settings.staged_days)

    def reason(version: ModelVersion) -> str | None:
        number = int(version.version)
        made = dt.datetime.fromtimestamp(version.creation_timestamp / 1e3, dt.UTC)
        young = EXPIRED_TAG not in version.tags and max(made, touched.get(number, made)) >= since
        rules = {
            f"alias {aliases.get(number)}": number in aliases,
            "it served": number in served or "approved_by" in version.tags,
            "its promotion is open": number in waiting,
            "the newest staged version": number == newest and EXPIRED_TAG not in version.tags,
            f"younger than {settings.staged_days} days": young,
        }
        return next((why for why, holds in rules.items() if holds), None)

    return {int(version.version): reason(version) for version in versions}


def _open() -> set[int]:
    """Versions whose promotion has not ended."""
    found = {str(run.parameters.get("version")) for run in open_runs()}
    return {int(number) for number in found if number.isdecimal()}


def _model_files(mlflow: MlflowClient, version: ModelVersion) -> tuple[str, ...]:
    """Where the graph and the weights of a registered version are."""
    found = list[str]()
    try:
        if model := model_of(version):
            found.append(str(mlflow.get_logged_model(model).artifact_location))
        if version.run_id:
            run = mlflow.get_run(version.run_id)
            found.append(f"{run.info.artifact_uri}/{WEIGHTS_FOLDER}")
    except MlflowException as error:  # deleted in MLflow's page
        if error.error_code not in mlflow_runs.ABSENT:
            raise
    return tuple(found)


def _nights(
    settings: Settings,
    mlflow: MlflowClient,
    kept: dict[str, str],
    keep: dt.timedelta,
    now: dt.datetime,
) -> Iterator[Expiry]:
    nights = [
        run
        for run in _runs(settings, mlflow, f"tags.`{mlflow_runs.FLOW_RUN_TAG}` LIKE '%'")
        if MLFLOW_PARENT_RUN_ID not in run.data.tags
    ]
    registered = {one.run_id for one in _versions(mlflow)}
    for place, run in enumerate(sorted(nights, key=lambda run: -run.info.start_time)):
        if FREED_TAG in run.data.tags:
            continue
        needed = kept.get(run.info.run_id)
        ended = dt.datetime.fromtimestamp((run.info.end_time or 0) / 1e3, dt.UTC)
        if run.info.status == "RUNNING":
            needed = "it is RUNNING"
        elif place < KEEP_NIGHTS:
            needed = needed or f"one of the last {KEEP_NIGHTS} nights"
        elif ended >= now - keep:
            needed = needed or f"younger than {keep.days} days"
        uris = () if needed else tuple(_large_files(settings, mlflow, run, registered))
        name = str(run.info.run_name)
        yield Expiry(
            kind="files of a night", name=name, id=run.info.run_id, uris=uris,
            size=_size(settings, uris), needed=needed,
        )  # fmt: skip


def _large_files(
    settings: Settings, mlflow: MlflowClient, night: Run, versions: set[str | None]
) -> Iterator[str]:
    """A night's large files; what promotions and the registry keep under it is not its own."""
    for name in LARGE:
        yield f"{night.info.artifact_uri}/{name}"
    for run in _runs(settings, mlflow, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{night.info.run_id}'"):
        if mlflow_runs.PROMOTION_TAG not in run.data.tags and run.info.run_id not in versions:
            yield str(run.info.artifact_uri)


def _runs(settings: Settings, mlflow: MlflowClient, query: str) -> Iterator[Run]:
    token: str | None = None
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    while token != "":
        page = mlflow.search_runs([experiment], query, max_results=1000, page_token=token)
        yield from page
        token = page.token or ""


def _size(settings: Settings, uris: Iterable[str]) -> int:
    return sum(_size_under(get_artifact_repository(uri, settings.tracking_uri)) for uri in uris)


def _size_under(files: ArtifactRepository, path: str | None = None) -> int:
    return sum(
        _size_under(files, entry.path) if entry.is_dir else entry.file_size or 0
        for entry in files.list_artifacts(path)
    )


def _delete(settings: Settings, uri: str) -> None:
    try:
        get_artifact_repository(uri, settings.tracking_uri).delete_artifacts()  # type: ignore[no-untyped-call]
    except (MlflowException, OSError) as error:
        raise StorageError(
            f"MLflow's files cannot be deleted: {error}",
            where=uri,
            remedy="fix their permissions, then run tickline gc --apply again",
        ) from error


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(
            f"cannot delete {folder.name}: {error.strerror or error}",
            where=str(folder),
            remedy="fix its permissions (ls -ld), then run tickline gc --apply again",
        ) from error
