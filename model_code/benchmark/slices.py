"""Market conditions in which predictions differ: slices of the test windows, worst windows.

Shapes: N test windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_auc_score

from model_code.training.threshold import DEFAULT_THRESHOLD, decide

DAY_NS = 86_400_000_000_000
HOUR_NS = 3_600_000_000_000
ONE_TICK = 1.5  # times the instrument's narrowest spread; in bps a tick varies with the mid
QUARTILES = ("1st quartile", "2nd quartile", "3rd quartile", "4th quartile")
JUDGED_WINDOWS = 100  # a smaller slice is shown, but no goal uses it

Floats = NDArray[np.float64]
Thresholds = tuple[float, float]  # of the engine's decisions, of FP32's
BOTH_DEFAULT = (DEFAULT_THRESHOLD, DEFAULT_THRESHOLD)


@dataclass(frozen=True)
class WindowContext:
    """Market conditions at the end of each test window.

    Attributes:
        timestamp_ns_N: int64, ns UTC.
        symbol_N: instrument, strings.
        spread_N: any unit that grows with the spread; basis points of the mid in a benchmark.
        volatility_N: any unit that grows with the volatility.
        weight_N: how many of the day's windows each stands for (`features.strata`), float64; None:
            all weigh the same.
    """

    timestamp_ns_N: NDArray[np.int64]
    symbol_N: NDArray[np.str_]
    spread_N: NDArray[np.floating]
    volatility_N: NDArray[np.floating]
    weight_N: Floats | None = None

    def days(self) -> NDArray[np.int64]:
        """Days since the epoch, UTC."""
        return self.timestamp_ns_N // DAY_NS

    def sessions(self) -> NDArray[np.int64]:
        """Number of the window's session, an instrument's UTC day; from 0."""
        symbol_N = np.unique(self.symbol_N, return_inverse=True)[1]
        day_N = np.unique(self.days(), return_inverse=True)[1]
        return np.unique(symbol_N * (day_N.max() + 1) + day_N, return_inverse=True)[1]

    def time_order(self) -> NDArray[np.int64]:
        """Indices that sort windows by time, instruments together."""
        return np.argsort(self.timestamp_ns_N, kind="stable")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class SliceRow(_Row):
    """An engine's predictions in one slice, compared with FP32's.

    Attributes:
        dimension: "volatility", "spread", "hour" or "symbol".
        name: of the slice.
        windows: number of windows, without weights, like `flips`; shares are weighted.
        accuracy: at the decision threshold; a non-finite prediction is wrong.
        accuracy_change: accuracy minus FP32's, on the same windows.
        auc: None with one class only, or if a prediction is not finite.
        flips: windows whose decision differs from FP32's.
        flip_fraction: flips over the windows of the slice.
        max_abs_dp: largest |probability difference| to FP32; None if one is not finite.
    """

    dimension: str
    name: str
    windows: int
    accuracy: float
    accuracy_change: float
    auc: float | None
    flips: int
    flip_fraction: float
    max_abs_dp: float | None


class WorstRow(_Row):
    """One of the windows on which an engine and FP32 differ most.

    Attributes:
        timestamp_ns: ns UTC of the window's end.
        symbol: instrument.
        label: 0 or 1.
        probability: the engine's; None if it is not finite.
        reference: FP32's.
        abs_dp: |difference|; None if the engine's is not finite.
        flip: whether the decision differs from FP32's.
    """

    timestamp_ns: int
    symbol: str
    label: int
    probability: float | None
    reference: float
    abs_dp: float | None
    flip: bool


def quantile(
    value_N: NDArray[np.floating], shares: list[float], weight_N: Floats | None
) -> NDArray[np.floating]:
    """Quantiles of windows with these weights; without weights interpolated, as numpy does."""
    found: NDArray[np.floating]
    if weight_N is None:
        found = np.quantile(value_N, shares)
    else:
        found = np.quantile(value_N, shares, weights=weight_N, method="inverted_cdf")
    return found


def sliced(
    context: WindowContext,
    label_N: NDArray[np.integer],
    probability_N: Floats,
    reference_N: Floats,
    thresholds: Thresholds = BOTH_DEFAULT,
) -> tuple[SliceRow, ...]:
    """Every slice: quartiles of volatility and of spread, hours UTC, instruments.

    Quartiles are computed per instrument, so that they do not separate instruments. If most spreads
    are one tick wide, the spread has two slices, "one tick" and "wider".
    """
    finite_N = np.isfinite(probability_N)
    decided_N, reference_decided_N = (
        decide(values, threshold)
        for values, threshold in zip((probability_N, reference_N), thresholds, strict=True)
    )
    right_N = finite_N & (decided_N == (label_N == 1))
    reference_right_N = reference_decided_N == (label_N == 1)
    flip_N = ~finite_N | (decided_N != reference_decided_N)
    rows = []
    for dimension, name, inside in _slices(context):
        weight_I = None if context.weight_N is None else context.weight_N[inside]
        accuracy, reference_accuracy, flip_fraction = (
            float(np.average(values_N[inside], weights=weight_I))
            for values_N in (right_N, reference_right_N, flip_N)
        )
        whole = bool(finite_N[inside].all())
        two = len(np.unique(label_N[inside])) == 2
        gap = np.abs(probability_N[inside] - reference_N[inside])
        rows.append(
            SliceRow(
                dimension=dimension,
                name=name,
                windows=int(inside.sum()),
                accuracy=accuracy,
                accuracy_change=accuracy - reference_accuracy,
                auc=float(
                    roc_auc_score(label_N[inside], probability_N[inside], sample_weight=weight_I)
                )
                if whole and two
                else None,
                flips=int(flip_N[inside].sum()),
                flip_fraction=flip_fraction,
                max_abs_dp=float(gap.max()) if whole else None,
            )
        )
    return tuple(rows)


def worst_flip_fraction(rows: Sequence[SliceRow]) -> float | None:
    """The largest share of flips in a slice of at least 100 windows; None if there is none."""
    return max((row.flip_fraction for row in rows if row.windows >= JUDGED_WINDOWS), default=None)


def worst(
    context: WindowContext,
    label_N: NDArray[np.integer],
    probability_N: Floats,
    reference_N: Floats,
    count: int = 20,
    thresholds: Thresholds = BOTH_DEFAULT,
) -> tuple[WorstRow, ...]:
    """The windows on which the engine differs most from FP32, NaN first, then by difference."""
    gap_N = np.abs(probability_N - reference_N)
    finite_N = np.isfinite(probability_N)
    flip_N = ~finite_N | (
        decide(probability_N, thresholds[0]) != decide(reference_N, thresholds[1])
    )
    ranked = np.argsort(-np.where(finite_N, gap_N, np.inf), kind="stable")[:count]
    return tuple(
        WorstRow(
            timestamp_ns=int(context.timestamp_ns_N[i]),
            symbol=str(context.symbol_N[i]),
            label=int(label_N[i]),
            probability=float(probability_N[i]) if finite_N[i] else None,
            reference=float(reference_N[i]),
            abs_dp=float(gap_N[i]) if finite_N[i] else None,
            flip=bool(flip_N[i]),
        )
        for i in ranked
    )


def _slices(context: WindowContext) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    quartile_N = quartile(context.volatility_N, context)
    for number in range(4):
        yield from _filled("volatility", QUARTILES[number], quartile_N == number)
    narrow_N = _one_tick(context)
    if np.average(narrow_N, weights=context.weight_N) >= 0.5:
        yield from _filled("spread", "one tick", narrow_N)
        yield from _filled("spread", "wider", ~narrow_N)
    else:
        quartile_N = quartile(context.spread_N, context)
        for number in range(4):
            yield from _filled("spread", QUARTILES[number], quartile_N == number)
    hour_N = context.timestamp_ns_N % DAY_NS // HOUR_NS
    for hour in np.unique(hour_N):
        yield from _filled("hour", f"{hour:02d} UTC", hour_N == hour)
    for symbol in np.unique(context.symbol_N):
        yield from _filled("symbol", str(symbol), context.symbol_N == symbol)


def _filled(
    dimension: str, name: str, inside: NDArray[np.bool_]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    if inside.any():
        yield dimension, name, inside


def quartile(value_N: NDArray[np.floating], context: WindowContext) -> NDArray[np.int64]:
    """0 to 3 within the instrument; equal values share a quartile."""
    found = np.empty(len(value_N), np.int64)
    for symbol in np.unique(context.symbol_N):
        mine = context.symbol_N == symbol
        weight_N = None if context.weight_N is None else context.weight_N[mine]
        edges = quantile(value_N[mine], [0.25, 0.5, 0.75], weight_N)
        found[mine] = np.searchsorted(edges, value_N[mine], side="left")
    return found


def _one_tick(context: WindowContext) -> NDArray[np.bool_]:
    found = np.empty(len(context.spread_N), np.bool_)
    for symbol in np.unique(context.symbol_N):
        mine = context.symbol_N == symbol
        found[mine] = context.spread_N[mine] <= ONE_TICK * context.spread_N[mine].min()
    return found
