import numpy as np
import pytest

from model_code.errors import DataError
from model_code.features.batch import compute
from model_code.features.drift import LARGE, MODERATE, drift
from model_code.market.store import open_market
from model_code.settings import FEATURE_COUNT, SEQUENCE_LENGTH, FeatureSpec


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


REST = np.random.default_rng(5).normal(10.0, 1.0, 4000)


@pytest.mark.parametrize(
    "reference",
    [
        np.where(np.arange(4000) % 20 > 0, 0.0, REST),  # 95% at the smallest value
        np.where(np.arange(4000) % 20 > 0, 0.0, -REST),  # at the largest
        np.where(np.arange(4000) % 2 > 0, 0.0, REST - 10.0),  # half, in the middle
        np.arange(4000) % 2.0,  # two values
        np.zeros(4000),
    ],
    ids=["smallest", "largest", "middle", "two values", "constant"],
)
@pytest.mark.parametrize("shift", [-1e3, -0.01, 0.01, 1e3])
def test_a_frequent_value_that_moves_is_a_large_shift(reference: np.ndarray, shift: float) -> None:
    half = np.where(np.arange(4000) % 4 < 2, reference + shift, reference)
    for moved in (reference + shift, half):
        found = drift(reference[:, None], moved[:, None], ["f"])["f"]
        assert LARGE < found < np.inf
    assert drift(reference[:, None], reference[::-7, None], ["f"])["f"] < MODERATE


def test_bins_that_are_empty_on_both_sides_add_nothing() -> None:
    reference = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0], 1000)[:, None]  # with gaps between
    assert drift(reference, reference[::50], ["f"])["f"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_are_an_error(bad: float, which: int) -> None:
    both = [rows(), rows()]
    both[which][7, 1] = bad
    with pytest.raises(DataError, match=r"1 of 4000 .* are NaN or infinite") as caught:
        drift(both[0], both[1], ["a", "b"])
    assert caught.value.where == "b"


def test_without_rows_there_is_no_drift_but_an_error() -> None:
    with pytest.raises(DataError, match="no reference row"):
        drift(rows()[:0], rows(), ["a", "b"])
    with pytest.raises(DataError, match="no row to compare"):
        drift(rows(), rows()[:0], ["a", "b"])


@pytest.fixture(scope="module")
def real(binance: str) -> np.ndarray:
    """Features of an instrument's first ticks of a day."""
    market = open_market(binance)
    ticks = market.read(min(market.catalog())).slice(0, 30_000)
    return compute(ticks, FeatureSpec(feature_set="solo")).features_NF[SEQUENCE_LENGTH:]


@pytest.mark.parametrize("feature", range(FEATURE_COUNT))
def test_shifts_of_every_real_feature_are_large(real: np.ndarray, feature: int) -> None:
    x_N1 = real[:, [feature]].astype(np.float64)
    beyond = float(np.ptp(x_N1)) + 1.0  # below, or above, anything seen
    every_second = np.arange(len(x_N1))[:, None] % 2
    for shift in (-beyond, beyond):
        for moved in (x_N1 + shift, x_N1 + shift * every_second):
            assert drift(x_N1, moved, ["f"])["f"] > LARGE
    assert drift(x_N1, x_N1, ["f"])["f"] == 0.0
