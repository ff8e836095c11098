"""What a network must beat: base rate, logistic regression, gradient boosting tuned as hard.

All see the summaries of the same windows (`summaries`) and answer for the validation windows, on
which a threshold can be chosen, and for the test windows, which take no part in any choice.

Shapes: B windows, G summary columns.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model_code.features.column import Column
from model_code.features.split import Ends, Split
from model_code.models.summaries import summaries
from model_code.settings import TreesSpec

Probability = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]
CLAMP = 10.0  # standard deviations, as the networks clamp
CHUNK = 1 << 16  # windows whose summaries are in memory at a time
MOST_ITERATIONS = 600
PATIENCE = 20  # trees without a lower validation loss
CHOICES: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.03, 0.05, 0.1),
    "max_leaf_nodes": (15, 31, 63),
    "min_samples_leaf": (20, 40, 100, 200),
    "l2_regularization": (0.0, 1.0, 10.0),
    "max_features": (0.15, 0.3, 1.0),
}
COUNTS = ("max_leaf_nodes", "min_samples_leaf")
USUAL = {name: float(getattr(TreesSpec(), name)) for name in CHOICES}


class Answer(NamedTuple):
    """A rival's probabilities of class 1, and what it chose.

    Attributes:
        validation_B: float64, in the order of the validation ends.
        test_B: float64, in the order of the test ends.
        chosen: settings and figures of the fit.
    """

    validation_B: Probability
    test_B: Probability
    chosen: dict[str, float]


def base_rate(label_N: Labels, split: Split) -> Answer:
    """The training windows' base rate, for all windows the same."""
    rate = float(label_N[split.train_ends].mean())
    validation_B, test_B = (
        np.full(len(ends), rate) for ends in (split.validation_ends, split.test_ends)
    )
    return Answer(validation_B, test_B, {"base_rate": rate})


def logistic(features_NF: Column, label_N: Labels, split: Split) -> Answer:
    """Logistic regression on standardised summaries, L2 penalty 1."""
    scale = StandardScaler()

    def standard(x_BG: Rows) -> npt.NDArray[np.float64]:
        z_BG: npt.NDArray[np.float64] = scale.transform(x_BG.astype(np.float64))
        return np.clip(z_BG, -CLAMP, CLAMP)

    with threadpool_limits(1):
        x_BG = summaries(features_NF, split.train_ends)
        scale.fit(x_BG.astype(np.float64))
        model = LogisticRegression(max_iter=1000, tol=1e-3)
        model.fit(standard(x_BG), label_N[split.train_ends])
        validation_B, test_B = (
            _probability(lambda x_BG: model.predict_proba(standard(x_BG)), features_NF, ends)
            for ends in (split.validation_ends, split.test_ends)
        )
    return Answer(validation_B, test_B, {"steps": float(model.n_iter_[0])})


def tuned_boosting(
    features_NF: Column,
    label_N: Labels,
    split: Split,
    *,
    trials: int,
    seed: int,
    on_trial: Callable[[int], None] | None = None,
) -> Answer:
    """Gradient boosting with the best of `trials` settings, the first of which is the usual one.

    Each trial is fitted on the training windows with early stopping on the validation windows,
    whose AUC also chooses among the trials.

    Args:
        features_NF: feature table.
        label_N: 0 or 1 at every window's end.
        split: the windows; the test labels are not read.
        trials: at least 1.
        seed: of the drawn settings and of the trees.
        on_trial: called after each trial with their number.

    Returns:
        The answer; `chosen` has the settings, `iterations` and `validation_auc`.
    """
    rng = np.random.default_rng(seed)
    x_BG, y_B = summaries(features_NF, split.train_ends), label_N[split.train_ends]
    v_BG, w_B = summaries(features_NF, split.validation_ends), label_N[split.validation_ends]
    weight_B = split.validation_weights
    best: tuple[float, HistGradientBoostingClassifier, dict[str, float]] | None = None
    # without BLAS, so only OpenMP's threads count; the result does not depend on their number
    with threadpool_limits(1, user_api="openmp"):
        for trial in range(trials):
            drawn = {name: float(rng.choice(values)) for name, values in CHOICES.items()}
            settings = USUAL if trial == 0 else drawn
            model = _boosting(settings, seed)
            model.fit(x_BG, y_B, X_val=v_BG, y_val=w_B, sample_weight_val=weight_B)
            answer_B = model.predict_proba(v_BG)[:, 1]
            auc = float(roc_auc_score(w_B, answer_B, sample_weight=weight_B))
            if best is None or auc > best[0]:
                best = auc, model, settings
            if on_trial is not None:
                on_trial(trial + 1)
        if best is None:
            raise ValueError("at least one trial")
        auc, model, settings = best
        validation_B = model.predict_proba(v_BG)[:, 1].astype(np.float64)
        test_B = _probability(model.predict_proba, features_NF, split.test_ends)
    chosen = settings | {"iterations": float(model.n_iter_), "validation_auc": auc}
    return Answer(validation_B, test_B, chosen)


def shuffled(label_N: Labels, split: Split, seed: int) -> Labels:
    """A copy whose training and validation labels change places at random; the test's do not."""
    rng = np.random.default_rng(seed)
    found_N = np.array(label_N)
    for ends in (split.train_ends, split.validation_ends):
        found_N[ends] = rng.permutation(found_N[ends])
    return found_N


def _boosting(settings: dict[str, float], seed: int) -> HistGradientBoostingClassifier:
    whole: dict[str, Any] = {name: int(settings[name]) for name in COUNTS}
    return HistGradientBoostingClassifier(
        **settings | whole,
        max_iter=MOST_ITERATIONS,
        early_stopping=True,
        n_iter_no_change=PATIENCE,
        random_state=seed,
    )


def _probability(
    predict: Callable[[Rows], npt.NDArray[Any]], features_NF: Column, ends_B: Ends
) -> Probability:
    """Probability (B,) of class 1, chunk by chunk: a day's summaries may not fit the memory."""
    parts = [
        predict(summaries(features_NF, ends_B[first : first + CHUNK]))[:, 1]
        for first in range(0, len(ends_B), CHUNK)
    ]
    return np.concatenate(parts).astype(np.float64)
