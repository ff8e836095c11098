"""Attributions of planted models, whose Shapley values are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.attribution.explain import LAGS, PLAYERS, attribute
from model_code.errors import EngineError
from model_code.settings import MAX_BATCH_SIZE
from tests.support.attribution import Planted

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(5, 64, 16)).astype(np.float32)
BACKGROUND = RANDOM.normal(size=(5, 3, 64, 16)).astype(np.float32)
WEIGHT = RANDOM.normal(size=(64, 16)).astype(np.float32)


def grouped(part_BTF: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums over the rows of each lag group, (B, F, L)."""
    groups = [part_BTF[:, 64 - stop : 64 - first].sum(axis=1) for _, first, stop in LAGS]
    return np.stack(groups, axis=-1)


def test_the_lag_groups_hold_every_row_once() -> None:
    assert [first for _, first, _ in LAGS] == [0, *(stop for _, _, stop in LAGS[:-1])]
    assert LAGS[-1][2] == 64
    assert PLAYERS == 64


def test_a_linear_model_gets_its_weights_times_the_distance_from_the_background() -> None:
    model = Planted(lambda x_BTF: (x_BTF * WEIGHT).sum(axis=(1, 2)))
    found = attribute(model, X, BACKGROUND)
    assert found.value_BFL == pytest.approx(grouped(WEIGHT * (X - BACKGROUND.mean(1))), abs=1e-3)
    assert found.base_B == pytest.approx((WEIGHT * BACKGROUND).sum((2, 3)).mean(1), abs=1e-3)
    assert found.additivity_error < 1e-3
    assert max(model.batches) == MAX_BATCH_SIZE


def test_two_players_share_what_they_only_do_together() -> None:
    found = attribute(Planted(lambda x_BTF: x_BTF[:, -1, 2] * x_BTF[:, 0, 5]), X, 0 * BACKGROUND)
    product_B = X[:, -1, 2] * X[:, 0, 5]
    assert found.value_BFL[:, 2, 0] == pytest.approx(product_B / 2, abs=1e-5)
    assert found.value_BFL[:, 5, 3] == pytest.approx(product_B / 2, abs=1e-5)
    others_BFL = found.value_BFL.copy()
    others_BFL[:, 2, 0] = others_BFL[:, 5, 3] = 0.0
    assert not others_BFL.any()


def test_the_same_seed_gives_the_same_and_the_global_generator_is_left_alone() -> None:
    model = Planted(lambda x_BTF: np.tanh(x_BTF[:, -1]).prod(axis=1) + x_BTF.max(axis=(1, 2)))
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    first, again, other = (attribute(model, X, BACKGROUND, seed=seed) for seed in (0, 0, 1))
    assert np.random.random() == expected  # noqa: NPY002
    assert np.array_equal(first.value_BFL, again.value_BFL)
    assert not np.array_equal(first.value_BFL, other.value_BFL)
    assert first.value_BFL.sum((1, 2)) + first.base_B == pytest.approx(first.output_B)


def test_an_output_that_is_not_finite_is_an_error() -> None:
    model = Planted(lambda x_BTF: np.where(x_BTF[:, -1, 0] == X[1, -1, 0], np.nan, 0.0))
    with pytest.raises(EngineError, match="masked windows are not finite"):
        attribute(model, X, BACKGROUND)


def test_a_model_whose_answer_depends_on_the_batch_is_an_error() -> None:
    with pytest.raises(EngineError, match="differ from the model's log-odds"):
        attribute(Planted(lambda x_BTF: x_BTF[:, -1, 0] + len(x_BTF)), X, BACKGROUND)
