"""Gradient boosting on window summaries."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from model_code.errors import DataError
from model_code.models import boosting, network
from model_code.models.summaries import COUNT, summaries
from model_code.settings import BoostingSpec, TrainingSpec, TreesSpec
from model_code.training.loop import train
from model_code.training.run import EpochMetrics


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


def test_it_learns_and_stops_on_the_validation_windows(table):
    features_NF, labels_N, ends = table
    result = boosting.fit_baseline(
        features_NF,
        labels_N,
        ends[:2000],
        ends[2100:2900],
        ends[3000:],
        seed=1,
        trees=TreesSpec(max_iter=60),
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


def test_a_constant_column_has_its_own_value_as_its_mean():
    features_NF = np.full((64, 16), 0.1, np.float32)
    np.testing.assert_array_equal(summaries(features_NF, np.array([63])), np.float32(0.1))


def test_centred_thresholds_change_no_training_windows_path():
    rng = np.random.default_rng(4)
    x_BG = (rng.integers(-400, 400, (3000, COUNT)) / 10).astype(np.float32)
    y_B = (x_BG[:, 3] + 0.1 * x_BG[:, 60] * x_BG[:, 7] > 0).astype(int)
    model = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=15).fit(x_BG, y_B)
    before_B, shaken_BG = model.decision_function(x_BG), np.nextafter(x_BG, np.float32(1e9))
    assert (model.decision_function(shaken_BG) != before_B).any(), "thresholds on training values"
    boosting.centre_thresholds(model, x_BG)
    np.testing.assert_array_equal(model.decision_function(x_BG), before_B)
    np.testing.assert_array_equal(model.decision_function(shaken_BG), before_B)


def test_boosting_is_trained_in_one_step_to_the_baselines_figures(table, tmp_path):
    features_NF, labels_N, ends = table
    parts = ends[:2000], ends[2100:2900]
    spec = BoostingSpec(trees=TreesSpec(max_iter=30))
    epochs: list[EpochMetrics] = []

    def fit():
        return train(
            features_NF,
            labels_N,
            *parts,
            network_spec=spec,
            training_spec=TrainingSpec(seed=1),
            checkpoints=tmp_path / "checkpoints",
            on_epoch=epochs.append,
        )

    result, again = fit(), fit()
    (row,) = result.history
    assert epochs == [row, *again.history]
    assert not (tmp_path / "checkpoints").exists()
    assert (result.best_epoch, result.resumed_from, result.precision) == (1, None, "fp32")
    baseline = boosting.fit_baseline(
        features_NF, labels_N, *parts, ends[3000:], seed=1, trees=spec.trees
    )
    assert row.validation_auc == pytest.approx(baseline.validation["auc"], abs=1e-4)
    assert row.validation_loss == pytest.approx(baseline.validation["log_loss"], abs=1e-4)
    assert 0.0 < row.train_loss < 0.2
    assert (row.learning_rate, row.grad_norm) == (0.0, 0.0)
    assert row.seconds > 0.0
    digests = {network.state_digest(done.model.state_dict()) for done in (result, again)}
    assert len(digests) == 1

    network.save(result.model, tmp_path / "model.pt")
    found = network.load(tmp_path / "model.pt")
    assert isinstance(found, boosting.Boosting)
    assert found.spec == spec
    assert network.state_digest(found.state_dict()) in digests
    assert (network.parameter_count(found), network.flops_per_window(spec)) == (0, 0)


def test_each_split_chooses_from_a_share_of_the_columns_drawn_by_the_seed(table):
    features_NF, labels_N, ends = table
    data = (features_NF, labels_N, ends[:800], ends[900:1200])

    def first_columns(share: float, seed: int) -> list[int]:
        trees = TreesSpec(max_iter=8, max_features=share)
        fitted = boosting.fit_boosting(*data, seed, trees)
        return [int(stage[0].nodes["feature_idx"][0]) for stage in fitted._predictors]

    assert first_columns(1.0, 1) == first_columns(1.0, 2)
    assert first_columns(0.1, 1) == first_columns(0.1, 1)
    assert first_columns(0.1, 1) != first_columns(0.1, 2)
    assert len(set(first_columns(1.0, 1))) < len(set(first_columns(0.1, 1)))


def test_a_weight_is_as_many_windows(table):
    features_NF, _, ends = table
    chance_N = 1 / (1 + np.exp(3.5 - 2 * features_NF[:, 0]))
    labels_N = (np.random.default_rng(2).uniform(size=4000) < chance_N).astype(np.int8)
    every = ends[2000:2900]
    validation = np.concatenate([every[labels_N[every] == 1], every[labels_N[every] == 0][::9]])
    weight_B = np.where(labels_N[validation] == 1, 1.0, 9.0)

    def fitted(validation_ends, **weights) -> boosting.BaselineResult:
        parts = (features_NF, labels_N, ends[:1900], validation_ends, ends[3000:])
        return boosting.fit_baseline(*parts, seed=1, **weights)

    found = fitted(
        validation, validation_weight_B=weight_B, test_weight_B=1.0 + labels_N[ends[3000:]]
    )
    expected = fitted(np.repeat(validation, weight_B.astype(int)))
    assert (found.iterations, found.threshold) == (expected.iterations, expected.threshold)
    for name in ("log_loss", "accuracy", "mcc", "base_rate"):
        assert found.validation[name] == pytest.approx(expected.validation[name])
    assert found.test["base_rate"] > expected.test["base_rate"], "of which each counts twice"
    without = fitted(validation)
    assert without.iterations != found.iterations
    assert without.threshold != found.threshold
