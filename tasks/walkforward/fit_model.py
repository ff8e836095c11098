"""Stage `fit model`: train one of the night's models for one date and predict its windows."""

import datetime as dt
import time

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split, require_apart
from model_code.models import network
from model_code.models.probability import probability
from model_code.settings import AnyNetworkSpec, TrainingSpec
from model_code.training import evaluation
from model_code.training.job import TrainingJob
from model_code.training.threshold import choose_threshold
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import SplitWindows
from tasks.walkforward.records import Fitted


@stage("fit model", run_name="fit {name} {date}")
def fit_model(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    name: str,  # noqa: ARG001
    date: dt.date,  # noqa: ARG001
    network_spec: AnyNetworkSpec,
    training_spec: TrainingSpec,
) -> Fitted:
    """Train on the dates before and store the probabilities of the test windows.

    Raises:
        DataError: the windows of the parts overlap in time, or cannot be trained on.
    """
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    require_apart(rows, windows)
    started = time.perf_counter()
    with run.store.scratch() as scratch:
        result = TrainingJob(
            store=run.store.root,
            shared=run.settings.store,
            table=table,
            windows=split.windows,
            network=network_spec,
            training=training_spec,
            checkpoints=scratch / "checkpoints",
        ).run()
        validation_B, test_B = (
            probability(evaluation.predict(result.model, rows.features_NF, ends))
            for ends in (windows.validation_ends, windows.test_ends)
        )
        seconds = time.perf_counter() - started
        np.save(scratch / "probability.npy", test_B)
        network.save(result.model, scratch / "model.pt")
        best = result.history[result.best_epoch - 1]
        return Fitted(
            probability=run.store.put(scratch / "probability.npy"),
            threshold=choose_threshold(
                rows.label_N[windows.validation_ends], validation_B, windows.validation_weights
            ),
            seconds=seconds,
            chosen={"best_epoch": float(best.epoch), "validation_auc": best.validation_auc},
            model=run.store.put(scratch / "model.pt"),
        )
