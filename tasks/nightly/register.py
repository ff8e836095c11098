"""Stage `register`: add the candidate to MLflow's model registry, as the night's own model.

The report describes the version and gives it the night's metrics.
"""

import io
from contextlib import redirect_stderr
from importlib.metadata import version
from typing import Any

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from infra.leases.lease import require_held
from model_code.artifacts import ArtifactRef
from model_code.features.dataset import read_manifest
from model_code.features.served import ServedFeatures
from model_code.repository.terms import Terms
from model_code.settings import (
    CHALLENGER_ALIAS,
    CHALLENGER_SIMULATED_ALIAS,
    CLASS_COUNT,
    FEATURE_COUNT,
    MODEL_NAME,
    OUTPUT_NAME,
    SEQUENCE_LENGTH,
    AnyNetworkSpec,
    TrainingSpec,
)
from model_code.training.start import StartingPoint
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import (
    ExportedNetwork,
    Judged,
    Plan,
    Registered,
    SplitWindows,
)
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import (
    EXPIRED_TAG,
    START_TAG,
    TERMS_TAG,
    THRESHOLD_TAG,
    WEIGHTS_FOLDER,
    seen_tags,
)

DESCRIPTION = (
    "What serves is decided by `tickline promote` and `tickline rollback` alone. The alias "
    "champion is a copy: to set it here loads nothing and moves no request."
)
EXAMPLES = 2  # windows; 2,048 numbers as JSON


@stage("register", nothing="not registered: the gate did not accept it")
def register(
    run: RunRef,
    plan: Plan,
    table: ArtifactRef,
    exported: ExportedNetwork,
    threshold: float,
    judged: Judged,
    network_spec: AnyNetworkSpec,
    training_spec: TrainingSpec,
    weights: ArtifactRef,
    split: SplitWindows,
    terms: Terms,
) -> Registered | None:
    """Register the candidate under a challenger alias; None if the gate does not accept it.

    `terms` say what its figures refer to: later nights compare with it only if theirs are equal.
    """
    verdict = judged.verdict
    if not verdict.accepted:
        return None
    alias = CHALLENGER_SIMULATED_ALIAS if plan.simulated else CHALLENGER_ALIAS
    registry = mlflow_runs.client(run.settings)
    version = _find_version(registry, run, exported.onnx)
    require_held()
    if version is None:
        params = mlflow_runs.flatten(network_spec) | mlflow_runs.flatten(training_spec)
        params |= {"network": network_spec.KIND, "engine": judged.engine}
        version = _log_model(run, exported, weights, params)
    rows = read_manifest(run.store, table)
    start = StartingPoint(
        weights=weights,
        network=network_spec,
        features=rows.spec.model_copy(update={"leaders": rows.leaders}),
        trained_until=str(split.summary["train"]["last"]),
    )
    tags = seen_tags(ServedFeatures.of(rows.spec, rows.leaders)) | {
        TERMS_TAG: terms.model_dump_json(),
        START_TAG: start.model_dump_json(exclude={"weights"}),
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
    require_held()
    for key, value in tags.items():
        registry.set_model_version_tag(MODEL_NAME, version, key, value)
    if registry.get_registered_model(MODEL_NAME).description != DESCRIPTION:
        registry.update_registered_model(MODEL_NAME, DESCRIPTION)
    registry.set_registered_model_alias(MODEL_NAME, alias, version)
    return Registered(name=MODEL_NAME, version=version, alias=alias)


def _find_version(registry: mlflow.MlflowClient, run: RunRef, graph: ArtifactRef) -> str | None:
    """Find the version that an interrupted attempt of this flow run registered."""
    found = registry.search_model_versions(
        f"name = '{MODEL_NAME}' and tags.`{mlflow_runs.FLOW_RUN_TAG}` = '{run.flow_run_id}' "
        f"and tags.onnx_sha256 = '{graph.sha256}'"
    )
    usable = [one for one in found if EXPIRED_TAG not in one.tags]
    return str(usable[0].version) if usable else None


def _log_model(
    run: RunRef, exported: ExportedNetwork, weights: ArtifactRef, params: dict[str, Any]
) -> str:
    """Log the weights and the graph with an example to the night's run; return the new version.

    The signature's input has no name: MLflow would refuse a bare array for a named one.
    """
    client = mlflow_runs.client(run.settings)
    client.log_artifact(run.mlflow_run_id, str(run.store.open(weights)), WEIGHTS_FOLDER)
    mlflow.set_tracking_uri(run.settings.tracking_uri)
    windows = TensorSpec(np.dtype(np.float32), (-1, SEQUENCE_LENGTH, FEATURE_COUNT))
    logits = TensorSpec(np.dtype(np.float32), (-1, CLASS_COUNT), OUTPUT_NAME)
    example_BTF = np.load(run.store.open(exported.calibration), mmap_mode="r")[:EXAMPLES]
    model = client.create_logged_model(
        client.get_run(run.mlflow_run_id).info.experiment_id,
        name="model",
        source_run_id=run.mlflow_run_id,
        params={name: str(value) for name, value in params.items()},
    )
    # MLflow announces the registration on stderr, in the middle of the night's own output
    with redirect_stderr(io.StringIO()):
        logged = mlflow.onnx.log_model(
            onnx.load(str(run.store.open(exported.onnx))),
            model_id=model.model_id,
            run_id=run.mlflow_run_id,  # without an active run, whose end would end the night's
            registered_model_name=MODEL_NAME,
            signature=ModelSignature(inputs=Schema([windows]), outputs=Schema([logits])),
            input_example=np.array(example_BTF),
            pip_requirements=[f"onnxruntime=={version('onnxruntime')}"],
            save_as_external_data=False,
            metadata={"onnx_sha256": exported.onnx.sha256},
        )
    return str(logged.registered_model_version)
