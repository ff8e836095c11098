"""Intervals: equal to slow references, calibrated under the null and under dependence."""

import numpy as np
import pytest
from sklearn import metrics as sk

from model_code.benchmark import blocks
from model_code.benchmark.significance import (
    LATENCY_METRICS,
    Interval,
    latency_intervals,
    latency_ratio,
    latency_samples,
    paired,
)
from model_code.training.metrics import calibration_error
from tests.support.benchmark import context

QUANTILES = [0.5, 0.9, 0.99, 0.999]


def answers(count, seed=0):
    random = np.random.default_rng(seed)
    p = random.uniform(size=count)
    return random, p, (random.uniform(size=count) < p).astype(np.int8)


def noisy(random, p, scale=0.5):
    logit = np.log(p / (1 - p)) + random.normal(size=len(p)) * scale
    return 1 / (1 + np.exp(-logit))


def ratio_interval(*latencies, **options) -> Interval:
    found = latency_ratio(*latencies, **options)
    assert found is not None
    return found


def test_a_resample_of_latencies_consists_of_whole_rounds():
    random = np.random.default_rng(1)
    latency, round_ = random.gamma(9, 0.2, 600), np.repeat(np.arange(12), 50)
    found = latency_samples(latency, round_, resamples=5, seed=3)
    assert tuple(found) == LATENCY_METRICS
    draws = np.random.default_rng(3).integers(0, 12, (5, 12))
    for turn, rounds in enumerate(draws):
        drawn = np.concatenate([latency[round_ == number] for number in rounds])
        expected = [drawn.mean(), *np.quantile(drawn, QUANTILES)]
        assert [values[turn] for values in found.values()] == pytest.approx(expected)


def test_latency_intervals_contain_the_measured_values_and_repeat():
    latency = np.random.default_rng(2).gamma(9, 0.2, 1000)
    round_ = np.repeat(np.arange(20), 50)
    found = latency_intervals(latency, round_)
    measured = [latency.mean(), *np.quantile(latency, QUANTILES[:3])]
    for name, value in zip(LATENCY_METRICS, measured, strict=False):
        assert found[name].low < value < found[name].high
    assert found == latency_intervals(latency, round_)
    assert found != latency_intervals(latency, round_, seed=1)
    wider = latency_intervals(latency, round_, confidence=0.99)["p50_ms"]
    assert wider.low < found["p50_ms"].low < found["p50_ms"].high < wider.high


def test_rounds_that_differ_widen_latency_intervals():
    random = np.random.default_rng(3)
    level = np.repeat(random.lognormal(0, 0.2, 20), 50)
    latency = level * random.lognormal(0, 0.02, 1000)
    by_round = latency_intervals(latency, np.repeat(np.arange(20), 50))["mean_ms"]
    alone = latency_intervals(latency, np.arange(1000))["mean_ms"]
    assert by_round.high - by_round.low > 3 * (alone.high - alone.low)


def test_a_single_round_is_drawn_in_pieces():
    latency = np.random.default_rng(4).gamma(9, 0.2, 100)
    found = latency_intervals(latency, np.zeros(100, int))["p50_ms"]
    assert found.low < np.median(latency) < found.high
    assert latency_intervals(latency[:1], np.zeros(1, int))["p50_ms"].low == latency[0]


def test_varying_load_cancels_out_of_a_ratio():
    random = np.random.default_rng(5)
    round_ = np.repeat(np.arange(20), 50)
    mood = random.lognormal(0, 0.3, 20)[round_]
    a, b = (mood * random.lognormal(0, 0.02, 1000) for _ in range(2))
    ratio = ratio_interval(1.05 * a, b, round_)
    assert 1.04 < ratio.low < 1.05 < ratio.high < 1.06
    alone = latency_intervals(a, round_)["p50_ms"]
    assert alone.high / alone.low > 1.2
    same = ratio_interval(a, a, round_, metric="p99_ms")
    assert (same.low, same.high) == (1.0, 1.0)


def test_load_in_one_turn_of_one_engine_does_not_decide():
    random, round_ = np.random.default_rng(9), np.repeat(np.arange(20), 50)
    a, b = (random.lognormal(0, 0.02, 1000) for _ in range(2))
    ratio = ratio_interval(np.where(round_ == 4, 3 * a, a), b, round_)
    assert 0.99 < ratio.low < 1.0 < ratio.high < 1.01


def test_under_the_null_latency_ratios_rarely_exclude_one():
    random, round_ = np.random.default_rng(6), np.repeat(np.arange(20), 20)
    alarms = 0
    for _ in range(200):
        mood = random.lognormal(0, 0.2, 20)
        a, b = (
            (mood * random.lognormal(0, 0.03, 20))[round_] * random.lognormal(0, 0.05, 400)
            for _ in range(2)
        )
        found = ratio_interval(a, b, round_, resamples=200)
        alarms += not found.low <= 1.0 <= found.high
    assert 1 <= alarms <= 20  # of 200, 10 expected


def test_resampled_metrics_are_those_of_the_drawn_windows():
    random, p, label = answers(300)
    q = noisy(random, p).round(2)  # ties
    where = context(300)
    found = blocks.quality_samples(
        label, {"q": q}, p, where, length=7, resamples=3, seed=5,
        thresholds={"q": 0.6}, reference_threshold=0.4,
    )["q"]  # fmt: skip
    counts = np.concatenate(list(blocks.draws(300, 7, 3, 5)))
    assert (counts.sum(axis=1) == 300).all()
    for turn in range(3):
        drawn = np.repeat(where.time_order(), counts[turn].astype(int))
        y, values = label[drawn], q[drawn]
        assert [samples[turn] for samples in found.values()] == pytest.approx(
            [
                np.mean((values >= 0.6) == y),
                sk.roc_auc_score(y, values),
                sk.log_loss(y, values),
                calibration_error(y, values),
                np.mean((values >= 0.6) != (p[drawn] >= 0.4)),
                sk.average_precision_score(y, values),
                sk.average_precision_score(y, values) / y.mean(),
                sk.balanced_accuracy_score(y, values >= 0.6),
                sk.matthews_corrcoef(y, values >= 0.6),
                sk.precision_score(y, values >= 0.6),
                sk.recall_score(y, values >= 0.6),
            ]
        )


def test_identical_predictions_differ_by_exactly_zero():
    _, p, label = answers(500)
    found = paired(label, p.copy(), p, context(500))
    assert (found.worse, found.better, found.p_value) == (0, 0, 1.0)
    assert set(found.differences) == set(blocks.QUALITY_METRICS)
    zero = Interval(low=0.0, high=0.0, confidence=0.95)
    assert set(found.differences.values()) == {zero}


def test_a_worse_engine_is_found_worse():
    random, p, label = answers(2000)
    found = paired(label, noisy(random, p, 2.0), p, context(2000))
    assert found.worse > found.better
    assert found.p_value < 1e-4
    assert found.differences["accuracy"].high < 0
    assert found.differences["auc"].high < 0
    assert found.differences["log_loss"].low > 0


def test_mcnemars_test_is_exact():
    label, reference = np.array([0, 1] * 50), np.array([0.1, 0.9] * 50)
    worse = reference.copy()
    worse[[1, 3, 5, 7, 9]] = 0.4
    found = paired(label, worse, reference, context(100))
    assert (found.worse, found.better) == (5, 0)
    assert found.p_value == pytest.approx(2 * 0.5**5)


def test_non_finite_predictions_are_wrong_and_give_no_interval():
    _, p, label = answers(200)
    broken = np.where(np.arange(200) == np.argmax(p * label), np.nan, p)
    found = paired(label, broken, p, context(200))
    assert (found.worse, found.differences) == (1, {})


def test_under_the_null_quality_differences_rarely_exclude_zero():
    alarms = dict.fromkeys(("accuracy", "auc", "log_loss"), 0)
    for seed in range(150):
        random, p, label = answers(400, seed)
        found = paired(label, noisy(random, p), noisy(random, p), context(400), resamples=200)
        for name in alarms:
            bounds = found.differences[name]
            alarms[name] += not bounds.low <= 0.0 <= bounds.high
    assert all(1 <= count <= 17 for count in alarms.values()), alarms  # of 150, 7.5 expected


def smooth(random, count, persistence):
    noise = random.normal(size=count)
    for i in range(1, count):
        noise[i] += persistence * noise[i - 1]
    return noise


def test_dependence_in_time_lengthens_blocks_and_widens_intervals():
    random, where = np.random.default_rng(7), context(2000)
    p = 1 / (1 + np.exp(-smooth(random, 2000, 0.95)))
    label = (random.uniform(size=2000) < p).astype(np.int8)
    widths = []
    for length in (1, blocks.block_length([p], where)):
        drawn = blocks.quality_samples(
            label, {"p": p}, p, where, length=length, resamples=400, seed=0
        )
        widths.append(float(np.std(drawn["p"]["log_loss"])))
    assert blocks.block_length([p], where) > 3 * blocks.block_length(
        [random.normal(size=2000)], where
    )
    assert widths[1] > 1.5 * widths[0]


@pytest.mark.parametrize(("persistence", "expected"), [(0.5, 22.0), (0.8, 50.8)])
def test_the_automatic_block_length_is_politis_and_whites(persistence, expected):
    # first-order autoregression, n = 4000: (2 G^2 / D)^(1/3) n^(1/3) from its covariances
    random = np.random.default_rng(8)
    found = [blocks.automatic_length([smooth(random, 4000, persistence)]) for _ in range(20)]
    assert np.median(found) == pytest.approx(expected, rel=0.3)


def test_a_series_without_variance_has_blocks_of_one():
    assert blocks.automatic_length([np.ones(50)]) == 1.0
