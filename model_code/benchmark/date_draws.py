"""Resampled ranking figures over several dates: dates, then blocks of windows within each.

The dates are drawn with replacement, then circular blocks of consecutive windows within each drawn
date (Politis and Romano 1992; `blocks`), so that dependence within a day, across instruments and
between the windows of a date all widen the intervals. With one date only blocks are drawn.

Shapes: N windows of all dates, S resamples, K blocks of a date.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from model_code.compiled import compiled

Floats = NDArray[np.float64]


def resampled(
    label_N: NDArray[np.int8],
    probability_N: Mapping[str, Floats],
    dates: list[NDArray[np.int64]],
    lengths: tuple[int, ...],
    *,
    resamples: int,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """AUC and average precision (2, S) of every rival in every resample, the draws shared.

    Args:
        label_N: 0 or 1.
        probability_N: of class 1, by rival.
        dates: indices of each date's windows, in time order.
        lengths: windows of a block, by date.
        resamples: S.
        seed: of the draws.
    """
    ranked = {}
    for name, values_N in probability_N.items():
        rank_N = np.argsort(-values_N, kind="stable")  # the largest first
        sorted_N = values_N[rank_N]
        last_N = np.r_[sorted_N[1:] != sorted_N[:-1], True]  # of its equal probabilities
        ranked[name] = (rank_N.astype(np.int32), label_N[rank_N] == 1, last_N)
    found = {name: np.empty((2, resamples)) for name in ranked}
    rng = np.random.default_rng(seed)
    for draw in range(resamples):
        count_N = _draw(rng, dates, lengths, len(label_N))
        for name, (order_N, positive_N, end_N) in ranked.items():
            found[name][:, draw] = _ranks(count_N, order_N, positive_N, end_N)
    return found


def _draw(
    rng: np.random.Generator,
    dates: list[NDArray[np.int64]],
    lengths: tuple[int, ...],
    windows: int,
) -> NDArray[np.int32]:
    """How often each window is drawn, (N,)."""
    count_N = np.zeros(windows, np.int32)
    drawn = rng.integers(0, len(dates), len(dates)) if len(dates) > 1 else [0]
    for date in drawn:
        part, length = dates[date], lengths[date]
        size = len(part)
        start_K = rng.integers(0, size, -(-size // length))
        long_K = np.full(len(start_K), length)
        long_K[-1] = size - length * (len(start_K) - 1)
        # begins and ends of blocks on a line of twice the size; the second half wraps around
        change = np.bincount(start_K, minlength=2 * size + 1).astype(np.int64)
        change -= np.bincount(start_K + long_K, minlength=2 * size + 1)
        covered = np.cumsum(change[:-1])
        count_N[part] += (covered[:size] + covered[size:]).astype(np.int32)
    return count_N


@compiled
def _ranks(count_N, rank_N, positive_N, last_N):  # type: ignore[no-untyped-def]
    """AUC (ties count half) and average precision of one resample; NaN if a class is missing."""
    positives = negatives = tied_positives = tied_negatives = 0
    losses = precisions = 0.0
    for i in range(rank_N.shape[0]):
        count = count_N[rank_N[i]]
        if positive_N[i]:
            tied_positives += count
        else:
            tied_negatives += count
        if last_N[i] and tied_positives + tied_negatives > 0:
            losses += tied_positives * (negatives + 0.5 * tied_negatives)
            positives += tied_positives
            negatives += tied_negatives
            precisions += tied_positives * (positives / (positives + negatives))
            tied_positives = tied_negatives = 0
    if positives == 0 or negatives == 0:
        return np.nan, np.nan
    return 1.0 - losses / (float(positives) * negatives), precisions / positives
