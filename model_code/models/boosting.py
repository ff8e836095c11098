"""Gradient boosting on summaries of the same windows: the baseline for the network.

Histogram gradient boosting (Ke et al. 2017, LightGBM; scikit-learn's implementation).

Shapes: B windows, T steps (64), F features (16), G summary columns.
"""

import time
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_code.models.summaries import summaries
from model_code.training.metrics import classification
from model_code.training.threshold import choose_threshold

SETTINGS = {
    "max_iter": 400,
    "learning_rate": 0.1,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 40,
    "l2_regularization": 1.0,
}


@dataclass(frozen=True)
class BaselineResult:
    """What the gate compares the network with.

    Attributes:
        validation: `metrics.classification` at the threshold.
        test: the same.
        test_probability_B: of class 1, float64, in the order of the test ends.
        threshold: `choose_threshold` of the validation predictions.
        iterations: trees.
        fit_seconds: fitting time.
    """

    validation: dict[str, float]
    test: dict[str, float]
    test_probability_B: np.ndarray
    threshold: float
    iterations: int
    fit_seconds: float


def fit_boosting(
    features_NF: np.ndarray,
    labels_N: np.ndarray,
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
    seed: int,
) -> HistGradientBoostingClassifier:
    """Fit on the summaries of the training windows, with early stopping on validation."""
    model = HistGradientBoostingClassifier(
        **SETTINGS, early_stopping=True, n_iter_no_change=10, random_state=seed
    )
    # one thread takes seconds; several wait for each other on a busy machine
    with threadpool_limits(1, user_api="openmp"):
        model.fit(
            summaries(features_NF, train_ends),
            labels_N[train_ends],
            X_val=summaries(features_NF, validation_ends),
            y_val=labels_N[validation_ends],
        )
    return model


def fit_baseline(
    features_NF: np.ndarray,
    labels_N: np.ndarray,
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
    test_ends: np.ndarray,
    seed: int = 0,
) -> BaselineResult:
    """Fit on training windows with early stopping on validation; evaluate on validation and test.

    Args:
        features_NF: raw features, possibly memory-mapped.
        labels_N: 0 or 1 at every window's end.
        train_ends: row index of each training window's last step.
        validation_ends: the same for validation.
        test_ends: the same for the test day.
        seed: of the subsample used for binning.

    Raises:
        DataError: validation or test has one class only.
    """
    started = time.perf_counter()
    model = fit_boosting(features_NF, labels_N, train_ends, validation_ends, seed)
    seconds = time.perf_counter() - started

    validation_B, test_B = (
        model.predict_proba(summaries(features_NF, ends_B))[:, 1]
        for ends_B in (validation_ends, test_ends)
    )
    threshold = choose_threshold(labels_N[validation_ends], validation_B)
    return BaselineResult(
        validation=classification(labels_N[validation_ends], validation_B, threshold),
        test=classification(labels_N[test_ends], test_B, threshold),
        test_probability_B=test_B,
        threshold=threshold,
        iterations=int(model.n_iter_),
        fit_seconds=seconds,
    )
