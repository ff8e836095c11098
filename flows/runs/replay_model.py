"""Which model version a replay decides with, and its engine in this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from model_code.errors import ConfigError
from model_code.settings import MODEL_NAME, FeatureSpec, Settings

if TYPE_CHECKING:
    from model_code.live.replay import Model
    from model_code.repository.manifest import Manifest


def find_version(
    settings: Settings, version: int | None, run: str | None
) -> "tuple[Path, Manifest]":
    """The folder and manifest of the version to replay.

    Args:
        settings: name the repositories.
        version: None: the serving one, else the newest staged.
        run: the version that this nightly staged instead, by name or id.

    Raises:
        ConfigError: there is none.
        IntegrityError: its bytes differ from its manifest.
    """
    from model_code.repository.manifest import Manifest
    from model_code.repository.serving import ServingRepository
    from model_code.repository.staging import staged_versions

    if version is not None and run is not None:
        raise ConfigError("--version and --run exclude each other", remedy="give one of them")
    serving = ServingRepository(settings.serving_repository)
    staging = settings.staging_repository / MODEL_NAME
    folders = {one: staging / str(one) for one in staged_versions(settings.staging_repository)}
    newest = max(folders, default=None)
    folders |= {one: serving.folder(one) for one in serving.known()}
    if run is not None:
        version = _of_run(settings, run, folders)
    elif version is None:
        champion = serving.route().champion
        version = newest if champion is None else champion.version
    if version is None or version not in folders:
        raise ConfigError(
            "no model version to decide with" if version is None else f"no version {version}",
            where=f"{staging}, {serving.root}",
            remedy=f"choose one of {', '.join(map(str, sorted(folders)))}"
            if folders
            else "stage one: tickline nightly --data PATH",
        )
    return folders[version], Manifest.load(folders[version])


def _of_run(settings: Settings, run: str, folders: Mapping[int, Path]) -> int:
    """The version that a nightly staged, by the run's id or its name in MLflow."""
    from mlflow.exceptions import MlflowException

    from model_code.repository.manifest import Manifest
    from tasks.runs.mlflow_runs import client

    manifests = [Manifest.load(folders[version]) for version in sorted(folders, reverse=True)]
    for manifest in manifests:
        if run in (manifest.flow_run_id, manifest.mlflow_run_id):
            return manifest.version
    mlflow = client(settings)
    for manifest in manifests:
        try:
            name = mlflow.get_run(manifest.mlflow_run_id).info.run_name
        except MlflowException:
            continue  # of another tracking server, or deleted
        if name == run:
            return manifest.version
    raise ConfigError(
        f"no staged or serving version of run {run}", remedy="a nightly stages what passes its gate"
    )


def load_model(folder: Path, manifest: "Manifest", cost_bps: float = 0.0) -> "Model":
    """The version's engine in this process.

    Raises:
        ConfigError: no message carries what its feature set looks at.
        EngineError: it cannot be loaded here.
    """
    from model_code.engines.registry import ENGINES
    from model_code.engines.sidecar import EngineSidecar
    from model_code.live.replay import Model
    from model_code.live.state import require_messages

    require_messages(manifest.seen)
    return Model(
        ENGINES[EngineSidecar.load(folder).engine].load(folder),
        manifest.seen,
        feature_spec(manifest, cost_bps),
        manifest.threshold,
        manifest.version,
    )


def feature_spec(manifest: "Manifest", cost_bps: float = 0.0) -> FeatureSpec:
    """The features and label of a version."""
    features = manifest.features
    spec = FeatureSpec(feature_set=manifest.seen.feature_set, cost_bps=cost_bps)
    if features is None:
        return spec
    named = ("label", "horizon_ms", "reset_gap_s")
    return spec.model_copy(update={name: getattr(features, name) for name in named})
