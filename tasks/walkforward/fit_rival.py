"""Stage `fit rival`: fit what the models must beat for one date and predict its windows."""

import datetime as dt
import time
from typing import Literal

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split, require_apart
from model_code.models import rivals
from model_code.training.threshold import choose_threshold
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import SplitWindows
from tasks.walkforward.records import Fitted

RivalName = Literal["base rate", "logistic", "tuned boosting"]


@stage("fit rival", run_name="fit {label} {date}")
def fit_rival(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    name: RivalName,
    label: str,  # noqa: ARG001
    date: dt.date,  # noqa: ARG001
    trials: int,
    seed: int,
) -> Fitted:
    """Fit on the dates before and store the probabilities of the test windows.

    Args:
        run: where it is stored.
        table: features and labels.
        split: windows.
        name: which rival.
        label: how it is shown, with its inputs.
        date: the test date, shown.
        trials: settings of tuned boosting.
        seed: of the same.

    Raises:
        DataError: the windows of the parts overlap in time.
    """
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    require_apart(rows, windows)
    started = time.perf_counter()
    match name:
        case "base rate":
            answer = rivals.base_rate(rows.label_N, windows)
        case "logistic":
            answer = rivals.logistic(rows.features_NF, rows.label_N, windows)
        case "tuned boosting":
            answer = rivals.tuned_boosting(
                rows.features_NF, rows.label_N, windows, trials=trials, seed=seed
            )
    seconds = time.perf_counter() - started
    with run.store.scratch() as scratch:
        np.save(scratch / "probability.npy", answer.test_B)
        return Fitted(
            probability=run.store.put(scratch / "probability.npy"),
            threshold=choose_threshold(
                rows.label_N[windows.validation_ends],
                answer.validation_B,
                windows.validation_weights,
            ),
            seconds=seconds,
            chosen=answer.chosen,
        )
