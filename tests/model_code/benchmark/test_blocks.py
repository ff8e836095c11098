"""Block lengths of sessions of any lengths, and against another implementation."""

from dataclasses import replace

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from model_code.benchmark import blocks
from model_code.benchmark.regression import compare
from model_code.benchmark.significance import interval, loss_series, paired
from model_code.benchmark.slices import DAY_NS, WindowContext, sliced
from tests.support.rare import Market, market

INSTRUMENTS = 3


def where(lengths) -> WindowContext:
    """Sessions of these lengths: three instruments a day, windows a second apart."""
    number_N = np.repeat(np.arange(len(lengths)), lengths)
    second_N = np.concatenate([np.arange(length) for length in lengths])
    day_N = number_N // INSTRUMENTS
    return WindowContext(
        timestamp_ns_N=20_000 * DAY_NS + day_N * DAY_NS + second_N * 10**9,
        symbol_N=np.array(["A", "B", "C"])[number_N % INSTRUMENTS],
        spread_N=np.ones(len(number_N)),
        volatility_N=np.linspace(1, 2, len(number_N)),
    )


def autoregression(random, count, persistence):
    """First order, with 200 values before the first so that it starts from its own law."""
    return lfilter([1.0], [1.0, -persistence], random.normal(size=count + 200))[200:]


def values(kind, random, count):
    match kind:
        case "white noise":
            return random.normal(size=count)
        case "autoregression":
            return autoregression(random, count, random.uniform(-0.99, 0.99))
        case "constant":
            return np.full(count, random.normal())
        case _:
            return random.integers(0, 2, count).astype(np.float64)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12),
    kind=st.sampled_from(["white noise", "autoregression", "constant", "0 or 1"]),
    scale=st.sampled_from([1.0, 1e-200, 1e150]),
    seed=st.integers(0, 2**32 - 1),
)
def test_sessions_of_any_lengths_have_a_block_length(lengths, kind, scale, seed):
    series = values(kind, np.random.default_rng(seed), sum(lengths)) * scale
    found = blocks.automatic_length(np.split(series, np.cumsum(lengths)[:-1]))
    assert np.isfinite(found)
    assert found >= 1.0
    if kind == "constant":
        assert found == 1.0
    length = blocks.block_length([series], where(lengths))
    assert isinstance(length, int)
    assert 1 <= length <= max(1, len(series) // blocks.MINIMUM_BLOCKS)


@pytest.mark.parametrize("lengths", [[1], [4], [7], [3, 1, 2], [300, 1, 20], [40] * 11 + [1]])
def test_an_instrument_with_few_windows_is_measured_with_the_others(lengths):
    random, context = np.random.default_rng(0), where(lengths)
    p = random.uniform(size=sum(lengths))
    label = (random.uniform(size=len(p)) < p).astype(np.int8)
    q = np.clip(p + random.normal(size=len(p)) * 0.05, 0.0, 1.0)
    length = blocks.block_length(loss_series(label, p, q), context)
    for count_SN in blocks.draws(len(p), length, 50, 0):
        assert count_SN.shape == (50, len(p))
        assert (count_SN.sum(axis=1) == len(p)).all()
    assert "accuracy" in paired(label, q, p, context, resamples=50).differences
    windows = {row.name: row.windows for row in sliced(context, label, q, p)}
    assert windows["A"] == sum(lengths[::INSTRUMENTS])


@pytest.mark.parametrize("value", [0.1, 1 / 3, -1e-9, 0.0, 1e8])
def test_rounding_of_the_mean_is_not_variation(value):
    assert blocks.automatic_length([np.full(7, value), np.full(1000, value)]) == 1.0


def test_the_unit_of_the_values_does_not_matter():
    series = autoregression(np.random.default_rng(1), 500, 0.8)
    expected = blocks.automatic_length([series])
    assert 5.0 < expected < 50.0
    for scale in (1e-200, 1e-100, 1e150):
        assert blocks.automatic_length([series * scale]) == pytest.approx(expected)


def both(count, persistence):
    """Lengths of 30 series: ours, and the package arch's, which may be below 1."""
    random = np.random.default_rng(count)
    series = [autoregression(random, count, persistence) for _ in range(30)]
    theirs = [float(optimal_block_length(x)["circular"].iloc[0]) for x in series]
    return np.array([blocks.automatic_length([x]) for x in series]), np.maximum(theirs, 1.0)


@pytest.mark.parametrize(
    ("count", "persistence", "share"),
    [(200, 0.0, 0.9), (1000, 0.0, 1.0), (4000, 0.0, 1.0), (200, 0.95, 0.5), (1000, 0.95, 0.5)],
)
def test_with_as_many_covariances_the_length_is_that_of_arch(count, persistence, share):
    """White noise: both use two covariances. Strong dependence: often both use all they may."""
    ours, theirs = both(count, persistence)
    same = np.isclose(ours, theirs, rtol=1e-9, atol=0.0)
    assert same.mean() >= share
    assert (ours[same] > 1.0).mean() > 0.3


@pytest.mark.parametrize(
    ("count", "persistence", "tolerance"),
    [
        (1000, 0.5, 0.10),
        (4000, 0.5, 0.06),
        (200, 0.8, 0.06),
        (1000, 0.8, 0.03),
        (4000, 0.8, 0.03),
        (200, 0.95, 0.02),
        (1000, 0.95, 0.02),
        (4000, 0.95, 0.02),
    ],
)
def test_the_length_is_close_to_that_of_arch(count, persistence, tolerance):
    """The median ratio of ours to arch's on the same series, within a few percent.

    Formula, longest lag, five quiet lags in a row, their bound and the largest length are the same.
    Five conventions differ:

    - Lags j to j + 4 are the first quiet ones. Ours, as in the paper's text, sums 2 (j - 1)
      covariances (at least 2); arch, as Patton's program, 2 j. This is nearly all of the
      difference. It matters most where the first lags carry all the dependence, so the tolerance
      falls with the persistence and the count.
    - To find quiet lags, arch divides by the variance of the overlapping values; ours by that of
      all.
    - If 2 j is past the longest lag, arch shortens the flat-top window to it; ours only cuts it.
    - If the estimated spectrum at zero is negative, ours is 1; arch squares it. Short series only.
    - Ours is at least 1.
    """
    ours, theirs = both(count, persistence)
    assert np.median(ours / theirs) == pytest.approx(1.0, abs=tolerance)


def resampled(taken: Market, resamples=400) -> dict[str, np.ndarray]:
    length = blocks.block_length(
        loss_series(taken.label_N, taken.probability_N, weight_N=taken.weight_N), taken.context
    )
    assert length < 200
    found = blocks.quality_samples(
        taken.label_N, {"model": taken.probability_N}, taken.boosting_N, taken.context,
        length=length, resamples=resamples, seed=0, thresholds={"model": 0.05},
        reference_threshold=0.05,
    )  # fmt: skip
    return found["model"]


def figures(taken: Market) -> dict[str, float]:
    answers = (taken.label_N, taken.probability_N, taken.boosting_N)
    found = compare(*answers, threshold=0.05, weight_N=taken.weight_N)
    return {name: getattr(found, name) for name in blocks.QUALITY_METRICS}


def test_a_sample_by_class_agrees_with_all_windows_within_its_own_intervals():
    whole = market(1)
    taken = whole.by_class()
    assert taken.weight_N is not None
    drawn, on_all, on_sample = resampled(taken), figures(whole), figures(taken)
    for name in blocks.QUALITY_METRICS:
        bounds = interval(drawn[name], 0.95)
        assert bounds is not None, name
        if name == "calibration_error":  # a mean of sizes: any sample's noise enlarges it
            assert 0 < on_sample[name] - on_all[name] < 0.001
            continue
        assert bounds.low < on_sample[name] < bounds.high, name
        assert bounds.low < on_all[name] < bounds.high, name
    for name, within in (("log_loss", 0.05), ("auc", 0.01), ("recall", 1e-9), ("accuracy", 0.003)):
        assert on_sample[name] == pytest.approx(on_all[name], rel=within), name


def test_resampled_figures_vary_as_those_of_other_samples():
    drawn = resampled(market().by_class())
    others = [figures(market(seed).by_class()) for seed in range(1, 21)]
    for name in ("accuracy", "auc", "log_loss", "average_precision", "precision", "recall", "mcc"):
        spread = np.std([found[name] for found in others])
        assert 0.6 < np.std(drawn[name]) / spread < 1.7, name


def test_weights_of_one_change_nothing():
    taken = market().evenly()
    ones = taken._replace(weight_N=np.ones(len(taken.label_N)))
    assert figures(ones) == pytest.approx(figures(taken), rel=1e-12)
    plain, weighted = resampled(taken, 20), resampled(ones, 20)
    for name, values in plain.items():
        np.testing.assert_allclose(weighted[name], values, rtol=1e-9, atol=1e-15, err_msg=name)


def test_a_resample_without_one_class_has_no_ranks():
    weight_N = np.array([0.3, 0.7, 1.1, 1.3])
    context = replace(where([4]), weight_N=weight_N)
    found = blocks.quality_samples(
        np.array([1, 0, 0, 0]), {"model": np.array([0.9, 0.1, 0.2, 0.3])}, np.full(4, 0.9), context,
        length=1, resamples=50, seed=0,
    )["model"]  # fmt: skip
    none = np.isnan(found["auc"])
    assert 0 < none.sum() < 50
    for name in ("average_precision", "recall", "balanced_accuracy", "average_precision_lift"):
        np.testing.assert_array_equal(np.isnan(found[name]), none, err_msg=name)
    assert np.isfinite(found["accuracy"]).all()
