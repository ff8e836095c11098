"""Which windows are explained, and against which background.

Shapes: N windows to choose from, B chosen, K background windows of each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_code.features.windows import spread

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Windows drawn from strata, an instrument and a label each.

    Attributes:
        place_B: among the windows to choose from, rising within a stratum.
        weight_B: share of all windows that each stands for; the sum is 1.
        half_B: bool, every second window of each stratum.
    """

    place_B: Places
    weight_B: NDArray[np.float64]
    half_B: NDArray[np.bool_]


def stratified(
    symbol_N: NDArray[np.integer],
    label_N: NDArray[np.integer],
    count: int,
    weight_N: NDArray[np.float64] | None = None,
) -> Sample:
    """About `count` windows: as many of each instrument and label, evenly spaced in each stratum.

    Rare opportunities are drawn as often as the rest. The weights undo that. A stratum has at least
    one window, so there may be more than `count` if there are more strata than that.

    Args:
        symbol_N: instrument.
        label_N: 0 or 1.
        count: of windows.
        weight_N: how many windows each stands for, equal within a label (`features.strata`); None:
            one each.
    """
    share_N = np.ones(len(label_N)) if weight_N is None else weight_N
    key_N = 2 * symbol_N.astype(np.int64) + label_N
    strata = np.unique(key_N)
    each = max(1, count // len(strata))
    places, weights, halves = [], [], []
    for stratum in strata:
        own = np.flatnonzero(key_N == stratum)
        chosen = spread(own, each)
        places.append(chosen)
        weights.append(np.full(len(chosen), share_N[own].sum() / share_N.sum() / len(chosen)))
        halves.append(np.arange(len(chosen)) % 2 == 0)
    return Sample(np.concatenate(places), np.concatenate(weights), np.concatenate(halves))


def backgrounds(
    symbol_B: NDArray[np.integer], symbol_N: NDArray[np.integer], count: int
) -> NDArray[np.int64]:
    """Places (B, K) among N windows, evenly spaced over those of the window's own instrument.

    An instrument without windows among the N takes those of all. Windows repeat if there are fewer
    than K.
    """
    chosen = {}
    for symbol in np.unique(symbol_B):
        own = np.flatnonzero(symbol_N == symbol)
        known = own if len(own) else np.arange(len(symbol_N))
        chosen[int(symbol)] = np.resize(spread(known, count), count)
    return np.stack([chosen[int(symbol)] for symbol in symbol_B])
