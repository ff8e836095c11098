"""Stage `baseline`: gradient boosting on the same windows, the baseline for the network."""

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.models.boosting import fit_baseline
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Baseline, SplitWindows
from tasks.runs import mlflow_runs


@stage("baseline")
def baseline(run: RunRef, table: ArtifactRef, split: SplitWindows, seed: int) -> Baseline:
    """Fit gradient boosting on the same windows; store its predictions of the test windows."""
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    result = fit_baseline(
        rows.features_NF,
        rows.label_N,
        windows.train_ends,
        windows.validation_ends,
        windows.test_ends,
        seed=seed,
        validation_weight_B=windows.validation_weights,
        test_weight_B=windows.test_weights,
    )
    mlflow = mlflow_runs.client(run.settings)
    run_id = mlflow_runs.nested(mlflow, run.settings, run.mlflow_run_id, "baseline")
    mlflow_runs.log_params(
        mlflow, run_id, {"model": "gradient boosting", "seed": seed, "threshold": result.threshold}
    )
    mlflow_runs.log_metrics(
        mlflow,
        run_id,
        result.test
        | {f"validation_{name}": value for name, value in result.validation.items()}
        | {"iterations": result.iterations, "fit_seconds": result.fit_seconds},
    )
    mlflow.set_terminated(run_id)
    with run.store.scratch() as scratch:
        path = scratch / "boosting.npy"
        np.save(path, result.test_probability_B)
        probability = run.store.put(path)
    return Baseline(metrics=result.test, threshold=result.threshold, probability=probability)
