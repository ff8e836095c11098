"""Stages of the network: train, baseline, export. Each logs to its own nested MLflow run."""

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from model_code import checkpoint, export, network, training
from model_code.artifacts import ArtifactRef
from model_code.baseline import fit_baseline
from model_code.benchmark import plots
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather
from model_code.settings import NetworkSpec, TrainingSpec
from model_code.training_run import EpochMetrics
from tasks import tracking
from tasks.fresh import is_stale
from tasks.results import ExportedNetwork, SplitWindows, TrainedNetwork
from tasks.stage import RunRef, console, stage, stage_key

PARITY_WINDOWS = 64
CALIBRATION = 2048  # training windows that integer and pruned engines are fitted on
TRAINING = ["model_code.training", "model_code.features.dataset"]


@stage("train", code=TRAINING)
def train(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    network_spec: NetworkSpec,
    training_spec: TrainingSpec,
) -> TrainedNetwork:
    """Train the network; after a kill, go on from the last finished epoch."""
    mlflow = tracking.client(run.settings)
    run_id = tracking.nested(mlflow, run.settings, run.mlflow_run_id, "training")
    tracking.log_params(
        mlflow, run_id, tracking.flatten(network_spec) | tracking.flatten(training_spec)
    )

    def log_epoch(epoch: EpochMetrics) -> None:
        values = asdict(epoch)
        step = values.pop("epoch")
        tracking.log_metrics(mlflow, run_id, values, step)
        console.print(
            f"            epoch {step}: validation AUC {epoch.validation_auc:.4f}, "
            f"loss {epoch.train_loss:.4f}, {epoch.samples_per_s:.0f} windows/s"
        )

    key = stage_key(
        TRAINING,
        {
            "table": table,
            "split": split.windows,
            "network": network_spec,
            "training": training_spec,
        },
    )
    checkpoints = run.settings.checkpoints / key
    if any(is_stale(path) for path in checkpoints.glob("*")):
        checkpoint.discard(checkpoints)
    rows, windows = FeatureTable.load(table.open()), Split.load(split.windows.open())
    result = training.train(
        rows.features_NF,
        rows.label_N,
        windows.train_ends,
        windows.validation_ends,
        network_spec=network_spec,
        training_spec=training_spec,
        checkpoints=checkpoints,
        on_epoch=log_epoch,
        progress=True,
    )
    # a kill can fall between an epoch's checkpoint and its metrics
    known = {point.step for point in mlflow.get_metric_history(run_id, "train_loss")}
    for epoch in result.history:
        if epoch.epoch not in known:
            log_epoch(epoch)
    history = tuple(asdict(epoch) for epoch in result.history)
    best = history[result.best_epoch - 1]
    tracking.log_params(
        mlflow,
        run_id,
        {
            "precision_used": result.precision,
            "precision_reason": result.precision_reason,
            "device": result.device,
            "parameters": network.parameter_count(result.model),
        },
    )
    tracking.log_metrics(
        mlflow,
        run_id,
        {
            "best_epoch": result.best_epoch,
            "best_validation_auc": best["validation_auc"],
            "samples_per_s_overall": result.samples_per_s,
        },
    )
    with run.store.scratch() as scratch:
        path = scratch / "model.pt"
        network.save(result.model, path)
        mlflow.log_artifact(run_id, str(path), "model")
        curve = plots.learning_curve(result.history, scratch / "learning_curve.png")
        mlflow.log_artifact(run_id, str(curve), "plots")
        model = run.store.put(path)
    mlflow.set_terminated(run_id)
    return TrainedNetwork(
        model=model,
        history=history,
        best_epoch=result.best_epoch,
        precision=result.precision,
        precision_reason=result.precision_reason,
        resumed_from=result.resumed_from,
        mlflow_run_id=run_id,
    )


@stage("baseline", code=["model_code.baseline"])
def baseline(run: RunRef, table: ArtifactRef, split: SplitWindows, seed: int) -> dict[str, float]:
    """Fit gradient boosting on the same windows; what the network has to beat."""
    rows, windows = FeatureTable.load(table.open()), Split.load(split.windows.open())
    result = fit_baseline(
        rows.features_NF,
        rows.label_N,
        windows.train_ends,
        windows.validation_ends,
        windows.test_ends,
        seed=seed,
    )
    mlflow = tracking.client(run.settings)
    run_id = tracking.nested(mlflow, run.settings, run.mlflow_run_id, "baseline")
    tracking.log_params(mlflow, run_id, {"model": "gradient boosting", "seed": seed})
    tracking.log_metrics(
        mlflow,
        run_id,
        result.test
        | {f"validation_{name}": value for name, value in result.validation.items()}
        | {"iterations": result.iterations, "fit_seconds": result.fit_seconds},
    )
    mlflow.set_terminated(run_id)
    return result.test


@stage("export", code=["model_code.export"])
def export_network(
    run: RunRef, table: ArtifactRef, split: SplitWindows, model: ArtifactRef
) -> ExportedNetwork:
    """Write TorchScript and ONNX; prove on real test windows that they are the same network."""
    rows, windows = FeatureTable.load(table.open()), Split.load(split.windows.open())
    example_BTF = gather(rows.features_NF, _spread(windows.test_ends, PARITY_WINDOWS))
    trained = network.load(model.open())
    with run.store.scratch() as scratch:
        script, onnx = scratch / "model.ts", scratch / "model.onnx"
        calibration = scratch / "calibration.npy"
        np.save(calibration, gather(rows.features_NF, _spread(windows.train_ends, CALIBRATION)))
        script_report = export.export_torchscript(trained, example_BTF, script)
        onnx_report = export.export_onnx(trained, example_BTF, onnx)
        return ExportedNetwork(
            torchscript=run.store.put(script),
            onnx=run.store.put(onnx),
            calibration=run.store.put(calibration),
            opset=onnx_report.opset or 0,
            torchscript_error=script_report.parity_error,
            onnx_error=onnx_report.parity_error,
        )


def _spread(ends_N: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of the windows, evenly over the whole time."""
    return ends_N[np.linspace(0, len(ends_N) - 1, min(count, len(ends_N))).astype(np.int64)]
