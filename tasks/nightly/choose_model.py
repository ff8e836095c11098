"""Stage `choose model`: the night's models side by side; the best goes on.

Shapes: B windows, T = 64 steps, F = 16 features.
"""

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from model_code.artifacts import ArtifactRef
from model_code.benchmark.comparison import Comparison, Windows, compare
from model_code.benchmark.context import window_context
from model_code.benchmark.measure import probability
from model_code.benchmark.reports.frontier import draw_frontier
from model_code.benchmark.timing import in_turns
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.protocol import Predictor
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather, spread
from model_code.machine import physical_cores
from model_code.settings import MAX_BATCH_SIZE
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Baseline, ChosenModel, SplitWindows, TrainedModel
from tasks.runs import mlflow_runs
from tasks.runs.console import console

ROUNDS, REQUESTS = 20, 20  # of single windows
SINGLES = 64


@stage("choose model")
def choose_model(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    models: tuple[TrainedModel, ...],
    baseline: Baseline,
) -> ChosenModel:
    """Compare the models on the test windows; choose by the validation windows."""
    rows, parts = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    predictors: dict[str, Predictor] = {
        model.name: open_graph(run.store.open(model.exported.runtime_graph), physical_cores())
        for model in models
    }
    singles = [
        gather(rows.features_NF, parts.test_ends[i : i + 1])
        for i in spread(np.arange(len(parts.test_ends)), SINGLES)
    ]
    latency_ms_R = in_turns(
        predictors, dict.fromkeys(predictors, singles), rounds=ROUNDS, each=REQUESTS
    )
    comparison = compare(
        Windows(
            label_B=np.asarray(rows.label_N[parts.test_ends]),
            context=window_context(rows, parts.test_ends, parts.test_weights),
            probability_B=_probabilities(rows, parts.test_ends, predictors),
            boosting_B=np.load(run.store.open(baseline.probability)),
        ),
        boosting=baseline.metrics,
        validation_auc={model.name: model.network.validation_auc for model in models},
        thresholds={model.name: model.network.threshold for model in models},
        p50_ms={name: float(np.median(values)) for name, values in latency_ms_R.items()},
        seconds={model.name: model.network.seconds for model in models},
    )
    _log(run, models, comparison)
    console.print(f"            {comparison.reason}")
    with run.store.scratch() as scratch:
        folder = scratch / "models"
        folder.mkdir()
        (folder / "models.json").write_text(comparison.model_dump_json(indent=2) + "\n")
        (folder / "models.md").write_text(comparison.markdown())
        draw_frontier(comparison, folder / "frontier.png")
        stored = run.store.put(folder)
    return ChosenModel(name=comparison.chosen, comparison=comparison, folder=stored)


def _probabilities(
    rows: FeatureTable, ends_B: NDArray[np.int64], predictors: dict[str, Predictor]
) -> dict[str, NDArray[np.float64]]:
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in predictors}
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for start in bar.track(
            range(0, len(ends_B), MAX_BATCH_SIZE), description="models, test windows"
        ):
            x_BTF = gather(rows.features_NF, ends_B[start : start + MAX_BATCH_SIZE])
            for name, predictor in predictors.items():
                parts[name].append(probability(predictor.predict(x_BTF)))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _log(run: RunRef, models: tuple[TrainedModel, ...], comparison: Comparison) -> None:
    """Log each model's figures to its training run, with equal names, so MLflow can compare."""
    mlflow = mlflow_runs.client(run.settings)
    rows = {row.name: row for row in comparison.rows}
    for model in models:
        figures = rows[model.name].model_dump(exclude={"name", "ahead", "seconds"})
        mlflow_runs.log_metrics(
            mlflow,
            model.network.mlflow_run_id,
            figures,
        )
