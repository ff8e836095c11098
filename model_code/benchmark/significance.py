"""Uncertainty of measured values: bootstrap intervals for dependent data.

Latency: requests of one round share the machine's load, so whole rounds are resampled (cluster
bootstrap: Davison and Hinkley 1997, "Bootstrap Methods and their Application", ch. 3). Quality:
neighbouring windows share market conditions, so blocks of them are resampled (`blocks`). All
engines share the same draws, so differences and ratios of two engines are paired.

Shapes: N test windows, R timed requests, S resamples, P pieces (rounds) drawn from.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from scipy import stats

from model_code.benchmark import blocks
from model_code.benchmark.slices import BOTH_DEFAULT, WindowContext
from model_code.training.threshold import decide

RESAMPLES = 1000
QUANTILES = {"p50_ms": 0.50, "p90_ms": 0.90, "p99_ms": 0.99, "p999_ms": 0.999}
LATENCY_METRICS = ("mean_ms", *QUANTILES)
PIECES_OF_ONE_ROUND = 10
CHUNK_ELEMENTS = 1 << 21  # of a resamples-by-requests matrix: bounds memory, fits the caches


class Interval(BaseModel):
    """A two-sided confidence interval.

    Attributes:
        low: lower bound.
        high: upper bound.
        confidence: of both bounds together; each bound alone has (1 + confidence) / 2.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    confidence: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def interval(
    samples_S: NDArray[np.float64], confidence: float, *, clusters: int | None = None
) -> Interval | None:
    """Percentile interval of resampled values; None if they are not all finite.

    Args:
        samples_S: the statistic of every resample.
        confidence: between 0 and 1.
        clusters: number of independent pieces drawn from; for few pieces the percentiles are
            widened (Hesterberg 2015, The American Statistician 69:371, section 5.3).
    """
    if not len(samples_S) or not np.isfinite(samples_S).all():
        return None
    tail = (1.0 - confidence) / 2.0
    if clusters is not None and clusters > 1:
        wide = np.sqrt(clusters / (clusters - 1)) * stats.t.ppf(tail, clusters - 1)
        tail = float(stats.norm.cdf(wide))
    low, high = np.quantile(samples_S, [tail, 1.0 - tail])
    return Interval(low=float(low), high=float(high), confidence=confidence)


def latency_intervals(
    latency_ms_R: NDArray[np.float64],
    round_R: NDArray[np.integer],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of mean_ms, p50_ms, p90_ms, p99_ms and p999_ms, from resampled whole rounds.

    Args:
        latency_ms_R: raw latencies of one engine.
        round_R: the round of each latency.
        confidence: of each interval.
        resamples: number of draws; the same seed gives the same intervals.
        seed: of the draws.
    """
    samples = latency_samples(latency_ms_R, round_R, resamples=resamples, seed=seed)
    pieces = piece_count(round_R)
    found = {
        name: interval(values, confidence, clusters=pieces) for name, values in samples.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def latency_ratio(
    latency_ms_R: NDArray[np.float64],
    other_ms_R: NDArray[np.float64],
    round_R: NDArray[np.integer],
    *,
    metric: str = "p50_ms",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Interval of one engine's latency over another's: the median of the per-round ratios.

    Load that slows both engines of a round cancels out. A round in which it slows only one of them
    is one of many, so it has little weight.
    """
    mine_P, other_P = (
        round_values(values, round_R)[metric] for values in (latency_ms_R, other_ms_R)
    )
    medians_S = round_medians(mine_P / other_P, resamples=resamples, seed=seed)
    return interval(medians_S, confidence, clusters=len(mine_P))


def round_values(
    latency_ms_R: NDArray[np.float64], round_R: NDArray[np.integer]
) -> dict[str, NDArray[np.float64]]:
    """mean_ms and the quantiles of every round, (P,) each."""
    piece_R = _pieces(round_R)
    rounds = [latency_ms_R[piece_R == piece] for piece in np.unique(piece_R)]
    found = {"mean_ms": np.array([values.mean() for values in rounds])}
    for name, share in QUANTILES.items():
        found[name] = np.array([np.quantile(values, share) for values in rounds])
    return found


def round_medians(
    value_P: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Median over rounds of a per-round value, in every resample, (S,)."""
    draws = np.random.default_rng(seed).integers(0, len(value_P), (resamples, len(value_P)))
    medians_S: NDArray[np.float64] = np.median(value_P[draws], axis=1)
    return medians_S


def latency_samples(
    latency_ms_R: NDArray[np.float64],
    round_R: NDArray[np.integer],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """mean_ms and the quantiles of every resample, (S,) each; the same rounds for every engine."""
    piece_R = np.unique(_pieces(round_R), return_inverse=True)[1]
    count = int(piece_R.max()) + 1
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    times_SP = np.stack([np.bincount(row, minlength=count) for row in draws])
    order = np.argsort(latency_ms_R, kind="stable")
    sorted_R, piece_R = latency_ms_R[order], piece_R[order]
    size_P = np.bincount(piece_R, minlength=count)
    total_P = np.bincount(piece_R, weights=sorted_R, minlength=count)
    found = {"mean_ms": (times_SP @ total_P) / (times_SP @ size_P)}
    found |= {name: np.empty(resamples) for name in QUANTILES}
    step = max(1, CHUNK_ELEMENTS // len(sorted_R))
    for start in range(0, resamples, step):
        seen_SR = np.cumsum(times_SP[start : start + step, piece_R], axis=1, dtype=np.int32)
        last_S = seen_SR[:, -1] - 1
        for name, share in QUANTILES.items():
            # linear interpolation, as numpy's quantile of the drawn requests
            place_S = share * last_S
            below_S = np.floor(place_S).astype(np.int64)
            above_S = np.minimum(below_S + 1, last_S)
            low_S = sorted_R[(seen_SR > below_S[:, None]).argmax(axis=1)]
            high_S = sorted_R[(seen_SR > above_S[:, None]).argmax(axis=1)]
            found[name][start : start + step] = low_S + (place_S - below_S) * (high_S - low_S)
    return found


def piece_count(round_R: NDArray[np.integer]) -> int:
    """Number of pieces that latencies are drawn from."""
    return len(np.unique(_pieces(round_R)))


def _pieces(round_R: NDArray[np.integer]) -> NDArray[np.integer]:
    """The units of resampling: rounds, or consecutive pieces if there is only one round."""
    if len(np.unique(round_R)) > 1:
        return round_R
    return np.arange(len(round_R)) * PIECES_OF_ONE_ROUND // len(round_R)


class Paired(BaseModel):
    """One engine's predictions compared with another's on the same windows.

    Attributes:
        worse: windows that only the other decides correctly.
        better: windows that only the engine decides correctly.
        p_value: McNemar's exact test that both are equally likely (1947, Psychometrika 12:153);
            it assumes independent windows and ignores weights, the intervals do neither.
        differences: of `blocks.QUALITY_METRICS`, engine minus other; flip_fraction is the engine's
            own. A metric that cannot be resampled is absent.
        block_length: windows in a block.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    worse: int
    better: int
    p_value: float
    differences: dict[str, Interval]
    block_length: int


def paired(
    label_N: NDArray[np.integer],
    probability_N: NDArray[np.float64],
    other_N: NDArray[np.float64],
    context: WindowContext,
    *,
    thresholds: tuple[float, float] = BOTH_DEFAULT,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Compare an engine with another, FP32 or the champion, window by window.

    Args:
        label_N: 0 or 1.
        probability_N: of class 1, the engine's; a non-finite value counts as a wrong decision.
        other_N: of class 1, finite.
        context: time, instrument and weight of the windows.
        thresholds: of the engine's decisions and of the other's.
        confidence: of each interval.
        resamples: number of draws; the same seed gives the same intervals.
        seed: of the draws.
    """
    truth_N = np.asarray(label_N) == 1
    right_N = np.isfinite(probability_N) & (decide(probability_N, thresholds[0]) == truth_N)
    other_right_N = decide(other_N, thresholds[1]) == truth_N
    worse, better = int((other_right_N & ~right_N).sum()), int((right_N & ~other_right_N).sum())
    p_value = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
    series = loss_series(label_N, other_N, probability_N, context.weight_N)
    length = blocks.block_length(series, context)
    samples = blocks.quality_samples(
        label_N,
        {"engine": probability_N, "other": other_N},
        other_N,
        context,
        length=length,
        resamples=resamples,
        seed=seed,
        thresholds={"engine": thresholds[0], "other": thresholds[1]},
        reference_threshold=thresholds[1],
    )
    found = {
        name: interval(values - samples["other"][name], confidence, clusters=len(truth_N) // length)
        for name, values in samples.get("engine", {}).items()
    }
    return Paired(
        worse=worse,
        better=better,
        p_value=float(p_value),
        differences={name: value for name, value in found.items() if value is not None},
        block_length=length,
    )


def loss_series(
    label_N: NDArray[np.integer],
    base_N: NDArray[np.float64],
    other_N: NDArray[np.float64] | None = None,
    weight_N: NDArray[np.float64] | None = None,
) -> list[NDArray[np.float64]]:
    """Per-window values whose dependence sets the block length: a loss, and a loss difference.

    The loss is the squared error: a single confident mistake cannot dominate it. With weights each
    value is its part in the error of the weighted mean m: w (x - m), over the mean weight.
    """
    base = (base_N - label_N) ** 2
    series = [base]
    if other_N is not None and np.isfinite(other_N).all():
        series.append((other_N - label_N) ** 2 - base)
    if weight_N is None:
        return series
    share_N = weight_N / weight_N.mean()
    return [share_N * (values - np.average(values, weights=weight_N)) for values in series]
