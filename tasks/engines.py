"""Stages of the engines: build each, measure them side by side, judge the candidate."""

from prefect import get_run_logger

from model_code.artifacts import ArtifactRef
from model_code.engines.protocol import EngineSource
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from tasks import tracking
from tasks.results import BuiltEngine, ExportedNetwork
from tasks.stage import RunRef, stage


@stage("build engine", code=["model_code.engines.registry"], run_name="build {name}")
def build_engine(
    run: RunRef, name: str, model: ArtifactRef, exported: ExportedNetwork
) -> BuiltEngine:
    """Build one engine into a folder with its sidecar, or say why this machine cannot."""
    engine = ENGINES[name]
    reason = engine.availability()
    if reason is not None:
        get_run_logger().info("%s is unavailable: %s", name, reason)
        return BuiltEngine(name=name, folder=None, unavailable=reason, mlflow_run_id=None)
    source = EngineSource(
        model=model.open(), onnx=exported.onnx.open(), torchscript=exported.torchscript.open()
    )
    mlflow = tracking.client(run.settings)
    run_id = tracking.nested(mlflow, run.settings, run.mlflow_run_id, f"engine {name}")
    with run.store.scratch() as scratch:
        out = scratch / name
        sidecar = engine.build(source, out)
        mlflow.log_artifacts(run_id, str(out), "engine")
        folder = run.store.put(out)
    tracking.log_params(mlflow, run_id, _engine_params(sidecar))
    tracking.log_metrics(
        mlflow,
        run_id,
        {"build_seconds": sidecar.build_seconds, "parity_error": sidecar.parity_error},
    )
    mlflow.set_terminated(run_id)
    return BuiltEngine(name=name, folder=folder, unavailable=None, mlflow_run_id=run_id)


def _engine_params(sidecar: EngineSidecar) -> dict[str, str]:
    return {
        "engine": sidecar.engine,
        "library": f"{sidecar.library} {sidecar.library_version}",
        "precision": sidecar.precision,
        "device": sidecar.device,
        "threads": str(sidecar.threads),
        "sha256": sidecar.sha256,
    }
