"""Windows of the last 64 rows, gathered on demand from one (N, F) array; never all at once.

Shapes: N rows, B windows, T steps (64), F features (16).
"""

import math

import numpy as np
import numpy.typing as npt

from model_code.errors import DataError, TicklineError
from model_code.features.column import Column
from model_code.settings import SEQUENCE_LENGTH


def gather(features_NF: Column, ends_B: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """x_BTF: for each end, a copy of rows `end - 63 .. end`, oldest first.

    Raises:
        DataError: an end has fewer than 64 rows before and including it, or is out of range.
    """
    ends_B = np.asarray(ends_B, np.int64)
    bad = (ends_B < SEQUENCE_LENGTH - 1) | (ends_B >= len(features_NF))
    if bad.any():
        raise DataError(
            f"no window of {SEQUENCE_LENGTH} rows ends at row {ends_B[bad][0]} "
            f"of {len(features_NF)}",
            remedy="take ends from valid_ends() of the same table",
        )
    rows_BT = ends_B[:, None] + np.arange(1 - SEQUENCE_LENGTH, 1)
    return np.asarray(features_NF[rows_BT], np.float32)


def valid_ends(
    segment_N: npt.NDArray[np.int32], label_N: npt.NDArray[np.int8]
) -> npt.NDArray[np.int64]:
    """Ends of all windows within one segment and with an observed label, ascending.

    `segment_N` is non-decreasing, so a window with equal segments at both ends is in one segment.
    """
    last = SEQUENCE_LENGTH - 1
    if len(segment_N) <= last:
        return np.empty(0, np.int64)
    whole = segment_N[last:] == segment_N[: len(segment_N) - last]
    return np.flatnonzero(whole & (label_N[last:] >= 0)) + last


def spread(
    ends_N: npt.NDArray[np.int64],
    count: int,
    weight_N: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.int64]:
    """`count` of the ends, evenly spaced over all of them; all if there are fewer.

    With weights the steps are even in them, so that those chosen have the shares of all windows
    (systematic sampling: Madow 1949, Annals of Mathematical Statistics 20:333). An end that fills
    several steps is taken once.
    """
    if weight_N is None:
        places = np.linspace(0, len(ends_N) - 1, min(count, len(ends_N))).astype(np.int64)
    else:
        reach_N = np.cumsum(weight_N)
        step = reach_N[-1] / min(count, len(ends_N))
        places = np.searchsorted(reach_N, step * (np.arange(min(count, len(ends_N))) + 0.5))
    return ends_N[np.unique(places)]


def require_finite(
    x_BTF: npt.NDArray[np.float32], error: type[TicklineError] = DataError, where: str = ""
) -> None:
    """Refuse windows with NaN or infinity.

    A model answers them with a number that looks like any other: maxima, clamps, integers and
    trees all turn NaN into finite values.

    Args:
        x_BTF: windows; not copied if they are contiguous.
        error: class of the error to raise.
        where: where they are from, for the message.

    Raises:
        TicklineError: of class `error`; names the first such value.
    """
    # A sum of squares cannot cancel: it is finite only if every value is. It is one pass without a
    # temporary array. Values above 1e18 may make it infinite, so that the slow test decides.
    if math.isfinite(np.vdot(x_BTF, x_BTF)):
        return
    bad_K = np.flatnonzero(~np.isfinite(x_BTF))
    if not len(bad_K):
        return
    window, step, feature = (int(place) for place in np.unravel_index(bad_K[0], x_BTF.shape))
    raise error(
        f"windows contain NaN or infinity: {len(bad_K)} of {x_BTF.size} values",
        where=", ".join(filter(None, (where, f"window {window}, step {step}, feature {feature}"))),
        remedy="send windows of finite features only; a window without one has no prediction",
    )
