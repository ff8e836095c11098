"""Precision regression: how an engine's arithmetic changes the predictions on the same windows.

Shapes: N test windows.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.training import metrics

THRESHOLD = 0.5


class Regression(BaseModel):
    """One engine's predictions compared with the labels and with FP32.

    None means that a metric cannot be computed because a prediction is not finite; no goal passes
    on it.

    Attributes:
        accuracy: of two classes at probability 0.5.
        auc: area under the ROC curve.
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


def compare(
    label_N: NDArray[np.integer],
    probability_N: NDArray[np.float64],
    reference_N: NDArray[np.float64],
) -> Regression:
    """Compare one engine's probabilities with the labels and with FP32.

    Args:
        label_N: 0 or 1.
        probability_N: of class 1, by the engine under test; may contain NaN.
        reference_N: of class 1, by FP32.

    Raises:
        DataError: labels other than 0 and 1, or of one class only.
    """
    finite_N = np.isfinite(probability_N)
    non_finite = int((~finite_N).sum())
    # a non-finite prediction is not a decision: it counts as a flip
    same_N = finite_N & ((probability_N >= THRESHOLD) == (reference_N >= THRESHOLD))
    flips = int((~same_N).sum())
    difference_N = np.where(finite_N, np.abs(probability_N - reference_N), np.nan)
    quality = {} if non_finite else metrics.classification(label_N, probability_N)
    return Regression(
        accuracy=number(quality.get("accuracy")),
        auc=number(quality.get("auc")),
        log_loss=number(quality.get("log_loss")),
        calibration_error=number(quality.get("calibration_error")),
        flips=flips,
        flip_fraction=flips / len(label_N),
        max_abs_dp=number(difference_N.max()),
        p99_abs_dp=number(np.quantile(difference_N, 0.99)),
        non_finite=non_finite,
    )


def number(value: float | None) -> float | None:
    """A finite Python float, or None."""
    return float(value) if value is not None and np.isfinite(value) else None
