"""The decision threshold: a probability at or above it is a decision for class 1, an opportunity.

0.5 is right only if both errors cost the same and the probabilities are calibrated. With rare
opportunities no probability may reach it. The threshold is therefore the one with the largest
Matthews correlation on the validation windows (Matthews 1975, Biochimica et Biophysica Acta
405:442), which counts all four cells of the confusion matrix and is not inflated by the majority
class (Chicco and Jurman 2020, BMC Genomics 21:6). The test windows take no part in the choice.

Shapes: B windows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD = 0.5  # where none was chosen: results and manifests of earlier versions
TIE = 1e-12  # correlations that differ by less are equal but for rounding


def decide(probability_B: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.bool_]:
    """Decisions for class 1, bool (B,); a probability that is not a number is none."""
    decided_B: NDArray[np.bool_] = np.asarray(probability_B) >= threshold
    return decided_B


def matthews(
    correct: NDArray[np.float64] | np.float64,
    predicted: NDArray[np.float64] | np.float64,
    positives: NDArray[np.float64] | np.float64,
    windows: float,
) -> NDArray[np.float64]:
    """Matthews correlation from counts, arrays of one shape; 0 where a class is never predicted.

    Args:
        correct: windows of class 1 that are predicted as class 1; counts may be sums of weights.
        predicted: windows predicted as class 1.
        positives: windows of class 1.
        windows: number of windows.
    """
    covariance = windows * correct - predicted * positives
    scale = np.sqrt(predicted * (windows - predicted) * positives * (windows - positives))
    found: NDArray[np.float64] = np.divide(
        covariance, scale, out=np.zeros_like(scale, dtype=np.float64), where=scale > 0
    )
    return found


def choose_threshold(
    label_B: NDArray[np.integer[Any]],
    probability_B: NDArray[np.floating[Any]],
    weight_B: NDArray[np.float64] | None = None,
) -> float:
    """The threshold with the largest Matthews correlation.

    Candidates lie halfway between neighbouring distinct probabilities, so that another engine's
    rounding changes no decision; between the two around 0.5 it is 0.5 itself. Of equally good ones
    the nearest to 0.5 is chosen, then the lower. If none is better than chance, it is 0.5.

    Args:
        label_B: 0 or 1, of validation windows.
        probability_B: of class 1, finite, in [0, 1].
        weight_B: how many windows each stands for; None: one each.
    """
    value_V, place_B = np.unique(np.asarray(probability_B, np.float64), return_inverse=True)
    if len(value_V) < 2:
        return DEFAULT_THRESHOLD
    label_B = np.asarray(label_B, np.float64)
    positive_B = label_B if weight_B is None else label_B * weight_B
    count_V, positive_V = np.bincount(place_B, weight_B), np.bincount(place_B, positive_B)
    # at or above the k-th distinct value, k from 1: with k = 0 every window would be class 1
    predicted_V, correct_V = (
        np.cumsum(values_V[::-1])[::-1][1:].astype(np.float64) for values_V in (count_V, positive_V)
    )
    windows = len(label_B) if weight_B is None else weight_B.sum()
    score_V = matthews(correct_V, predicted_V, np.float64(positive_B.sum()), float(windows))
    if score_V.max() <= TIE:
        return DEFAULT_THRESHOLD
    below_V, above_V = value_V[:-1], value_V[1:]
    middle_V = 0.5 * (below_V + above_V)
    middle_V = np.where(middle_V > below_V, middle_V, above_V)  # neighbouring floats
    around_V = (below_V < DEFAULT_THRESHOLD) & (above_V >= DEFAULT_THRESHOLD)
    middle_V = np.where(around_V, DEFAULT_THRESHOLD, middle_V)
    best_V = middle_V[score_V >= score_V.max() - TIE]
    return float(best_V[np.abs(best_V - DEFAULT_THRESHOLD).argmin()])
