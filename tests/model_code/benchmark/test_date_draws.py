"""Resampled dates and blocks: figures as scikit-learn's, draws as described."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from model_code.benchmark import date_draws


@settings(max_examples=200)
@given(st.data(), st.integers(2, 30))
def test_figures_of_a_resample_equal_those_of_repeated_windows(data: st.DataObject, n: int) -> None:
    label_N = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.int8)
    tenths = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    probability_N = np.array(tenths) / 10
    count_N = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.int32)
    rank_N = np.argsort(-probability_N, kind="stable").astype(np.int32)
    sorted_N = probability_N[rank_N]
    last_N = np.r_[sorted_N[1:] != sorted_N[:-1], True]
    again_label = np.repeat(label_N, count_N)
    again_probability = np.repeat(probability_N, count_N)
    for ranks in (date_draws._ranks, date_draws._ranks.py_func):
        auc, precision = ranks(count_N, rank_N, label_N[rank_N] == 1, last_N)
        if len(set(again_label.tolist())) < 2:
            assert np.isnan(auc)
            assert np.isnan(precision)
        else:
            assert auc == pytest.approx(roc_auc_score(again_label, again_probability))
            expected = average_precision_score(again_label, again_probability)
            assert precision == pytest.approx(expected)


def test_one_date_is_drawn_in_circular_blocks_of_its_length() -> None:
    rng = np.random.default_rng(0)
    part = np.arange(20)[::-1]  # time order may differ from the pool's
    seen = np.zeros(20)
    for _ in range(300):
        count_N = date_draws._draw(rng, [part], (7,), 20)
        assert count_N.sum() == 20
        # three blocks: count changes at most at their six ends, round the circle
        assert (np.diff(np.r_[count_N[part], count_N[part][0]]) != 0).sum() <= 6
        seen += count_N
    np.testing.assert_allclose(seen / 300, 1.0, atol=0.2)


def test_dates_are_drawn_whole_and_with_replacement() -> None:
    rng = np.random.default_rng(0)
    dates = [np.arange(10), np.arange(10, 40), np.arange(40, 45)]
    drawn = []
    for _ in range(200):
        count_N = date_draws._draw(rng, dates, (3, 4, 5), 45)
        times = [count_N[part].sum() / len(part) for part in dates]
        assert sum(times) == 3
        assert all(float(each).is_integer() for each in times)
        drawn.append(times)
    assert {0.0, 1.0, 2.0, 3.0} == {each for times in drawn for each in times}
    np.testing.assert_allclose(np.mean(drawn, axis=0), 1.0, atol=0.2)


def test_all_rivals_see_the_same_draws() -> None:
    rng = np.random.default_rng(1)
    label_N = rng.integers(0, 2, 400).astype(np.int8)
    one_N = rng.random(400)
    dates = [np.arange(200), np.arange(200, 400)]
    found = date_draws.resampled(
        label_N, {"one": one_N, "same order": one_N / 2}, dates, (5, 5), resamples=50, seed=3
    )
    np.testing.assert_array_equal(found["one"], found["same order"])
    assert found["one"].shape == (2, 50)
    assert np.std(found["one"][0]) > 0
    alone = date_draws.resampled(label_N, {"one": one_N}, dates, (5, 5), resamples=50, seed=3)
    np.testing.assert_array_equal(alone["one"], found["one"])
