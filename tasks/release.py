"""Stages of the release: the champion to beat, the registry, the staging repository."""

import shutil
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import onnx
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from prefect import task
from prefect.events import emit_event

from model_code.artifacts import ArtifactRef, hash_bytes, hash_path
from model_code.benchmark.goals import Goals, load_goals
from model_code.engines.sidecar import SIDECAR_FILE, EngineSidecar
from model_code.errors import GateError
from model_code.repository.manifest import Manifest
from model_code.repository.serving import ServingRepository
from model_code.repository.staging import stage as stage_version
from model_code.settings import (
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MODEL_NAME,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)
from tasks import tracking
from tasks.results import BuiltEngine, Champion, ExportedNetwork, Judged, Plan, Registered, Staged
from tasks.stage import RunRef, stage

CHAMPION = "champion"
PREVIOUS = "previous"
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # MLflow: no such model or name
GATE_PASSED = "tickline.gate.passed"
CHALLENGER = "challenger"
CHALLENGER_SIMULATED = "challenger-simulated"  # must not take the real challenger's place


@task(name="find champion")  # never cached: it is what looks at the registry
def find_champion(run: RunRef) -> Champion | None:
    """Return the model version that serves, None before the first promotion.

    A registry that does not answer is an error: without the champion the gate would compare with
    nothing.
    """
    registry = tracking.client(run.settings)
    try:
        version = registry.get_model_version_by_alias(MODEL_NAME, CHAMPION)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise
    with run.store.scratch() as scratch:
        folder = mlflow.artifacts.download_artifacts(
            version.source, dst_path=str(scratch), tracking_uri=run.settings.tracking_uri
        )
        graph = run.store.put(Path(folder) / "model.onnx")
        engine = _served_engine(run, int(version.version), scratch / "engine")
    return Champion(version=str(version.version), onnx=graph, engine=engine)


def _served_engine(run: RunRef, version: int, scratch: Path) -> ArtifactRef | None:
    repository = ServingRepository(run.settings.serving_repository)
    if version not in repository.known():
        return None
    folder = repository.folder(version)
    scratch.mkdir()
    for name in (EngineSidecar.load(folder).file, SIDECAR_FILE):
        shutil.copyfile(folder / name, scratch / name)
    return run.store.put(scratch)


def read_goals(path: str | None) -> Goals:
    """The gate's goals: the file's, or those that ship with the gate."""
    return load_goals(Path(path) if path else None)


@stage("register", code=["model_code.settings"])
def register(
    run: RunRef, plan: Plan, exported: ExportedNetwork, judged: Judged
) -> Registered | None:
    """Make the candidate a model version with the challenger's alias; not if the gate failed."""
    verdict = judged.verdict
    if verdict.verdict == "fail":
        return None
    alias = CHALLENGER_SIMULATED if plan.simulated else CHALLENGER
    registry = tracking.client(run.settings)
    version = _registered(registry, run, exported.onnx) or _log_model(run, exported.onnx)
    tags = {
        "onnx_sha256": exported.onnx.sha256,
        "engine": judged.engine,
        "verdict": verdict.verdict,
        "promotable": str(verdict.promotable).lower(),
        "simulated": str(plan.simulated).lower(),
        "data_sha256": data_digest(plan),
        "tickline.run": run.mlflow_run_id,
        tracking.FLOW_RUN_TAG: run.flow_run_id,
    }
    for key, value in tags.items():
        registry.set_model_version_tag(MODEL_NAME, version, key, value)
    registry.set_registered_model_alias(MODEL_NAME, alias, version)
    return Registered(name=MODEL_NAME, version=version, alias=alias)


def _registered(registry: mlflow.MlflowClient, run: RunRef, graph: ArtifactRef) -> str | None:
    """The version this flow run registered already, if it died between that and the end."""
    found = registry.search_model_versions(
        f"name = '{MODEL_NAME}' and tags.`{tracking.FLOW_RUN_TAG}` = '{run.flow_run_id}' "
        f"and tags.onnx_sha256 = '{graph.sha256}'"
    )
    return str(found[0].version) if found else None


def _log_model(run: RunRef, graph: ArtifactRef) -> str:
    client = tracking.client(run.settings)
    run_id = tracking.nested(client, run.settings, run.mlflow_run_id, "registration")
    mlflow.set_tracking_uri(run.settings.tracking_uri)
    windows = TensorSpec(np.dtype(np.float32), (-1, SEQUENCE_LENGTH, FEATURE_COUNT), INPUT_NAME)
    logits = TensorSpec(np.dtype(np.float32), (-1, CLASS_COUNT), OUTPUT_NAME)
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.onnx.log_model(
            onnx.load(str(graph.open())),
            name="model",
            registered_model_name=MODEL_NAME,
            signature=ModelSignature(inputs=Schema([windows]), outputs=Schema([logits])),
            pip_requirements=[f"onnxruntime=={version('onnxruntime')}"],
            save_as_external_data=False,
            metadata={"onnx_sha256": graph.sha256},
        )
    return str(logged.registered_model_version)


@stage("stage", code=["model_code.repository.staging"])
def stage_candidate(
    run: RunRef,
    plan: Plan,
    engines: tuple[BuiltEngine, ...],
    judged: Judged,
    registered: Registered | None,
    recorded: ArtifactRef | None,
    repository: str,
) -> Staged | None:
    """Lay the chosen engine into the staging repository under the registry's version number."""
    if registered is None or recorded is None:
        return None
    chosen = next(engine for engine in engines if engine.name == judged.engine)
    if chosen.folder is None:
        raise GateError(f"the gate chose {judged.engine}, which was not built")
    folder = chosen.folder.open()
    sidecar = EngineSidecar.load(folder)
    requests = recorded.open()
    manifest = Manifest.of(
        sidecar,
        version=int(registered.version),
        files={path.name: hash_path(path) for path in requests.iterdir()},
        data_sha256=data_digest(plan),
        code_commit=tracking.code_commit(),
        verdict=judged.verdict.verdict,
        promotable=judged.verdict.promotable,
        simulated=plan.simulated,
        mlflow_run_id=run.mlflow_run_id,
        flow_run_id=run.flow_run_id,
    )
    path = stage_version(
        Path(repository), int(registered.version), folder, sidecar, manifest, requests
    )
    return Staged(path=str(path), version=registered.version, engine_sha256=sidecar.sha256)


@stage("announce candidate", code=["model_code.settings"])
def announce_candidate(run: RunRef, registered: Registered | None, judged: Judged) -> bool:
    """Tell whoever listens that a candidate passed the gate; whether it was told.

    The promotion's deployment listens. Once per candidate: a night that comes back cached says
    nothing new. A model of simulated data is not announced.
    """
    if registered is None or not judged.verdict.promotable:
        return False
    emit_event(
        event=GATE_PASSED,
        resource={
            "prefect.resource.id": f"tickline.model.{registered.name}.{registered.version}",
            "prefect.resource.name": f"{registered.name} version {registered.version}",
        },
        payload={
            "version": int(registered.version),
            "verdict": judged.verdict.verdict,
            "flow_run_id": run.flow_run_id,
        },
    )
    return True


def data_digest(plan: Plan) -> str:
    """sha256 of the data snapshot: every instrument-day's name and source hash."""
    return hash_bytes("\n".join(f"{day.name} {day.digest}" for day in plan.days).encode())
