"""Stage `fit shuffled`: boosting of shuffled labels, which ranks nothing unless there is a leak."""

import datetime as dt
from dataclasses import replace

from sklearn.metrics import roc_auc_score

from model_code.artifacts import ArtifactRef
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.strata import moved
from model_code.models import rivals
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import SplitWindows
from tasks.walkforward.records import Shuffled

SHUFFLES = 5


@stage("fit shuffled", run_name="fit shuffled labels {date}")
def fit_shuffled(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    date: dt.date,  # noqa: ARG001
    seed: int,
) -> Shuffled:
    """AUC on the true test labels of fits to training and validation labels in random order."""
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    ends, aucs = windows.validation_ends, []
    for own_seed in ((seed + shuffle) % 2**32 for shuffle in range(SHUFFLES)):
        label_N = rivals.shuffled(rows.label_N, windows, own_seed)
        weights = moved(windows.validation_weights, rows.label_N[ends], label_N[ends])
        answer = rivals.tuned_boosting(
            rows.features_NF,
            label_N,
            replace(windows, validation_weights=weights),
            trials=1,
            seed=own_seed,
        )
        aucs.append(float(roc_auc_score(rows.label_N[windows.test_ends], answer.test_B)))
    return Shuffled(aucs=tuple(aucs))
