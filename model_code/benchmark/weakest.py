"""Where a model ranks worst: instruments by hour and by volatility.

Shapes: N test windows.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_auc_score

from model_code.benchmark.slices import (
    DAY_NS,
    HOUR_NS,
    JUDGED_WINDOWS,
    QUARTILES,
    WindowContext,
    quartile,
)

EVENTS = 10  # of each class; with fewer the AUC says nothing
Floats = NDArray[np.float64]


class WeakRow(BaseModel):
    """A model's ranks in one slice of an instrument.

    Attributes:
        symbol: instrument.
        name: of the slice.
        windows: number of windows.
        base_rate: share of class 1, weighted.
        auc: of the model.
        boosting_auc: gradient boosting's; None if its predictions are unknown.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    symbol: str
    name: str
    windows: int
    base_rate: float
    auc: float
    boosting_auc: float | None


def weakest(
    context: WindowContext,
    label_N: NDArray[np.integer],
    probability_N: Floats,
    boosting_N: Floats | None = None,
    count: int = 8,
) -> tuple[tuple[WeakRow, ...], int]:
    """The slices with the lowest AUC, the lowest first, and how many slices were compared.

    A slice is an hour UTC or a quartile of volatility of one instrument. It counts with at least
    100 windows and 10 of each class.

    Args:
        context: of the windows.
        label_N: 0 or 1.
        probability_N: of class 1, finite.
        boosting_N: gradient boosting's.
        count: at most this many rows.
    """
    rows = []
    for symbol, name, inside in _slices(context):
        label = label_N[inside]
        positives = int(label.sum())
        if len(label) < JUDGED_WINDOWS or min(positives, len(label) - positives) < EVENTS:
            continue
        weight = None if context.weight_N is None else context.weight_N[inside]
        other = None if boosting_N is None else float(roc_auc_score(label, boosting_N[inside]))
        rows.append(
            WeakRow(
                symbol=symbol,
                name=name,
                windows=len(label),
                base_rate=float(np.average(label, weights=weight)),
                auc=float(roc_auc_score(label, probability_N[inside])),
                boosting_auc=other,
            )
        )
    return tuple(sorted(rows, key=lambda row: row.auc)[:count]), len(rows)


def _slices(context: WindowContext) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    quartile_N = quartile(context.volatility_N, context)
    hour_N = context.timestamp_ns_N % DAY_NS // HOUR_NS
    for symbol in np.unique(context.symbol_N):
        own_N = context.symbol_N == symbol
        for hour in np.unique(hour_N[own_N]):
            yield str(symbol), f"{hour:02d} UTC", np.flatnonzero(own_N & (hour_N == hour))
        for number, name in enumerate(QUARTILES):
            inside = np.flatnonzero(own_N & (quartile_N == number))
            yield str(symbol), f"volatility, {name}", inside
