"""Gradient boosting on summaries of the windows: a model of its own, and the baseline for others.

Histogram gradient boosting (Ke et al. 2017, LightGBM; scikit-learn's implementation).

Shapes: B windows, T steps (64), F features (16), G summary columns, C classes (2).
"""

import time
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from model_code.features.column import Column
from model_code.models.predictor import WindowModel
from model_code.models.summaries import summaries, summarise
from model_code.models.trees import TreeEnsemble
from model_code.settings import BoostingSpec, TreesSpec
from model_code.training.metrics import classification
from model_code.training.threshold import choose_threshold

CHECKED = 4096  # windows on which the trees as tensors must agree with scikit-learn
DEFAULT = TreesSpec()


class Boosting(WindowModel):
    """Boosted trees in a network's place; it has nothing that gradient descent could train.

    Args:
        spec: the trees' limits.
    """

    spec: BoostingSpec

    def __init__(self, spec: BoostingSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trees = TreeEnsemble()

    def forward(self, x_BTF: Tensor) -> Tensor:
        """Return logits_BC (0, log-odds) for raw features x_BTF; zeros until trees are fitted."""
        return self.trees.logits(summarise(x_BTF))

    def finish(
        self,
        features_NF: Column,
        labels_N: np.ndarray,
        train_ends: np.ndarray,
        validation_ends: np.ndarray,
        seed: int,
        validation_weight_B: np.ndarray | None = None,
    ) -> None:
        """Fit the trees on the training windows, with early stopping on validation.

        Raises:
            ExportError: the trees as tensors differ from scikit-learn's.
        """
        fitted = fit_boosting(
            features_NF,
            labels_N,
            train_ends,
            validation_ends,
            seed,
            self.spec.trees,
            validation_weight_B,
        )
        self.trees.copy_from(fitted, summaries(features_NF, validation_ends[:CHECKED]))


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
    features_NF: Column,
    labels_N: np.ndarray,
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
    seed: int,
    trees: TreesSpec = DEFAULT,
    validation_weight_B: np.ndarray | None = None,
) -> HistGradientBoostingClassifier:
    """Fit on the summaries of the training windows, with early stopping on validation.

    The validation loss is weighted: unequal class shares would end the fit too early or too late.

    Thresholds are moved to the middle of their gap between two training values: scikit-learn puts
    most of them on a training value, and a mean whose sum an engine rounds otherwise would take the
    other branch.
    """
    x_BG = summaries(features_NF, train_ends)
    model = HistGradientBoostingClassifier(
        **trees.model_dump(exclude={"KIND"}),
        early_stopping=True,
        n_iter_no_change=10,
        random_state=seed,
    )
    # one thread takes seconds; several wait for each other on a busy machine
    with threadpool_limits(1, user_api="openmp"):
        model.fit(
            x_BG,
            labels_N[train_ends],
            X_val=summaries(features_NF, validation_ends),
            y_val=labels_N[validation_ends],
            sample_weight_val=validation_weight_B,
        )
    centre_thresholds(model, x_BG)
    return model


def centre_thresholds(model: HistGradientBoostingClassifier, x_BG: np.ndarray) -> None:
    """Move every threshold to the middle of its gap between two values of its column.

    Args:
        model: fitted on `x_BG`; no training window changes its path.
        x_BG: float32 summaries of the training windows, without missing values.
    """
    trees = [stage[0].nodes for stage in model._predictors]  # no public access
    for column in {int(c) for nodes in trees for c in nodes["feature_idx"][nodes["is_leaf"] == 0]}:
        value_B = np.sort(x_BG[:, column]).astype(np.float64)
        for nodes in trees:
            own = np.flatnonzero((nodes["is_leaf"] == 0) & (nodes["feature_idx"] == column))
            above = np.searchsorted(value_B, nodes["num_threshold"][own], side="right")
            nodes["num_threshold"][own] = (value_B[above - 1] + value_B[above]) / 2.0


def fit_baseline(
    features_NF: Column,
    labels_N: np.ndarray,
    train_ends: np.ndarray,
    validation_ends: np.ndarray,
    test_ends: np.ndarray,
    seed: int = 0,
    trees: TreesSpec = DEFAULT,
    *,
    validation_weight_B: np.ndarray | None = None,
    test_weight_B: np.ndarray | None = None,
) -> BaselineResult:
    """Fit on training windows with early stopping on validation; evaluate on validation and test.

    Args:
        features_NF: raw features, possibly memory-mapped.
        labels_N: 0 or 1 at every window's end.
        train_ends: row index of each training window's last step.
        validation_ends: the same for validation.
        test_ends: the same for the test day.
        seed: of the subsample used for binning.
        trees: their limits.
        validation_weight_B: how many windows each of validation stands for; None: one each.
        test_weight_B: the same for the test day.

    Raises:
        DataError: validation or test has one class only.
    """
    started = time.perf_counter()
    model = fit_boosting(
        features_NF, labels_N, train_ends, validation_ends, seed, trees, validation_weight_B
    )
    seconds = time.perf_counter() - started

    validation_B, test_B = (
        model.predict_proba(summaries(features_NF, ends_B))[:, 1]
        for ends_B in (validation_ends, test_ends)
    )
    validation_label_B = labels_N[validation_ends]
    threshold = choose_threshold(validation_label_B, validation_B, validation_weight_B)
    return BaselineResult(
        validation=classification(validation_label_B, validation_B, threshold, validation_weight_B),
        test=classification(labels_N[test_ends], test_B, threshold, test_weight_B),
        test_probability_B=test_B,
        threshold=threshold,
        iterations=int(model.n_iter_),
        fit_seconds=seconds,
    )
