"""The decision threshold: what is chosen, and that engines' rounding does not change decisions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from model_code.training.threshold import DEFAULT_THRESHOLD, choose_threshold, decide, matthews
from tests.support.rare import market


def rare(count=50_000, share=0.004):
    """Opportunities at 0.4%, whose probabilities stay far below 0.5."""
    random = np.random.default_rng(4)
    label_B = (random.uniform(size=count) < share).astype(np.int8)
    logit_B = np.log(share) + 1.5 * label_B + random.normal(0, 0.5, count)
    return label_B, 1 / (1 + np.exp(-logit_B))


def correlation(label_B, decided_B) -> float:
    correct = np.float64((decided_B & (label_B == 1)).sum())
    predicted, positives = np.float64(decided_B.sum()), np.float64(label_B.sum())
    return float(matthews(correct, predicted, positives, float(len(label_B))))


def test_rare_opportunities_are_found_below_one_half():
    label_B, probability_B = rare()
    threshold = choose_threshold(label_B, probability_B)
    assert not decide(probability_B, DEFAULT_THRESHOLD).any(), "at 0.5 nothing is ever decided"
    assert threshold < 0.1
    found = sk.matthews_corrcoef(label_B, decide(probability_B, threshold))
    grid = np.quantile(probability_B, np.linspace(0.5, 0.9999, 400))
    best = max(sk.matthews_corrcoef(label_B, decide(probability_B, other)) for other in grid)
    assert found >= best - 1e-12
    assert found > 0.1


@given(
    hnp.arrays(np.float64, 30, elements=st.floats(0, 1).map(lambda value: round(value, 2))),
    hnp.arrays(np.int8, 30, elements=st.integers(0, 1)),
)
def test_no_other_threshold_is_better_and_none_as_good_is_nearer_one_half(probability_B, label_B):
    threshold = choose_threshold(label_B, probability_B)

    def score(value: float) -> float:
        decided_B = decide(probability_B, value)
        return correlation(label_B, decided_B)

    values = np.unique(probability_B)
    others = [*values, *(0.5 * (values[1:] + values[:-1])), DEFAULT_THRESHOLD]
    best = max(score(value) for value in others)
    if best <= 0.0:
        assert threshold == DEFAULT_THRESHOLD
        return
    assert score(threshold) == pytest.approx(best, abs=1e-9)
    nearer = [value for value in others[len(values) :] if score(value) > best - 1e-9]
    if nearer:
        distances = [abs(value - 0.5) for value in nearer]
        assert abs(threshold - 0.5) <= min(distances) + 1e-9


def test_candidates_lie_between_probabilities():
    label_B, probability_B = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    assert choose_threshold(label_B, probability_B) == pytest.approx(0.25)
    assert choose_threshold(label_B, np.array([0.1, 0.4, 0.8, 0.9])) == 0.5


def test_of_equally_good_thresholds_the_nearest_to_one_half_is_chosen():
    label_B, probability_B = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    # above 0.1 and above 0.3 both have one error
    assert choose_threshold(label_B, probability_B) == pytest.approx(0.35)


def test_neighbouring_floats_are_told_apart():
    below = 0.3
    above = float(np.nextafter(below, 1.0))
    threshold = choose_threshold(np.array([0, 1]), np.array([below, above]))
    assert decide(np.array([below, above]), threshold).tolist() == [False, True]


@pytest.mark.parametrize(
    ("label_B", "probability_B"),
    [
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),  # constant
        ([1, 0], [0.2, 0.4]),  # worse than chance
        ([0, 0, 0], [0.1, 0.2, 0.3]),  # one class
        ([], []),
    ],
)
def test_without_a_better_one_it_is_one_half(label_B, probability_B):
    found = choose_threshold(np.array(label_B, np.int8), np.array(probability_B))
    assert found == DEFAULT_THRESHOLD


def test_a_probability_that_is_not_a_number_is_no_decision():
    assert decide(np.array([np.nan, 0.2, 0.1]), 0.2).tolist() == [False, True, False]


def test_matthews_correlation_is_scikit_learns():
    label_B, probability_B = rare(2000, 0.1)
    for threshold in (0.05, 0.1, 0.2):
        decided_B = decide(probability_B, threshold)
        assert correlation(label_B, decided_B) == pytest.approx(
            sk.matthews_corrcoef(label_B, decided_B)
        )


def test_a_weight_is_as_many_windows():
    random = np.random.default_rng(5)
    label_B, probability_B = random.integers(0, 2, 300), random.uniform(size=300).round(2)
    weight_B = random.integers(1, 6, 300)
    times = label_B.repeat(weight_B), probability_B.repeat(weight_B)
    found = choose_threshold(label_B, probability_B, weight_B.astype(float))
    assert found == choose_threshold(*times)
    ones = choose_threshold(label_B, probability_B, np.ones(300))
    assert ones == choose_threshold(label_B, probability_B)


def test_a_sample_by_class_chooses_the_threshold_of_all_windows():
    whole = market()
    taken = whole.by_class()
    found = choose_threshold(taken.label_N, taken.probability_N, taken.weight_N)
    without = choose_threshold(taken.label_N, taken.probability_N)

    def on_all(threshold: float) -> float:
        return correlation(whole.label_N, decide(whole.probability_N, threshold))

    best = on_all(choose_threshold(whole.label_N, whole.probability_N))
    assert on_all(found) > 0.85 * best
    assert on_all(without) < 0.85 * best
