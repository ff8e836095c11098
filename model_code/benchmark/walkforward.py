"""Judge rivals on the same windows of several test dates: figures, intervals, differences.

Intervals are of resampled dates and blocks (`date_draws`), the same for all rivals, so that
differences are paired.

Shapes: N windows of all test dates, S resamples, D dates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_auc_score

from model_code.benchmark.blocks import block_length
from model_code.benchmark.date_draws import resampled
from model_code.benchmark.significance import RESAMPLES, Interval, interval, loss_series
from model_code.benchmark.slices import WindowContext
from model_code.training.metrics import classification

CONFIDENCE = 0.95
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """The test windows that all rivals are judged on, date by date, the dates rising.

    Attributes:
        label_N: 0 or 1.
        timestamp_ns_N: int64, ns UTC of the windows' last rows.
        symbol_N: instrument, strings.
        earned_bps_N: best case of acting on the window (`profit`), in basis points after cost.
    """

    label_N: NDArray[np.int8]
    timestamp_ns_N: NDArray[np.int64]
    symbol_N: NDArray[np.str_]
    earned_bps_N: Floats

    @property
    def context(self) -> WindowContext:
        """Time and instrument; spread and volatility are not used here."""
        nothing_N = np.zeros(len(self.label_N))
        return WindowContext(self.timestamp_ns_N, self.symbol_N, nothing_N, nothing_N)

    def dates(self) -> list[NDArray[np.int64]]:
        """Indices of each date's windows, in time order, instruments together."""
        day_N = self.context.days()
        order_N = np.lexsort((self.timestamp_ns_N, day_N))
        cuts = np.flatnonzero(np.diff(day_N[order_N])) + 1
        return np.split(order_N, cuts)


@dataclass(frozen=True)
class Rival:
    """One way to predict, on all windows of the pool.

    Attributes:
        name: unique.
        inputs: the feature set it sees.
        against: name of the tuned boosting on the same inputs.
        probability_N: of class 1.
        decided_N: bool, at the threshold that each date's validation windows chose.
        seconds: of all its fits.
    """

    name: str
    inputs: str
    against: str
    probability_N: Floats
    decided_N: NDArray[np.bool_]
    seconds: float


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RivalRow(_Row):
    """A rival's figures over all windows; None where one cannot be computed.

    Attributes:
        name, inputs, against, seconds: as of `Rival`.
        auc, average_precision, log_loss, brier, calibration_error: as `metrics.classification`.
        precision: share of opportunities among the decisions; None without a decision.
        decided: share of windows decided for.
        profit_bps: mean best case of the decisions; None without a decision.
        auc_interval, average_precision_interval: 95%.
        auc_difference, average_precision_difference: to `against`; None for that one itself.
        auc_difference_interval, average_precision_difference_interval: 95%, paired.
        ahead: instruments on which its AUC is above that of `against`; None for that one itself.
        date_aucs: AUC on each date, as in `Judgement.dates`; None on a date of one class.
    """

    name: str
    inputs: str
    against: str
    seconds: float
    auc: float
    auc_interval: Interval | None
    average_precision: float
    average_precision_interval: Interval | None
    log_loss: float
    brier: float
    calibration_error: float
    precision: float | None
    decided: float
    profit_bps: float | None
    auc_difference: float | None
    auc_difference_interval: Interval | None
    average_precision_difference: float | None
    average_precision_difference_interval: Interval | None
    ahead: int | None
    date_aucs: tuple[float | None, ...] = ()


class Judgement(_Row):
    """Every rival on the same windows.

    Attributes:
        rows: in the order given; the first is the model in question.
        windows: number of them.
        base_rate: share of class 1.
        all_profit_bps: mean best case of acting on every window.
        dates: ISO dates of the windows.
        block_lengths: windows of a block, by date.
        instruments: with windows of both classes.
    """

    rows: tuple[RivalRow, ...]
    windows: int
    base_rate: float
    all_profit_bps: float
    dates: tuple[str, ...]
    block_lengths: tuple[int, ...]
    instruments: tuple[str, ...]

    def row(self, name: str) -> RivalRow:
        """The row of this name.

        Raises:
            KeyError: there is none.
        """
        return {row.name: row for row in self.rows}[name]


def judge(
    pool: Pool, rivals: list[Rival], *, resamples: int = RESAMPLES, seed: int = 0
) -> Judgement:
    """Judge every rival; the first is the model in question.

    Args:
        pool: the windows.
        rivals: at least one; each `against` is among them.
        resamples: S.
        seed: of the draws; the same gives the same intervals.

    Raises:
        DataError: one class only, or a probability is not finite or outside [0, 1].
    """
    by_name = {rival.name: rival for rival in rivals}
    figures = {rival.name: classification(pool.label_N, rival.probability_N) for rival in rivals}
    first = rivals[0]
    series_S = loss_series(pool.label_N, by_name[first.against].probability_N, first.probability_N)
    dates = pool.dates()
    lengths = tuple(_length(pool, part, series_S) for part in dates)
    samples = resampled(
        pool.label_N,
        {name: rival.probability_N for name, rival in by_name.items()},
        dates,
        lengths,
        resamples=resamples,
        seed=seed,
    )
    pieces = len(dates) if len(dates) > 1 else len(pool.label_N) // lengths[0]
    aucs = {name: instrument_aucs(pool, rival.probability_N) for name, rival in by_name.items()}
    day_D = np.unique(pool.context.days())
    return Judgement(
        rows=tuple(_row(pool, rival, figures, samples, aucs, pieces) for rival in rivals),
        windows=len(pool.label_N),
        base_rate=float(pool.label_N.mean()),
        all_profit_bps=float(pool.earned_bps_N.mean()),
        dates=tuple(str(np.datetime64(int(day), "D")) for day in day_D),
        block_lengths=lengths,
        instruments=tuple(aucs[first.name]),
    )


def instrument_aucs(pool: Pool, probability_N: Floats) -> dict[str, float]:
    """AUC of each instrument that has both classes."""
    found = {}
    for symbol in np.unique(pool.symbol_N):
        own_N = pool.symbol_N == symbol
        if len(np.unique(pool.label_N[own_N])) == 2:
            found[str(symbol)] = float(roc_auc_score(pool.label_N[own_N], probability_N[own_N]))
    return found


def date_aucs(pool: Pool, probability_N: Floats) -> tuple[float | None, ...]:
    """AUC of each date, None where it has one class only."""
    return tuple(
        float(roc_auc_score(pool.label_N[part], probability_N[part]))
        if len(np.unique(pool.label_N[part])) == 2
        else None
        for part in pool.dates()
    )


def _length(pool: Pool, part: NDArray[np.int64], series: list[Floats]) -> int:
    one = Pool(
        pool.label_N[part],
        pool.timestamp_ns_N[part],
        pool.symbol_N[part],
        pool.earned_bps_N[part],
    )
    return block_length([values_N[part] for values_N in series], one.context)


def _row(
    pool: Pool,
    rival: Rival,
    figures: Mapping[str, Mapping[str, float]],
    samples: Mapping[str, NDArray[np.float64]],
    aucs: Mapping[str, Mapping[str, float]],
    pieces: int,
) -> RivalRow:
    own, other = figures[rival.name], figures[rival.against]
    itself = rival.name == rival.against
    auc, precision = (_interval(values_S, pieces) for values_S in samples[rival.name])
    gaps = samples[rival.name] - samples[rival.against]
    auc_gap, precision_gap = (_interval(values_S, pieces) for values_S in gaps)
    decided_N = rival.decided_N
    any_decided = bool(decided_N.any())
    mine, theirs = aucs[rival.name], aucs[rival.against]
    return RivalRow(
        name=rival.name,
        inputs=rival.inputs,
        against=rival.against,
        seconds=rival.seconds,
        auc=own["auc"],
        auc_interval=auc,
        average_precision=own["average_precision"],
        average_precision_interval=precision,
        log_loss=own["log_loss"],
        brier=own["brier"],
        calibration_error=own["calibration_error"],
        precision=float(pool.label_N[decided_N].mean()) if any_decided else None,
        decided=float(decided_N.mean()),
        profit_bps=float(pool.earned_bps_N[decided_N].mean()) if any_decided else None,
        auc_difference=None if itself else own["auc"] - other["auc"],
        auc_difference_interval=None if itself else auc_gap,
        average_precision_difference=None
        if itself
        else own["average_precision"] - other["average_precision"],
        average_precision_difference_interval=None if itself else precision_gap,
        ahead=None if itself else sum(mine[symbol] > theirs[symbol] for symbol in mine),
        date_aucs=date_aucs(pool, rival.probability_N),
    )


def _interval(values_S: Floats, pieces: int) -> Interval | None:
    """None too where resamples without one class leave no figure."""
    return interval(values_S, CONFIDENCE, clusters=pieces)
