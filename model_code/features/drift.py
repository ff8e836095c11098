"""Drift of each feature between two sets of rows: population stability index (PSI).

PSI = sum over bins of (q - p) ln(q / p), with the deciles of the reference as bins. By convention
below 0.1 is no shift, 0.1 to 0.25 a moderate shift, above 0.25 a large shift (Siddiqi 2006, 'Credit
Risk Scorecards').

Shapes: N and M rows, F features.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 10
MODERATE, LARGE = 0.1, 0.25


def drift(
    reference_NF: NDArray[np.floating],
    current_MF: NDArray[np.floating],
    names: Sequence[str],
    weight_M: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """PSI of each named feature; 0 where both are constant and equal.

    Args:
        reference_NF: the training rows.
        current_MF: the newest day's rows.
        names: of the F features.
        weight_M: how many rows each of the newest day's stands for; None: one each.
    """
    scaled_M = None if weight_M is None else weight_M / weight_M.mean()
    return {
        name: _psi(reference_NF[:, index], current_MF[:, index], scaled_M)
        for index, name in enumerate(names)
    }


def _psi(
    reference_N: NDArray[np.floating],
    current_M: NDArray[np.floating],
    weight_M: NDArray[np.float64] | None,
) -> float:
    cuts = np.unique(np.quantile(reference_N, np.linspace(0, 1, BINS + 1)[1:-1]))
    shares = [
        # half a row is added to every bin, so that an empty bin does not make the index infinite
        (np.bincount(np.digitize(values, cuts, right=True), weights, len(cuts) + 1) + 0.5)
        / (len(values) + 0.5 * (len(cuts) + 1))
        for values, weights in ((reference_N, None), (current_M, weight_M))
    ]
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))
