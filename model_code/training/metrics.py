"""Classification metrics of two-class predictions. B windows."""

import numpy as np
from sklearn import metrics as sk

from model_code.errors import DataError
from model_code.training.threshold import DEFAULT_THRESHOLD, decide, matthews

CALIBRATION_BINS = 15


def classification(
    label_B: np.ndarray, probability_B: np.ndarray, threshold: float = DEFAULT_THRESHOLD
) -> dict[str, float]:
    """Compare probabilities of class 1 with labels.

    Args:
        label_B: 0 or 1.
        probability_B: probability of class 1, in [0, 1].
        threshold: probability from which a window counts as class 1.

    Returns:
        At the threshold: accuracy, balanced_accuracy (mean of both classes' recalls), mcc (Matthews
        correlation), precision (0 if no window is predicted as class 1), recall. Of the ranks: auc
        (ROC), average_precision, average_precision_lift (over base_rate; 1 is guessing). Of the
        probabilities: log_loss (nats), brier, calibration_error (expected, 15 equal-width bins:
        Guo et al. 2017, arXiv:1706.04599), predicted_rate (their mean). base_rate: labels' mean.

    Raises:
        DataError: shapes differ, a label is not 0 or 1, only one class is present, or a
            probability is not finite or outside [0, 1].
    """
    label_B, probability_B = np.asarray(label_B), np.asarray(probability_B, dtype=np.float64)
    if label_B.shape != probability_B.shape or label_B.ndim != 1:
        raise DataError(
            f"labels have shape {label_B.shape}, probabilities {probability_B.shape}",
            remedy="pass one probability per label, both one-dimensional",
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
    average_precision = float(sk.average_precision_score(label_B, probability_B))
    return {
        **_decisions(label_B, decide(probability_B, threshold)),
        "auc": float(sk.roc_auc_score(label_B, probability_B)),
        "average_precision": average_precision,
        "average_precision_lift": average_precision / float(label_B.mean()),
        "log_loss": float(sk.log_loss(label_B, probability_B)),
        "brier": float(np.mean((probability_B - label_B) ** 2)),
        "calibration_error": calibration_error(label_B, probability_B),
        "base_rate": float(label_B.mean()),
        "predicted_rate": float(probability_B.mean()),
    }


def _decisions(label_B: np.ndarray, decided_B: np.ndarray) -> dict[str, float]:
    """Metrics of the decisions; both classes are among the labels."""
    windows, positives = len(label_B), float(label_B.sum())
    predicted, correct = float(decided_B.sum()), float((decided_B & (label_B == 1)).sum())
    rejected = windows - positives - (predicted - correct)  # of class 0, correctly
    recall = correct / positives
    return {
        "accuracy": (correct + rejected) / windows,
        "balanced_accuracy": 0.5 * (recall + rejected / (windows - positives)),
        "mcc": float(
            matthews(np.float64(correct), np.float64(predicted), np.float64(positives), windows)
        ),
        "precision": correct / predicted if predicted else 0.0,
        "recall": recall,
    }


def calibration_error(label_B: np.ndarray, probability_B: np.ndarray) -> float:
    """Mean |observed rate - predicted rate| over equal-width bins, weighted by their counts."""
    bin_B = calibration_bin(probability_B)
    gap_by_bin = np.bincount(bin_B, weights=label_B - probability_B, minlength=CALIBRATION_BINS)
    return float(np.abs(gap_by_bin).sum() / len(label_B))


def calibration_bin(probability_B: np.ndarray) -> np.ndarray:
    """Index of each probability's bin, int64, 0 .. CALIBRATION_BINS - 1."""
    return np.minimum((probability_B * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
