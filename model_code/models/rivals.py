"""What a network must beat: base rate, logistic regression, gradient boosting tuned as hard.

All see the summaries of the same windows (`summaries`).

Shapes: B windows, G summary columns.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_code.features.split import Split
from model_code.models.summaries import summaries

Probability = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
CHOICES: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.03, 0.05, 0.1),
    "max_leaf_nodes": (15, 31, 63),
    "min_samples_leaf": (20, 40, 100, 200),
    "l2_regularization": (0.0, 1.0, 10.0),
    "max_features": (0.15, 0.3, 1.0),
}
MOST_ITERATIONS = 600


def base_rate(features_NF: Rows, label_N: npt.NDArray[np.int8], split: Split) -> Probability:  # noqa: ARG001
    """Probability (B,) of the test windows: the training windows' base rate, for all the same."""
    return np.full(len(split.test_ends), float(label_N[split.train_ends].mean()))


def logistic(features_NF: Rows, label_N: npt.NDArray[np.int8], split: Split) -> Probability:
    """Probability (B,) of the test windows by logistic regression on standardised summaries."""
    scale = StandardScaler()
    with threadpool_limits(1):
        x_BG = scale.fit_transform(summaries(features_NF, split.train_ends).astype(np.float64))
        model = LogisticRegression(max_iter=500, tol=1e-3)
        model.fit(np.clip(x_BG, -10, 10), label_N[split.train_ends])
        z_BG = scale.transform(summaries(features_NF, split.test_ends).astype(np.float64))
        found_B: Probability = model.predict_proba(np.clip(z_BG, -10, 10))[:, 1]
    return found_B


def tuned_boosting(
    features_NF: Rows,
    label_N: npt.NDArray[np.int8],
    split: Split,
    *,
    trials: int,
    seed: int,
    on_trial: Callable[[int], None] | None = None,
) -> tuple[Probability, dict[str, float]]:
    """Probability (B,) of the test windows by the best of `trials` random settings.

    Each trial is fitted on the training windows with early stopping on the validation windows,
    whose AUC also chooses among the trials. The first trial is the usual settings.

    Returns:
        The probabilities, and the chosen settings with `iterations` and `validation_auc`.
    """
    rng = np.random.default_rng(seed)
    x_BG, y_B = summaries(features_NF, split.train_ends), label_N[split.train_ends]
    v_BG, w_B = summaries(features_NF, split.validation_ends), label_N[split.validation_ends]
    best: tuple[float, HistGradientBoostingClassifier, dict[str, float]] | None = None
    for trial in range(trials):
        drawn = {name: float(rng.choice(values)) for name, values in CHOICES.items()}
        settings = USUAL if trial == 0 else drawn
        model = HistGradientBoostingClassifier(
            **settings
            | {name: int(settings[name]) for name in ("max_leaf_nodes", "min_samples_leaf")},
            max_iter=MOST_ITERATIONS,
            early_stopping=True,
            n_iter_no_change=20,
            random_state=seed,
        )
        with threadpool_limits(1, user_api="openmp"):
            model.fit(x_BG, y_B, X_val=v_BG, y_val=w_B)
            auc = float(roc_auc_score(w_B, model.predict_proba(v_BG)[:, 1]))
        if best is None or auc > best[0]:
            best = auc, model, settings
        if on_trial is not None:
            on_trial(trial + 1)
    assert best is not None, "trials is at least 1"  # noqa: S101
    auc, model, settings = best
    found_B: Probability = model.predict_proba(summaries(features_NF, split.test_ends))[:, 1]
    return found_B, settings | {"iterations": float(model.n_iter_), "validation_auc": auc}


USUAL = {
    "learning_rate": 0.1,
    "max_leaf_nodes": 31.0,
    "min_samples_leaf": 40.0,
    "l2_regularization": 1.0,
    "max_features": 1.0,
}
