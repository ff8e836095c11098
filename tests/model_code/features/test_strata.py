"""Thinning by class: when, how many of each class, and their weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_code.features.strata import FEW, in_words, moved, strided, thin, unseen


def part(windows: int, positives: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Ends of windows of which these many, at random places, have label 1."""
    label_B = np.zeros(windows, np.int8)
    label_B[np.random.default_rng(1).choice(windows, positives, replace=False)] = 1
    return 100 + 3 * np.arange(windows), label_B


def test_rare_windows_are_all_taken_and_the_rest_stands_for_the_others() -> None:
    ends_B, label_B = part(500_000, 2000)
    chosen_B, weight_B = thin(ends_B, label_B, 32_768)
    taken_B = label_B[(chosen_B - 100) // 3]
    assert weight_B is not None
    assert len(chosen_B) == 32_768
    assert (np.diff(chosen_B) > 0).all()
    assert set(weight_B[taken_B == 1]) == {1.0}
    assert set(weight_B[taken_B == 0]) == {498_000 / 30_768}
    assert in_words(taken_B, weight_B) == (
        "2,000 of 2,000 with an opportunity, 30,768 of 498,000 without, weighted"
    )
    steps = np.diff(chosen_B[taken_B == 0]) / 3
    assert steps.max() - steps.min() <= 4, "an even stride, but for the windows of the other class"


def test_a_rare_class_of_more_than_half_of_the_limit_is_thinned_too() -> None:
    ends_B, label_B = part(400_000, 8000)
    chosen_B, weight_B = thin(ends_B, label_B, 8192)
    taken_B = label_B[(chosen_B - 100) // 3]
    assert weight_B is not None
    assert [int((taken_B == value).sum()) for value in (0, 1)] == [4096, 4096]
    assert set(weight_B[taken_B == 1]) == {8000 / 4096}


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5000), st.data(), st.integers(1, 4000))
def test_weights_add_up_to_the_windows_of_each_class(
    windows: int, data: st.DataObject, limit: int
) -> None:
    ends_B, label_B = part(windows, data.draw(st.integers(0, windows)))
    chosen_B, weight_B = thin(ends_B, label_B, limit)
    taken_B = label_B[(chosen_B - 100) // 3]
    assert len(chosen_B) == min(windows, limit)
    if weight_B is None:
        np.testing.assert_array_equal(chosen_B, strided(ends_B, limit))
        return
    assert (weight_B >= 1).all()
    for value in (0, 1):
        assert weight_B[taken_B == value].sum() == pytest.approx((label_B == value).sum())


@pytest.mark.parametrize(
    ("windows", "positives", "limit"),
    [
        (20_000, 40, 20_000),  # all windows are taken
        (100_000, 7000, 32_768),  # the stride leaves more than 2,000
        (100_000, 40_000, 500),  # few windows, but not of one class
        (100_000, 0, 8192),
        (100_000, 900, 399),  # no sample of it could be judged
    ],
)
def test_an_even_stride_is_kept_where_it_leaves_enough(
    windows: int, positives: int, limit: int
) -> None:
    ends_B, label_B = part(windows, positives)
    for labels_B in (label_B, 1 - label_B):
        chosen_B, weight_B = thin(ends_B, labels_B, limit)
        assert weight_B is None
        np.testing.assert_array_equal(chosen_B, strided(ends_B, limit))
    assert FEW == 2000


def test_without_weights_there_is_nothing_to_say() -> None:
    label_B = np.array([0, 1])
    assert in_words(label_B, None) == ""
    assert unseen(label_B, None) == 0.0
    assert moved(None, label_B, label_B) is None


def test_weights_move_with_the_labels() -> None:
    found = moved(np.array([9.0, 9.0, 1.0]), np.array([0, 0, 1]), np.array([1, 0, 0]))
    assert found is not None
    assert found.tolist() == [1.0, 9.0, 9.0]
