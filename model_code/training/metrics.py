"""Classification metrics of two-class predictions. B windows.

Of windows with weights (`features.strata`) every count and sum is weighted, so that the figures
estimate those of all the windows they stand for.
"""

import numpy as np
from sklearn import metrics as sk

from model_code.errors import DataError
from model_code.features.strata import unseen
from model_code.training.threshold import DEFAULT_THRESHOLD, decide, matthews

CALIBRATION_BINS = 15


def classification(
    label_B: np.ndarray,
    probability_B: np.ndarray,
    threshold: float = DEFAULT_THRESHOLD,
    weight_B: np.ndarray | None = None,
) -> dict[str, float]:
    """Compare probabilities of class 1 with labels.

    Args:
        label_B: 0 or 1.
        probability_B: probability of class 1, in [0, 1].
        threshold: probability from which a window counts as class 1.
        weight_B: how many windows each stands for, positive; None: one each.

    Returns:
        At the threshold: accuracy, balanced_accuracy (mean of both classes' recalls), mcc (Matthews
        correlation), precision (0 if no window is predicted as class 1), recall. Of the ranks: auc
        (ROC), average_precision, average_precision_lift (over base_rate; 1 is guessing). Of the
        probabilities: log_loss (nats), brier, calibration_error (expected, 15 equal-width bins:
        Guo et al. 2017, arXiv:1706.04599), predicted_rate (their mean). base_rate: labels' mean.

    Raises:
        DataError: shapes differ, a label is not 0 or 1, only one class is present, a probability
            is not finite or outside [0, 1], or a weight is not finite and positive.
    """
    label_B, probability_B = np.asarray(label_B), np.asarray(probability_B, dtype=np.float64)
    if label_B.shape != probability_B.shape or label_B.ndim != 1:
        raise DataError(
            f"labels have shape {label_B.shape}, probabilities {probability_B.shape}",
            remedy="pass one probability per label, both one-dimensional",
        )
    if weight_B is not None and (
        weight_B.shape != label_B.shape or not ((weight_B > 0) & np.isfinite(weight_B)).all()
    ):
        raise DataError(
            f"weights have shape {weight_B.shape}, labels {label_B.shape}, or one is not positive",
            remedy="pass the weights of the same windows, from the split",
        )
    if not np.isfinite(probability_B).all():
        bad = int((~np.isfinite(probability_B)).sum())
        raise DataError(
            f"{bad} of {len(probability_B)} probabilities are not finite",
            remedy="check the features for NaN or infinity; otherwise the network is broken",
        )
    if ((probability_B < 0) | (probability_B > 1)).any():
        raise DataError("a probability is outside [0, 1]", remedy="apply softmax to the logits")
    present = np.unique(label_B).tolist()
    if not set(present) <= {0, 1}:
        raise DataError(
            f"labels are {present}, expected 0 and 1",
            remedy="exclude rows whose horizon was not fully observed (label -1)",
        )
    if len(present) < 2:
        raise DataError(
            f"labels contain {'one class only, ' + str(present[0]) if present else 'nothing'}: "
            "AUC is undefined",
            remedy="use more windows, or a horizon and cost under which both classes occur",
        )
    given = {"sample_weight": weight_B}
    precision = average_precision(label_B, probability_B, weight_B)
    base_rate = float(np.average(label_B, weights=weight_B))
    return {
        **_decisions(label_B == 1, decide(probability_B, threshold), weight_B),
        "auc": float(sk.roc_auc_score(label_B, probability_B, **given)),
        "average_precision": precision,
        "average_precision_lift": precision / base_rate,
        "log_loss": float(sk.log_loss(label_B, probability_B, **given)),
        "brier": float(np.average((probability_B - label_B) ** 2, weights=weight_B)),
        "calibration_error": calibration_error(label_B, probability_B, weight_B),
        "base_rate": base_rate,
        "predicted_rate": float(np.average(probability_B, weights=weight_B)),
    }


def _decisions(
    true_B: np.ndarray, decided_B: np.ndarray, weight_B: np.ndarray | None
) -> dict[str, float]:
    """Metrics of the decisions; both classes are among the labels."""

    def total(chosen_B: np.ndarray) -> float:
        return float(chosen_B.sum() if weight_B is None else weight_B[chosen_B].sum())

    correct, false = total(decided_B & true_B), total(decided_B & ~true_B)
    missed, rejected = total(~decided_B & true_B), total(~decided_B & ~true_B)
    # added in this order, an empty cell leaves no rounding error in a difference
    predicted, positives, windows = correct + false, correct + missed, correct + false + missed
    windows += rejected
    recall = correct / positives
    return {
        "accuracy": (correct + rejected) / windows,
        "balanced_accuracy": 0.5 * (recall + rejected / (false + rejected)),
        "mcc": float(
            matthews(np.float64(correct), np.float64(predicted), np.float64(positives), windows)
        ),
        "precision": correct / predicted if predicted else 0.0,
        "recall": recall,
    }


def average_precision(
    label_B: np.ndarray, probability_B: np.ndarray, weight_B: np.ndarray | None = None
) -> float:
    """Mean precision at the windows of class 1, equal probabilities together, as in scikit-learn.

    With weights, windows of class 0 that were not taken count too: `strata.unseen`.
    """
    if weight_B is None:
        return float(sk.average_precision_score(label_B, probability_B))
    order_B = np.argsort(-probability_B, kind="stable")
    ties_V = np.flatnonzero(np.r_[True, np.diff(probability_B[order_B]) != 0])
    positive_V, all_V = (
        np.add.reduceat(values_B[order_B], ties_V) for values_B in (weight_B * label_B, weight_B)
    )
    above_V, of_V = np.cumsum(positive_V), np.cumsum(all_V)
    precision_V = above_V / (of_V + unseen(label_B, weight_B))
    return float(positive_V @ precision_V / above_V[-1])


def calibration_error(
    label_B: np.ndarray, probability_B: np.ndarray, weight_B: np.ndarray | None = None
) -> float:
    """Mean |observed rate - predicted rate| over equal-width bins, weighted by their counts."""
    bin_B, gap_B = calibration_bin(probability_B), label_B - probability_B
    if weight_B is not None:
        gap_B = gap_B * weight_B
    gap_by_bin = np.bincount(bin_B, weights=gap_B, minlength=CALIBRATION_BINS)
    windows = len(label_B) if weight_B is None else weight_B.sum()
    return float(np.abs(gap_by_bin).sum() / windows)


def calibration_bin(probability_B: np.ndarray) -> np.ndarray:
    """Index of each probability's bin, int64, 0 .. CALIBRATION_BINS - 1."""
    return np.minimum((probability_B * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
