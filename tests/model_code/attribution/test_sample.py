"""Windows drawn from strata, and their backgrounds."""

import numpy as np
import pytest

from model_code.attribution.sample import backgrounds, stratified

SYMBOL = np.repeat([0, 1], [300, 100]).astype(np.int16)
LABEL = (np.arange(400) % 20 == 0).astype(np.int8)  # one in twenty


def test_rare_labels_are_drawn_as_often_and_weigh_less() -> None:
    found = stratified(SYMBOL, LABEL, 16)
    assert len(found.place_B) == len(set(found.place_B.tolist())) == 16
    for symbol, windows in ((0, 300), (1, 100)):
        for label, share in ((0, 0.95), (1, 0.05)):
            own_B = (SYMBOL[found.place_B] == symbol) & (LABEL[found.place_B] == label)
            assert own_B.sum() == 4
            assert found.weight_B[own_B].sum() == pytest.approx(share * windows / 400)
            assert found.half_B[own_B].sum() == 2
    assert found.weight_B.sum() == pytest.approx(1.0)


def test_a_stratum_gives_what_it_has_and_at_least_one() -> None:
    found = stratified(SYMBOL, LABEL, 100)
    assert len(found.place_B) == 25 + 15 + 25 + 5
    assert found.weight_B.sum() == pytest.approx(1.0)
    assert len(stratified(SYMBOL, LABEL, 1).place_B) == 4


def test_backgrounds_are_of_the_windows_own_instrument() -> None:
    symbol_B = np.array([1, 0, 1, 2], np.int16)
    found = backgrounds(symbol_B, SYMBOL, 3)
    assert found.tolist() == [[300, 349, 399], [0, 149, 299], [300, 349, 399], [0, 199, 399]]
    assert backgrounds(symbol_B[:1], SYMBOL[299:301], 3).tolist() == [[1, 1, 1]]


def test_windows_sampled_by_class_count_as_many_as_they_stand_for() -> None:
    """4 of 4 with an opportunity and 4 of 396 without: the weights give 1% and 99%."""
    label_N = np.array([0, 1] * 4)
    weight_N = np.where(label_N == 1, 1.0, 99.0)
    sample = stratified(np.zeros(8, np.int64), label_N, 4, weight_N)
    assert sample.weight_B.sum() == pytest.approx(1.0)
    assert sample.weight_B[label_N[sample.place_B] == 1].sum() == pytest.approx(0.01)
