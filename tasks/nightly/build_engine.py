"""Stage `build engine`: one inference engine with its sidecar, or why it is unavailable."""

from prefect import get_run_logger

from model_code.artifacts import ArtifactRef
from model_code.engines.protocol import EngineSource
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import BuiltEngine, ExportedNetwork
from tasks.runs import mlflow_runs


@stage("build engine", run_name="build {name}")
def build_engine(
    run: RunRef,
    name: str,
    model: ArtifactRef,
    exported: ExportedNetwork,
    threshold: float,
    reason: str | None,
    prefix: str = "",
) -> BuiltEngine:
    """Build one engine with its sidecar, or record why this machine cannot.

    `prefix` tells the engine of another model from the candidate's, in the tables and in MLflow.

    `reason` is an argument, so it is part of the cache key. Once a missing driver or compiler is
    installed, the old result no longer matches.
    """
    engine = ENGINES[name]
    if reason is not None:
        return BuiltEngine(name=prefix + name, folder=None, unavailable=reason, mlflow_run_id=None)
    source = EngineSource(
        model=run.store.open(model),
        onnx=run.store.open(exported.onnx),
        torchscript=run.store.open(exported.torchscript),
        calibration=run.store.open(exported.calibration),
        onnx_trees=run.store.open(exported.onnx_trees) if exported.onnx_trees else None,
        threshold=threshold,
    )
    mlflow = mlflow_runs.client(run.settings)
    with run.store.scratch() as scratch:
        out = scratch / name
        sidecar = engine.build(source, out)
        # after the build: a failed build must not leave an open run
        run_id = mlflow_runs.nested(
            mlflow, run.settings, run.mlflow_run_id, f"engine {prefix}{name}"
        )
        mlflow.log_artifacts(run_id, str(out), "engine")
        folder = run.store.put(out)
    if sidecar.plan is not None:
        get_run_logger().info(
            "%s: to build this plan again: cd %s && %s",
            name,
            run.store.open(folder),
            sidecar.plan.trtexec,
        )
    mlflow_runs.log_params(mlflow, run_id, _engine_params(sidecar))
    mlflow_runs.log_metrics(
        mlflow,
        run_id,
        {"build_seconds": sidecar.build_seconds, "parity_error": sidecar.parity_error},
    )
    mlflow.set_terminated(run_id)
    return BuiltEngine(name=prefix + name, folder=folder, unavailable=None, mlflow_run_id=run_id)


def _engine_params(sidecar: EngineSidecar) -> dict[str, str]:
    return {
        "engine": sidecar.engine,
        "library": f"{sidecar.library} {sidecar.library_version}",
        "precision": sidecar.precision,
        "device": sidecar.device,
        "threads": str(sidecar.threads),
        "sha256": sidecar.sha256,
    }
