"""Classification metrics against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from model_code.errors import DataError
from model_code.training.metrics import CALIBRATION_BINS, calibration_error, classification
from tests.support.rare import market

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.6, 0.4, 0.9])


def test_metrics_by_hand():
    found = classification(LABELS, PROBABILITIES)
    assert found["accuracy"] == 0.5
    assert found["auc"] == 0.75  # of 4 pairs, only (0.4, 0.6) is in the wrong order
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    logs = [math.log(0.9), math.log(0.4), math.log(0.4), math.log(0.9)]
    assert found["log_loss"] == pytest.approx(-sum(logs) / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert found["base_rate"] == 0.5
    assert found["predicted_rate"] == pytest.approx(0.5)
    assert found["average_precision_lift"] == pytest.approx(2 * (0.5 * 1 + 0.5 * 2 / 3))
    assert found["mcc"] == 0.0  # one of two is right in each class
    # each probability is in its own bin
    assert found["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)


def test_calibration_weighs_bins_by_their_counts():
    probability_B = np.array([0.25] * 3 + [0.75])
    label_B = np.array([0, 0, 1, 1])
    expected = 0.75 * abs(1 / 3 - 0.25) + 0.25 * abs(1 - 0.75)
    assert calibration_error(label_B, probability_B) == pytest.approx(expected)


def test_the_ends_of_the_unit_interval_fall_into_bins():
    assert calibration_error(np.array([0, 1]), np.array([0.0, 1.0])) == 0.0


@given(
    hnp.arrays(np.float64, 50, elements=st.floats(0, 1)),
    hnp.arrays(np.int8, 50, elements=st.integers(0, 1)),
)
def test_metrics_are_finite_and_bounded(probability_B, label_B):
    label_B[:2] = 0, 1
    found = classification(label_B, probability_B)
    assert all(math.isfinite(value) for value in found.values())
    bounded = set(found) - {"log_loss", "mcc", "average_precision_lift"}
    assert -1 <= found["mcc"] <= 1
    assert 0 < found["average_precision_lift"] <= 1 / label_B.mean() + 1e-9
    assert all(0 <= found[name] <= 1 for name in bounded)
    by_bins = 0.0
    for k in range(CALIBRATION_BINS):
        edge = probability_B <= 1 if k == CALIBRATION_BINS - 1 else True
        here = (np.floor(probability_B * CALIBRATION_BINS) == k) & edge
        if k == CALIBRATION_BINS - 1:
            here |= probability_B == 1
        if here.any():
            by_bins += here.mean() * abs(label_B[here].mean() - probability_B[here].mean())
    assert found["calibration_error"] == pytest.approx(by_bins)


@pytest.mark.parametrize(
    ("label_B", "probability_B", "message"),
    [
        (LABELS, PROBABILITIES[:3], "labels have shape"),
        (LABELS, np.array([0.1, np.nan, np.inf, 0.2]), "2 of 4 probabilities are not finite"),
        (LABELS, np.array([0.1, 0.2, 1.2, 0.2]), "outside"),
        (np.array([0, 1, -1, 1]), PROBABILITIES, "expected 0 and 1"),
        (np.zeros(4, int), PROBABILITIES, "one class only, 0"),
        (np.array([], int), np.array([]), "nothing"),
    ],
)
def test_unmeasurable_predictions_are_refused(label_B, probability_B, message):
    with pytest.raises(DataError, match=message):
        classification(label_B, probability_B)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.65, 0.95])
def test_decisions_are_scikit_learns_at_the_threshold(threshold):
    rng = np.random.default_rng(3)
    probability_B = rng.uniform(size=500)
    label_B = (rng.uniform(size=500) < probability_B).astype(np.int8)
    decided_B = probability_B >= threshold
    found = classification(label_B, probability_B, threshold)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(label_B, decided_B))
    assert found["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(label_B, decided_B)
    )
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(label_B, decided_B))
    assert found["precision"] == pytest.approx(sk.precision_score(label_B, decided_B))
    assert found["recall"] == pytest.approx(sk.recall_score(label_B, decided_B))


def test_precision_is_0_if_no_window_is_predicted():
    found = classification(LABELS, PROBABILITIES, 0.95)
    assert (found["precision"], found["recall"], found["mcc"]) == (0.0, 0.0, 0.0)


def test_a_weight_is_as_many_windows():
    random = np.random.default_rng(5)
    label_B = random.integers(0, 2, 300)
    probability_B = random.uniform(size=300).round(2)  # with ties
    weight_B = random.integers(1, 6, 300).astype(float)
    found = classification(label_B, probability_B, 0.4, weight_B)
    times = weight_B.astype(int)
    expected = classification(label_B.repeat(times), probability_B.repeat(times), 0.4)
    ranks = {"average_precision", "average_precision_lift"}  # of windows that were not seen, too
    assert {name: found[name] for name in set(found) - ranks} == pytest.approx(
        {name: expected[name] for name in set(found) - ranks}, rel=1e-12
    )
    ones = classification(label_B, probability_B, 0.4, np.ones(300))
    assert ones == pytest.approx(classification(label_B, probability_B, 0.4), rel=1e-12)


def test_a_constant_no_has_the_accuracy_of_all_windows():
    whole = market()
    taken, rate = whole.by_class(), whole.label_N.mean()
    none_N = np.zeros(len(taken.label_N))
    found = classification(taken.label_N, none_N + 0.01, 0.5, taken.weight_N)
    assert found["accuracy"] == pytest.approx(1 - rate)
    assert 0.995 < found["accuracy"] < 0.997
    assert found["base_rate"] == pytest.approx(rate)
    assert (found["auc"], found["mcc"], found["precision"]) == (0.5, 0.0, 0.0)
    assert found["average_precision_lift"] == pytest.approx(1.0, abs=1e-3)
    without = classification(taken.label_N, none_N + 0.01)
    assert without["accuracy"] < 0.9, "the sample's, which nobody wants"


def test_average_precision_counts_the_windows_that_were_not_taken():
    # guesses: the first windows of a sample by class would have precision 1 far too often
    random = np.random.default_rng(2)
    label_B = np.repeat([1, 0], [200, 4000])
    weight_B = np.repeat([1.0, 200.0], [200, 4000])
    lifts = [
        classification(label_B, random.uniform(size=4200), 0.5, weight_B)["average_precision_lift"]
        for _ in range(40)
    ]
    assert np.mean(lifts) == pytest.approx(1.05, abs=0.05)
    assert np.max(lifts) < 1.5


@pytest.mark.parametrize(
    "weight_B", [np.ones(3), np.array([1.0, 0.0, 1.0, 1.0]), np.full(4, np.nan)]
)
def test_weights_of_other_windows_are_refused(weight_B):
    with pytest.raises(DataError, match="weights have shape"):
        classification(LABELS, PROBABILITIES, 0.5, weight_B)
