"""Gradient boosting on window summaries."""

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.models import boosting
from model_code.models.summaries import summaries


@pytest.fixture(scope="module", name="table")
def learnable_table():
    """Label: the mean of feature 0 over the last 4 rows is positive."""
    rng = np.random.default_rng(0)
    features_NF = rng.normal(size=(4000, 16)).astype(np.float32)
    means = np.convolve(features_NF[:, 0], np.ones(4) / 4)[:4000]
    return features_NF, (means > 0).astype(np.int8), np.arange(63, 4000)


def test_summaries_are_last_row_lags_and_trailing_means(table):
    features_NF, _, ends = table
    x_BG = summaries(features_NF, ends[[0, 100]])
    assert x_BG.shape == (2, 16 * 7)
    assert x_BG.dtype == np.float32
    np.testing.assert_array_equal(x_BG[1, :16], features_NF[163])
    np.testing.assert_array_equal(x_BG[1, 32:48], features_NF[161])
    np.testing.assert_allclose(x_BG[0, -16:], features_NF[:64].mean(axis=0), atol=1e-6)


def test_it_learns_and_stops_on_the_validation_windows(table, monkeypatch):
    features_NF, labels_N, ends = table
    monkeypatch.setitem(boosting.SETTINGS, "max_iter", 60)
    result = boosting.fit_baseline(
        features_NF, labels_N, ends[:2000], ends[2100:2900], ends[3000:], seed=1
    )
    assert result.test["auc"] > 0.97
    assert result.validation["auc"] > 0.97
    assert 1 <= result.iterations <= 60
    assert result.fit_seconds > 0
    decided_B = result.test_probability_B >= result.threshold
    assert result.test["accuracy"] == pytest.approx(np.mean(decided_B == labels_N[ends[3000:]]))


def test_early_stopping_ends_a_fit_that_does_not_improve(table):
    features_NF, labels_N, ends = table
    noise_N = np.random.default_rng(1).permutation(labels_N)
    result = boosting.fit_baseline(features_NF, noise_N, ends[:600], ends[700:900], ends[1000:1400])
    assert result.iterations < 60
    assert abs(result.test["auc"] - 0.5) < 0.15


def test_one_class_is_refused(table):
    features_NF, labels_N, ends = table
    with pytest.raises(DataError, match="one class"):
        boosting.fit_baseline(
            features_NF, labels_N, ends[:500], ends[600:700], ends[labels_N[ends] == 1][-50:]
        )
