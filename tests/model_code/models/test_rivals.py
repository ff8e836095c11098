"""What a network must beat: each rival learns, reads no test label, and shows a planted leak."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model_code.features.split import PartReport, Split, SplitReport
from model_code.models import rivals
from model_code.models.rivals import CHOICES, USUAL, Answer

ROWS = 6000
PART = PartReport(
    candidates=1, purged=0, embargoed=0, kept=1, windows=1, label_rate=0.5, first="", last=""
)
SPLIT = Split(
    train_ends=np.arange(63, 3000),
    validation_ends=np.arange(3100, 4000),
    test_ends=np.arange(4100, ROWS),
    report=SplitReport(
        test_date="2024-08-09", validation_from="", train=PART, validation=PART, test=PART
    ),
)


@pytest.fixture(scope="module", name="table")
def learnable_table() -> tuple[np.ndarray, np.ndarray]:
    """Label: the mean of feature 0 over the last 4 rows is positive, with some noise."""
    rng = np.random.default_rng(0)
    features_NF = rng.normal(size=(ROWS, 16)).astype(np.float32)
    means = np.convolve(features_NF[:, 0], np.ones(4) / 4)[:ROWS]
    return features_NF, (means + rng.normal(0, 0.3, ROWS) > 0).astype(np.int8)


def auc(answer: Answer, label_N: np.ndarray) -> float:
    return float(roc_auc_score(label_N[SPLIT.test_ends], answer.test_B))


def test_the_base_rate_is_that_of_the_training_windows(table) -> None:
    _, label_N = table
    answer = rivals.base_rate(label_N, SPLIT)
    assert set(answer.test_B) == {label_N[SPLIT.train_ends].mean()}
    assert len(answer.test_B) == len(SPLIT.test_ends)
    assert len(answer.validation_B) == len(SPLIT.validation_ends)


def test_logistic_regression_learns_a_linear_rule(table, monkeypatch: pytest.MonkeyPatch) -> None:
    features_NF, label_N = table
    answer = rivals.logistic(features_NF, label_N, SPLIT)
    assert auc(answer, label_N) > 0.85
    assert abs(answer.test_B.mean() - label_N.mean()) < 0.03
    monkeypatch.setattr(rivals, "CHUNK", 500)  # chunks change nothing
    again = rivals.logistic(features_NF, label_N, SPLIT)
    np.testing.assert_allclose(again.test_B, answer.test_B, rtol=1e-12)


def test_boosting_is_the_best_of_its_trials_on_the_validation_windows(table) -> None:
    features_NF, label_N = table
    seen: list[int] = []
    usual = rivals.tuned_boosting(features_NF, label_N, SPLIT, trials=1, seed=3)
    tuned = rivals.tuned_boosting(
        features_NF, label_N, SPLIT, trials=3, seed=3, on_trial=seen.append
    )
    assert seen == [1, 2, 3]
    assert {name: usual.chosen[name] for name in USUAL} == USUAL
    assert all(tuned.chosen[name] in (*CHOICES[name], USUAL[name]) for name in CHOICES)
    assert tuned.chosen["validation_auc"] >= usual.chosen["validation_auc"]
    found = roc_auc_score(label_N[SPLIT.validation_ends], tuned.validation_B)
    assert found == pytest.approx(tuned.chosen["validation_auc"])
    assert 1 <= tuned.chosen["iterations"] < rivals.MOST_ITERATIONS
    assert auc(tuned, label_N) > 0.85
    again = rivals.tuned_boosting(features_NF, label_N, SPLIT, trials=3, seed=3)
    np.testing.assert_array_equal(again.test_B, tuned.test_B)
    with pytest.raises(ValueError, match="at least one trial"):
        rivals.tuned_boosting(features_NF, label_N, SPLIT, trials=0, seed=3)


def test_no_rival_reads_a_test_label(table) -> None:
    features_NF, label_N = table
    other_N = label_N.copy()
    other_N[SPLIT.test_ends] = 1 - other_N[SPLIT.test_ends]
    for fit in (
        lambda label_N: rivals.base_rate(label_N, SPLIT),
        lambda label_N: rivals.logistic(features_NF, label_N, SPLIT),
        lambda label_N: rivals.tuned_boosting(features_NF, label_N, SPLIT, trials=1, seed=0),
    ):
        np.testing.assert_array_equal(fit(label_N).test_B, fit(other_N).test_B)


def test_shuffled_labels_rank_nothing(table) -> None:
    features_NF, label_N = table
    aucs = []
    for seed in range(5):
        shuffled_N = rivals.shuffled(label_N, SPLIT, seed)
        for ends in (SPLIT.train_ends, SPLIT.validation_ends):
            assert shuffled_N[ends].sum() == label_N[ends].sum()
            assert (shuffled_N[ends] != label_N[ends]).mean() > 0.3
        np.testing.assert_array_equal(shuffled_N[SPLIT.test_ends], label_N[SPLIT.test_ends])
        answer = rivals.tuned_boosting(features_NF, shuffled_N, SPLIT, trials=1, seed=seed)
        aucs.append(auc(answer, label_N))
    assert abs(np.mean(aucs) - 0.5) < 0.05


def test_a_feature_that_contains_the_label_shows(table) -> None:
    features_NF, label_N = table
    leaking_NF = features_NF.copy()
    leaking_NF[:, 5] = label_N
    for answer in (
        rivals.logistic(leaking_NF, label_N, SPLIT),
        rivals.tuned_boosting(leaking_NF, label_N, SPLIT, trials=1, seed=0),
    ):
        assert auc(answer, label_N) > 0.999


def test_the_order_of_the_test_windows_is_kept(table) -> None:
    features_NF, label_N = table
    back = replace(SPLIT, test_ends=SPLIT.test_ends[::-1])
    forward = rivals.tuned_boosting(features_NF, label_N, SPLIT, trials=1, seed=0)
    backward = rivals.tuned_boosting(features_NF, label_N, back, trials=1, seed=0)
    np.testing.assert_array_equal(forward.test_B, backward.test_B[::-1])
