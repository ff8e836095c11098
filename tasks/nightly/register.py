"""Stage `register`: add the candidate to MLflow's model registry."""

import io
from contextlib import redirect_stderr
from importlib.metadata import version

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from model_code.artifacts import ArtifactRef
from model_code.settings import (
    CHALLENGER_ALIAS,
    CHALLENGER_SIMULATED_ALIAS,
    CLASS_COUNT,
    FEATURE_COUNT,
    INPUT_NAME,
    MODEL_NAME,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
)
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import THRESHOLD_TAG, ExportedNetwork, Judged, Plan, Registered
from tasks.runs import mlflow_runs


@stage("register")
def register(
    run: RunRef, plan: Plan, exported: ExportedNetwork, threshold: float, judged: Judged
) -> Registered | None:
    """Register the candidate under a challenger alias; None if the gate does not accept it."""
    verdict = judged.verdict
    if not verdict.accepted:
        return None
    alias = CHALLENGER_SIMULATED_ALIAS if plan.simulated else CHALLENGER_ALIAS
    registry = mlflow_runs.client(run.settings)
    version = _find_version(registry, run, exported.onnx) or _log_model(run, exported.onnx)
    tags = {
        "onnx_sha256": exported.onnx.sha256,
        THRESHOLD_TAG: repr(threshold),
        "engine": judged.engine,
        "verdict": verdict.verdict,
        "promotable": str(verdict.promotable).lower(),
        "simulated": str(plan.simulated).lower(),
        "data_sha256": plan.digest,
        "tickline.run": run.mlflow_run_id,
        mlflow_runs.FLOW_RUN_TAG: run.flow_run_id,
    }
    for key, value in tags.items():
        registry.set_model_version_tag(MODEL_NAME, version, key, value)
    registry.set_registered_model_alias(MODEL_NAME, alias, version)
    return Registered(name=MODEL_NAME, version=version, alias=alias)


def _find_version(registry: mlflow.MlflowClient, run: RunRef, graph: ArtifactRef) -> str | None:
    """Find the version that an interrupted attempt of this flow run registered."""
    found = registry.search_model_versions(
        f"name = '{MODEL_NAME}' and tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{run.flow_run_id}' "
        f"and tags.onnx_sha256 = '{graph.sha256}'"
    )
    return str(found[0].version) if found else None


def _log_model(run: RunRef, graph: ArtifactRef) -> str:
    client = mlflow_runs.client(run.settings)
    run_id = mlflow_runs.nested(client, run.settings, run.mlflow_run_id, "registration")
    mlflow.set_tracking_uri(run.settings.tracking_uri)
    windows = TensorSpec(np.dtype(np.float32), (-1, SEQUENCE_LENGTH, FEATURE_COUNT), INPUT_NAME)
    logits = TensorSpec(np.dtype(np.float32), (-1, CLASS_COUNT), OUTPUT_NAME)
    # MLflow announces the registration on stderr, in the middle of the night's own output
    with redirect_stderr(io.StringIO()), mlflow.start_run(run_id=run_id):
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
