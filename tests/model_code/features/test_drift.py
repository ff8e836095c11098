import numpy as np
import pytest

from model_code.features.drift import LARGE, MODERATE, drift


def rows(shift: float = 0.0, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (4000, 2)).astype(np.float32)


def test_the_same_distribution_does_not_drift() -> None:
    found = drift(rows(seed=1), rows(seed=2), ["a", "b"])
    assert list(found) == ["a", "b"]
    assert max(found.values()) < 0.02


def test_a_shift_of_the_mean_matches_theory() -> None:
    # continuous PSI of two unit normals a distance d apart is d squared; ten bins see most of it
    found = drift(rows(seed=1), rows(shift=0.4, seed=2), ["a", "b"])
    assert found["a"] == pytest.approx(0.16, abs=0.04)
    assert MODERATE < found["a"] < LARGE


def test_another_scale_and_an_empty_bin_stay_finite() -> None:
    found = drift(rows(), rows(shift=50.0), ["a", "b"])
    assert LARGE < found["a"] < np.inf
    assert drift(rows(), rows(scale=3.0), ["a", "b"])["b"] > LARGE


def test_constants_do_not_drift_until_they_change() -> None:
    zeros, ones = np.zeros((100, 1), np.float32), np.ones((100, 1), np.float32)
    assert drift(zeros, zeros, ["c"])["c"] == pytest.approx(0.0, abs=1e-9)
    assert drift(zeros, ones, ["c"])["c"] > LARGE


def test_rows_sampled_by_class_do_not_drift() -> None:
    every = rows(seed=3)
    large, others = every[every[:, 0] > 1.5], every[every[:, 0] <= 1.5]
    taken, weight = others[::10], len(others) / len(others[::10])
    weights = np.repeat([1.0, weight], [len(large), len(taken)])
    sample = np.concatenate([large, taken])
    assert drift(every, sample, ["a", "b"])["a"] > LARGE
    assert drift(every, sample, ["a", "b"], weights)["a"] < MODERATE / 2
