"""Resampled quality metrics: a block bootstrap, which preserves dependence in time.

Windows are in time order, all instruments together. Blocks of consecutive windows are drawn
circularly (Politis and Romano 1992). Dependence within a block, in time and across instruments,
is preserved (Gonçalves 2011, Econometric Theory 27:1048). All engines share the same draws, so
differences of two engines' samples are paired.

Windows with weights, of a sample by class (`features.strata`), are drawn the same way. A figure of
a resample is Hájek's ratio of weighted sums, its own sum of weights below: with count c and weight
w of a window, a mean is sum(c w x) / sum(c w). So the share of the classes varies from resample to
resample, as it varies from day to day.

Shapes: N test windows, S resamples, K blocks in a resample, D sessions (instrument and UTC day).
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from model_code.benchmark.slices import WindowContext
from model_code.features.strata import unseen
from model_code.training.metrics import CALIBRATION_BINS, calibration_bin
from model_code.training.threshold import DEFAULT_THRESHOLD, decide, matthews

QUALITY_METRICS = (
    "accuracy", "auc", "log_loss", "calibration_error", "flip_fraction", "average_precision",
    "average_precision_lift", "balanced_accuracy", "mcc", "precision", "recall",
)  # fmt: skip
COLUMNS = 6  # sums that are not of calibration: see `_Engine`
CHUNK_ELEMENTS = 1 << 20  # of a resamples-by-windows matrix: bounds memory, fits the caches
MINIMUM_BLOCKS = 8
CONSTANT = 1e-12  # of the mean: a series that varies less is constant but for rounding

Floats = NDArray[np.float64]


def quality_samples(
    label_N: NDArray[np.integer],
    probability_N: Mapping[str, Floats],
    reference_N: Floats,
    context: WindowContext,
    *,
    length: int,
    resamples: int,
    seed: int,
    thresholds: Mapping[str, float] | None = None,
    reference_threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, dict[str, Floats]]:
    """`QUALITY_METRICS` of every engine in every resample, (S,) each.

    Args:
        label_N: 0 or 1.
        probability_N: of class 1, by engine; an engine with a non-finite value is omitted.
        reference_N: of class 1; flips are counted against it.
        context: gives the windows' order in time, and their weights.
        length: windows in a block.
        resamples: S.
        seed: of the draws.
        thresholds: of the decisions, by engine; an engine that is absent has the reference's.
        reference_threshold: of the reference's decisions.
    """
    order = context.time_order()
    truth_N, reference_N = np.asarray(label_N)[order].astype(np.float64), reference_N[order]
    weight_N = None if context.weight_N is None else context.weight_N[order]
    reference_decided_N = decide(reference_N, reference_threshold)
    own = thresholds or {}
    engines = {
        name: _Engine(
            truth_N,
            values[order],
            reference_decided_N,
            own.get(name, reference_threshold),
            weight_N,
        )
        for name, values in probability_N.items()
        if np.isfinite(values).all()
    }
    parts: dict[str, list[Floats]] = {name: [] for name in engines}
    for count_SN in draws(len(truth_N), length, resamples, seed):
        if weight_N is not None:
            np.multiply(count_SN, weight_N, out=count_SN)
        for name, engine in engines.items():
            parts[name].append(engine.figures(count_SN))
    return {
        name: dict(zip(QUALITY_METRICS, np.concatenate(found, axis=1), strict=True))
        for name, found in parts.items()
    }


class _Engine:
    """Values shared by all resamples, windows in time order."""

    def __init__(
        self,
        label_N: Floats,
        probability_N: Floats,
        reference_decided_N: NDArray[np.bool_],
        threshold: float,
        weight_N: Floats | None,
    ) -> None:
        self.weighted, self.unseen = weight_N is not None, unseen(label_N, weight_N)
        decided_N = decide(probability_N, threshold)
        self.label_N = label_N
        tiny = np.finfo(np.float64).eps  # as in scikit-learn's log_loss
        clipped_N = np.clip(probability_N, tiny, 1.0 - tiny)
        sums = np.zeros((len(label_N), COLUMNS + CALIBRATION_BINS))
        sums[:, 0] = decided_N == (label_N == 1)
        sums[:, 1] = -np.where(label_N == 1, np.log(clipped_N), np.log1p(-clipped_N))
        sums[:, 2] = decided_N != reference_decided_N
        sums[:, 3] = decided_N & (label_N == 1)
        sums[:, 4] = decided_N
        sums[:, 5] = label_N
        bin_N = COLUMNS + calibration_bin(probability_N)
        sums[np.arange(len(label_N)), bin_N] = label_N - probability_N
        self.sums_NX = sums
        self.rank_N = np.argsort(-probability_N, kind="stable")  # the largest first
        ranked_N = probability_N[self.rank_N]
        self.ties = np.flatnonzero(np.r_[True, ranked_N[1:] != ranked_N[:-1]])

    def figures(self, count_SN: Floats) -> Floats:
        """One row per metric of `QUALITY_METRICS`, one column per resample.

        `count_SN` is how often each window is drawn, times its weight if it has one.
        """
        mean_SX = count_SN @ self.sums_NX
        if self.weighted:  # by class, so that a class that was not drawn has a share of exactly 0
            mean_SX /= (mean_SX[:, 5] + count_SN @ (1.0 - self.label_N))[:, None]
        else:
            mean_SX /= count_SN.shape[1]
        gap_S = np.abs(mean_SX[:, COLUMNS:]).sum(axis=1)
        accuracy_S, loss_S, flips_S, correct_S, predicted_S, rate_S = mean_SX[:, :COLUMNS].T
        predicted_S = np.minimum(predicted_S, 1.0)  # weights round
        auc_S, average_precision_S = self._ranks(count_SN)
        recall_S = _ratio(correct_S, rate_S)
        rejected_S = _ratio(1.0 - rate_S - predicted_S + correct_S, 1.0 - rate_S)
        precision_S = np.where(predicted_S > 0, _ratio(correct_S, predicted_S), 0.0)
        return np.stack(
            [
                accuracy_S, auc_S, loss_S, gap_S, flips_S, average_precision_S,
                _ratio(average_precision_S, rate_S), 0.5 * (recall_S + rejected_S),
                matthews(correct_S, predicted_S, rate_S, 1.0), precision_S, recall_S,
            ]
        )  # fmt: skip

    def _ranks(self, count_SN: Floats) -> tuple[Floats, Floats]:
        """AUC and average precision with counts as weights; NaN if one class is missing.

        AUC is Mann-Whitney's, ties count half. Average precision is the mean precision at the
        windows of class 1, equal probabilities together, as `metrics.average_precision`.
        """
        all_SN = count_SN[:, self.rank_N]
        positive_SN = all_SN * self.label_N[self.rank_N]
        if len(self.ties) < len(self.rank_N):
            positive_SN = np.add.reduceat(positive_SN, self.ties, axis=1)
            all_SN = np.add.reduceat(all_SN, self.ties, axis=1)
        # windows of class 1, then of both classes, with this probability or a larger one
        above_SN, of_SN = np.cumsum(positive_SN, axis=1), np.cumsum(all_SN, axis=1)
        positives_S, windows_S = above_SN[:, -1].copy(), of_SN[:, -1].copy()
        negatives_S = windows_S - positives_S
        all_SN -= positive_SN
        all_SN *= -0.5
        all_SN += of_SN
        all_SN -= above_SN  # windows of class 0 that are ranked above; ties count half
        losses_S = np.einsum("sn,sn->s", positive_SN, all_SN)
        wins_S = positives_S * negatives_S - losses_S
        if self.weighted:
            of_SN += self.unseen
        precision_SN = np.divide(above_SN, of_SN, out=above_SN, where=of_SN > 0)
        precision_S = np.einsum("sn,sn->s", positive_SN, precision_SN)
        return _ratio(wins_S, positives_S * negatives_S), _ratio(precision_S, positives_S)


def _ratio(value_S: Floats, of_S: Floats) -> Floats:
    """Quotient; NaN where the divisor is 0."""
    found_S: Floats = np.divide(value_S, of_S, out=np.full(len(of_S), np.nan), where=of_S > 0)
    return found_S


def draws(windows: int, length: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Count of each window, in time order, in each resample: matrices (part of S, N)."""
    rng = np.random.default_rng(seed)
    blocks = -(-windows // length)
    step = max(1, CHUNK_ELEMENTS // windows)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        start_SK1 = rng.integers(0, windows, (rows, blocks, 1))
        index_SN = ((start_SK1 + np.arange(length)) % windows).reshape(rows, -1)[:, :windows]
        flat = (index_SN + windows * np.arange(rows)[:, None]).ravel()
        count = np.bincount(flat, minlength=rows * windows)
        yield count.reshape(rows, windows).astype(np.float64)


def block_length(series: list[Floats], context: WindowContext) -> int:
    """Number of windows per block that makes blocks nearly independent.

    The longest of the automatic choice for each series (Politis and White 2004, Econometric Reviews
    23:53, corrected by Patton, Politis and White 2009, 28:372) and the cube root of the session's
    windows (Hall, Horowitz and Jing 1995, Biometrika 82:561), both per session, times the number of
    instruments of a day, whose windows are interleaved in time.

    Args:
        series: per-window values whose dependence matters, for example losses.
        context: gives sessions and time.
    """
    session_N = context.sessions()
    order = np.lexsort((context.timestamp_ns_N, session_N))
    bounds = np.flatnonzero(np.diff(session_N[order])) + 1
    sessions, days = len(bounds) + 1, len(np.unique(context.days()))
    windows = len(order)
    lengths = [(windows / sessions) ** (1 / 3)]
    lengths += [automatic_length(np.split(values[order], bounds)) for values in series]
    wanted = int(np.ceil(max(lengths) * sessions / days))
    return max(1, min(wanted, windows // MINIMUM_BLOCKS))


def automatic_length(pieces: list[Floats]) -> float:
    """Politis and White's block length of the circular bootstrap, covariances pooled over pieces.

    Args:
        pieces: the series' sections, of any lengths; no dependence across sections is assumed.

    Returns:
        At least 1.
    """
    total = sum(map(len, pieces))
    count = total / len(pieces)
    mean = sum(float(piece.sum()) for piece in pieces) / total
    centred = [piece - mean for piece in pieces]
    spread = max(float(np.abs(piece).max()) for piece in centred)
    # equal values differ from their computed mean by rounding: that is not variation
    if count < 4 or spread <= CONSTANT * abs(mean):
        return 1.0
    scaled = [piece / spread for piece in centred]  # so that squares neither vanish nor overflow
    run = max(5, int(np.sqrt(np.log10(count))))
    lags = int(np.ceil(np.sqrt(count))) + run
    covariance_L = np.array([_covariance(scaled, lag) / total for lag in range(lags + 1)])
    variance = covariance_L[0]
    small_L = np.abs(covariance_L[1:] / variance) < 2.0 * np.sqrt(np.log10(count) / count)
    quiet = [lag for lag in range(lags - run + 1) if small_L[lag : lag + run].all()]
    reach = 2 * max(quiet[0], 1) if quiet else lags
    lag = np.arange(1, min(reach, lags) + 1)
    window = np.minimum(1.0, 2.0 * (1.0 - lag / reach))  # flat-top
    slope = 2.0 * float((window * lag * covariance_L[lag]).sum())
    level = variance + 2.0 * float((window * covariance_L[lag]).sum())
    if level <= 0.0:
        return 1.0
    length = (2.0 * slope**2 / (4.0 / 3.0 * level**2)) ** (1 / 3) * count ** (1 / 3)
    return max(1.0, float(min(length, np.ceil(min(3.0 * np.sqrt(count), count / 3.0)))))


def _covariance(pieces: list[Floats], lag: int) -> float:
    """Sum of products of values `lag` apart; a piece that is not longer has no such pair."""
    return sum(
        float(piece[: len(piece) - lag] @ piece[lag:]) for piece in pieces if len(piece) > lag
    )
