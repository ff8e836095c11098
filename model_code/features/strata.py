"""Stratified thinning: more windows of a rare class than an even stride keeps, with weights.

An even stride keeps each class's share, and so few windows of a rare class. Here each class is a
stratum with an even stride of its own. A window's weight is the inverse of the share that is taken
of its class: how many windows it stands for. Weighted sums then estimate the sums over all windows
(Horvitz and Thompson 1952, Journal of the American Statistical Association 47:663). A figure is
weighted sums over weighted sums, for example the mean as sum(w x) / sum(w) (Hájek 1971, in Godambe
and Sprott, 'Foundations of Statistical Inference').

Shapes: B windows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FEW = 2000  # windows of the rarer class; an even stride that leaves as many is kept
FEW_SHARE = 1 / 16  # of the windows taken, where that is less
LEAST = 400  # windows; of fewer no sample has the 200 of each class that the gate asks for

Ends = npt.NDArray[np.int64]
Labels = npt.NDArray[np.number]
Weights = npt.NDArray[np.float64]


def stride(count: int, limit: int) -> Ends:
    """Places of at most `limit` of `count` windows, at an even stride."""
    if count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).round().astype(np.int64)


def strided(ends_B: Ends, limit: int) -> Ends:
    """At most `limit` of the ends, at an even stride."""
    return ends_B[stride(len(ends_B), limit)]


def shares(count_2: Sequence[int], left: int, limit: int) -> tuple[int, int] | None:
    """How many windows to take of class 0 and of class 1; None: an even stride leaves enough.

    Args:
        count_2: windows of each class.
        left: windows of the rarer class that an even stride over all leaves.
        limit: at least 1.
    """
    rare = int(count_2[1] < count_2[0])
    if limit < LEAST or left >= min(FEW, int(FEW_SHARE * limit), count_2[rare]):
        return None
    few = min(count_2[rare], limit // 2)
    many = min(count_2[1 - rare], limit - few)
    return (many, few) if rare else (few, many)


def thin(ends_B: Ends, label_B: Labels, limit: int) -> tuple[Ends, Weights | None]:
    """At most `limit` of the windows: at an even stride, or by class if that leaves too few.

    Too few are fewer than 2,000 of the rarer class, or than 1/16 of `limit` where that is less.
    Then all windows of the rarer class are taken, up to half of `limit`, and the rest of the other.
    A limit below 400 keeps the even stride.

    Args:
        ends_B: rows on which the windows end, ascending.
        label_B: 0 or 1.
        limit: at least 1.

    Returns:
        The chosen ends, ascending, and their weights, at least 1; None: all weigh the same.
    """
    places = stride(len(ends_B), limit)
    by_class = [np.flatnonzero(label_B == value) for value in (0, 1)]
    left = min(int((label_B[places] == value).sum()) for value in (0, 1))
    share_2 = shares([len(own) for own in by_class], left, limit)
    if share_2 is None:
        return ends_B[places], None
    weight_B = np.zeros(len(ends_B))
    for own, share in zip(by_class, share_2, strict=True):
        weight_B[strided(own, share)] = len(own) / share
    chosen = np.flatnonzero(weight_B)
    return ends_B[chosen], weight_B[chosen]


def in_words(label_B: Labels, weight_B: Weights | None) -> str:
    """How many windows of each class were taken, of how many; empty if all weigh the same."""
    if weight_B is None:
        return ""
    positive, negative = (
        f"{int(own.sum()):,} of {round(float(weight_B[own].sum())):,}"
        for own in (label_B == 1, label_B == 0)
    )
    return f"{positive} with an opportunity, {negative} without, weighted"


def unseen(label_B: Labels, weight_B: Weights | None) -> float:
    """Windows of class 0 that rank above a window without having been seen, on average.

    Of the w that a window of class 0 stands for, half of the other w - 1 rank above it, half below.
    Precision near the largest probabilities needs them: without them it is 1 until the first window
    of class 0 that was taken, and average precision far too large and too variable.
    """
    return 0.0 if weight_B is None else 0.5 * float(weight_B[label_B == 0].mean() - 1.0)


def moved(weight_B: Weights | None, label_B: Labels, other_B: Labels) -> Weights | None:
    """The weights after labels have changed places: each window has that of its new class.

    Args:
        weight_B: equal within a class, as `thin` returns them.
        label_B: before.
        other_B: after; both classes occur in both.
    """
    if weight_B is None:
        return None
    by_class = [weight_B[label_B == value][0] for value in (0, 1)]
    weights: Weights = np.where(other_B == 1, by_class[1], by_class[0])
    return weights
