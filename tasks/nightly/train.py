"""Stage `train`: train the network, resuming after the last finished epoch."""

from dataclasses import asdict
from time import perf_counter

from infra.leases.lease import require_held
from infra.torchrun import train_on
from model_code.artifacts import ArtifactRef
from model_code.benchmark.reports import plots
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.models import network
from model_code.models.blend import Blend
from model_code.models.predictor import WindowModel
from model_code.models.probability import probability
from model_code.settings import AnyNetworkSpec, BoostingSpec, TrainingSpec
from model_code.storage.shared import CHECKPOINTS, FolderCopy, shared_objects
from model_code.training import checkpoint, evaluation
from model_code.training.job import TrainingJob
from model_code.training.metrics import classification
from model_code.training.run import EpochMetrics
from model_code.training.start import StartingPoint
from model_code.training.threshold import choose_threshold
from tasks.caching.fingerprint import stage_key
from tasks.caching.refresh import is_stale
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import SplitWindows, TrainedNetwork
from tasks.runs import mlflow_runs
from tasks.runs.console import console
from tasks.runs.metric_names import logged_as
from tasks.runs.system_metrics import system_metrics


@stage("train")
def train(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    network_spec: AnyNetworkSpec,
    training_spec: TrainingSpec,
    name: str = "training",
    start: StartingPoint | None = None,
) -> TrainedNetwork:
    """Train the network; after an interruption, resume from the last finished epoch.

    `name` is the MLflow run's, `start` the champion's weights where the training starts from them.
    """
    mlflow = mlflow_runs.client(run.settings)
    run_id = mlflow_runs.nested(mlflow, run.settings, run.mlflow_run_id, name)
    mlflow_runs.log_params(
        mlflow, run_id, mlflow_runs.flatten(network_spec) | mlflow_runs.flatten(training_spec)
    )

    def log_epoch(epoch: EpochMetrics) -> None:
        require_held()
        copy.push()  # the epoch's checkpoint, before anything says that the epoch is done
        values = asdict(epoch)
        step = values.pop("epoch")
        mlflow_runs.log_metrics(mlflow, run_id, values, step)
        console.print(
            f"            epoch {step}: validation AUC {epoch.validation_auc:.4f}, "
            f"loss {epoch.train_loss:.4f}, {epoch.samples_per_s:.0f} windows/s"
        )

    key = stage_key(
        __name__,
        {
            "table": table,
            "split": split.windows,
            "network": network_spec,
            "training": training_spec,
            "start": start,
        },
    )
    checkpoints = run.settings.checkpoints / key
    copy = FolderCopy(shared_objects(run.settings), f"{CHECKPOINTS}/{key}", checkpoints)
    copy.pull()
    if any(is_stale(path) for path in checkpoints.glob("*")):
        checkpoint.discard(checkpoints)
        copy.push()
    job = TrainingJob(
        store=run.store.root,
        shared=run.settings.store,
        table=table,
        windows=split.windows,
        network=network_spec,
        training=training_spec,
        checkpoints=checkpoints,
        start=None if start is None else start.weights,
    )
    started = perf_counter()
    with system_metrics(run.settings.tracking_uri, run_id), run.store.scratch() as scratch:
        if training_spec.processes == 1 or isinstance(network_spec, BoostingSpec):
            result = job.run(log_epoch, progress=True)
        else:
            result = train_on(job, training_spec.processes, scratch, on_epoch=log_epoch)
    seconds = perf_counter() - started
    if result.budget:
        console.print(f"            {result.budget}")
    # the process may have been killed between an epoch's checkpoint and its metrics
    logged = {point.step for point in mlflow.get_metric_history(run_id, logged_as("train_loss"))}
    for epoch in result.history:
        if epoch.epoch not in logged:
            log_epoch(epoch)
    history = tuple(asdict(epoch) for epoch in result.history)
    best = history[result.best_epoch - 1]
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    ends, weight_B = windows.validation_ends, windows.validation_weights
    validation_B = probability(evaluation.predict(result.model, rows.features_NF, ends))
    threshold = choose_threshold(rows.label_N[ends], validation_B, weight_B)
    figures = classification(rows.label_N[ends], validation_B, threshold, weight_B)
    validation_auc = figures["auc"]
    mlflow_runs.log_params(
        mlflow,
        run_id,
        {
            "precision_used": result.precision,
            "precision_reason": result.precision_reason,
            "device": result.device,
            **({"budget_used": result.budget} if result.budget else {}),
            "threshold": threshold,
            "parameters": network.parameter_count(result.model),
            **_fitted(result.model),
        },
    )
    mlflow_runs.log_metrics(
        mlflow,
        run_id,
        {
            "best_epoch": result.best_epoch,
            "best_validation_auc": best["validation_auc"],
            "finished_validation_auc": validation_auc,
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
        threshold=threshold,
        validation_auc=validation_auc,
        seconds=seconds,
    )


def _fitted(model: WindowModel) -> dict[str, float]:
    """What training found in place of a value of the specification."""
    return {"weight_used": model.weight} if isinstance(model, Blend) else {}
