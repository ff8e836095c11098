"""Stage `stage candidate`: write the chosen engine to the staging model repository."""

from infra.leases.lease import require_held
from model_code.artifacts import ArtifactRef, hash_path
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import GateError
from model_code.features.dataset import read_manifest
from model_code.features.served import ServedFeatures
from model_code.repository.manifest import Manifest
from model_code.repository.staging import stage as stage_version
from model_code.repository.terms import Terms
from model_code.settings import MODEL_NAME, ServingSpec
from model_code.storage.staged import share_staged
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import BuiltEngine, Judged, Plan, Registered, Staged
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import STAGED_BY_TAG, STAGED_TAG


@stage("stage candidate", nothing="not staged: the gate did not accept it")
def stage_candidate(
    run: RunRef,
    plan: Plan,
    table: ArtifactRef,
    engines: tuple[BuiltEngine, ...],
    threshold: float,
    judged: Judged,
    registered: Registered | None,
    recorded: ArtifactRef | None,
    repository: str,
    serving: ServingSpec,
    terms: Terms,
) -> Staged | None:
    """Write the chosen engine to the staging repository under the registry's version number.

    The registry gets the manifest's hash: a promotion refuses a folder that was changed since.
    `repository` is as `Settings.inside` stores it.
    """
    if registered is None or recorded is None:
        return None
    chosen = next(engine for engine in engines if engine.name == judged.engine)
    if chosen.folder is None:
        raise GateError(f"the gate chose {judged.engine}, which was not built")
    folder = run.store.open(chosen.folder)
    sidecar = EngineSidecar.load(folder)
    requests = run.store.open(recorded)
    rows = read_manifest(run.store, table)
    manifest = Manifest.of(
        sidecar,
        version=int(registered.version),
        threshold=threshold,
        terms=terms,
        features=ServedFeatures.of(rows.spec, rows.leaders),
        files={path.name: hash_path(path) for path in requests.iterdir()},
        data_sha256=plan.digest,
        code_commit=mlflow_runs.code_commit(),
        verdict=judged.verdict.verdict,
        promotable=judged.verdict.promotable,
        simulated=plan.simulated,
        mlflow_run_id=run.mlflow_run_id,
        flow_run_id=run.flow_run_id,
        started_by=run.started_by or None,
        serving=serving,
    )
    require_held()
    path = stage_version(
        run.settings.located(repository),
        int(registered.version),
        folder,
        sidecar,
        manifest,
        requests,
        serving,
    )
    share_staged(run.settings, int(registered.version))
    registry = mlflow_runs.client(run.settings)
    require_held()
    for key, value in {STAGED_TAG: manifest.identity, STAGED_BY_TAG: run.mlflow_run_id}.items():
        registry.set_model_version_tag(MODEL_NAME, registered.version, key, value)
    return Staged(
        path=run.settings.inside(path), version=registered.version, engine_sha256=sidecar.sha256
    )
