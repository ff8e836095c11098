"""Precision regression: how an engine's arithmetic changes the predictions on the same windows.

Shapes: N test windows.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.benchmark.slices import quantile
from model_code.training import metrics
from model_code.training.threshold import DEFAULT_THRESHOLD, decide

LATER = (
    "average_precision", "average_precision_lift", "balanced_accuracy", "mcc", "precision", "recall"
)  # fmt: skip


class Regression(BaseModel):
    """One engine's predictions compared with the labels and with FP32.

    None means that a metric cannot be computed because a prediction is not finite; no goal passes
    on it. Shares, means and quantiles are weighted, counts and the largest difference are not.

    Attributes:
        accuracy: of two classes at the decision threshold, like the next four.
        balanced_accuracy: mean of both classes' recalls.
        mcc: Matthews correlation.
        precision: share of class 1 among the windows predicted as class 1; 0 if there are none.
        recall: share of class 1 that is predicted as class 1.
        auc: area under the ROC curve.
        average_precision: area under the precision-recall curve.
        average_precision_lift: average precision over the base rate; 1 is guessing.
        base_rate: share of class 1; None in a run of an earlier version.
        log_loss: natural logarithm, per window.
        calibration_error: expected, 15 bins: see `metrics.classification`.
        flips: windows whose decision differs from FP32's.
        flip_fraction: flips over all windows.
        max_abs_dp: largest |probability difference| to FP32.
        p99_abs_dp: 99th percentile of it.
        non_finite: windows with a NaN or infinite prediction.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    accuracy: float | None
    auc: float | None
    log_loss: float | None
    calibration_error: float | None
    flips: int
    flip_fraction: float
    max_abs_dp: float | None
    p99_abs_dp: float | None
    non_finite: int
    average_precision: float | None = None
    average_precision_lift: float | None = None
    balanced_accuracy: float | None = None
    mcc: float | None = None
    precision: float | None = None
    recall: float | None = None
    base_rate: float | None = None


def compare(
    label_N: NDArray[np.integer],
    probability_N: NDArray[np.float64],
    reference_N: NDArray[np.float64],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    reference_threshold: float | None = None,
    weight_N: NDArray[np.float64] | None = None,
) -> Regression:
    """Compare one engine's probabilities with the labels and with FP32.

    Args:
        label_N: 0 or 1.
        probability_N: of class 1, by the engine under test; may contain NaN.
        reference_N: of class 1, by FP32.
        threshold: probability from which the engine's window counts as class 1.
        reference_threshold: the same for FP32; None: the engine's.
        weight_N: how many of the day's windows each stands for; None: one each.

    Raises:
        DataError: labels other than 0 and 1, or of one class only.
    """
    finite_N = np.isfinite(probability_N)
    non_finite = int((~finite_N).sum())
    # a non-finite prediction is not a decision: it counts as a flip
    other = threshold if reference_threshold is None else reference_threshold
    same_N = finite_N & (decide(probability_N, threshold) == decide(reference_N, other))
    difference_N = np.where(finite_N, np.abs(probability_N - reference_N), np.nan)
    quality = (
        {} if non_finite else metrics.classification(label_N, probability_N, threshold, weight_N)
    )
    return Regression(
        accuracy=number(quality.get("accuracy")),
        auc=number(quality.get("auc")),
        log_loss=number(quality.get("log_loss")),
        calibration_error=number(quality.get("calibration_error")),
        flips=int((~same_N).sum()),
        flip_fraction=float(np.average(~same_N, weights=weight_N)),
        max_abs_dp=number(difference_N.max()),
        p99_abs_dp=number(quantile(difference_N, [0.99], weight_N)[0]),
        non_finite=non_finite,
        **{name: number(quality.get(name)) for name in LATER},
        base_rate=float(np.average(label_N, weights=weight_N)),
    )


def number(value: float | None) -> float | None:
    """A finite Python float, or None."""
    return float(value) if value is not None and np.isfinite(value) else None
