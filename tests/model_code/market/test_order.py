import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.market.order import count_before, in_order, outside_neighbours_ns


def stamps(times: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(times, np.int64)


def longest(times: list[int]) -> int:
    """Length of the longest subsequence that never goes back, by trying them all."""
    for length in range(len(times), 0, -1):
        for chosen in itertools.combinations(times, length):
            if list(chosen) == sorted(chosen):
                return length
    return 0


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ([], []),
        ([7], [1]),
        ([1, 1, 2, 2], [1, 1, 1, 1]),
        ([1, 9, 2, 3], [1, 0, 1, 1]),  # one stamp ahead
        ([5, 6, 1, 7], [1, 1, 0, 1]),  # one stamp behind
        ([9, 1, 2, 3], [0, 1, 1, 1]),
        ([1, 2, 3, 0], [1, 1, 1, 0]),
        ([1, 8, 9, 2, 3, 4, 5], [1, 0, 0, 1, 1, 1, 1]),
    ],
)
def test_in_order_leaves_out_the_rows_that_contradict_the_others(
    times: list[int], kept: list[int]
) -> None:
    assert in_order(stamps(times)).astype(int).tolist() == kept


@given(st.lists(st.integers(0, 6), max_size=9))
def test_in_order_keeps_as_many_rows_as_the_longest_sequence(times: list[int]) -> None:
    kept = in_order(stamps(times))
    chosen = stamps(times)[kept].tolist()
    assert chosen == sorted(chosen)
    assert len(chosen) == longest(times)


@given(
    st.lists(st.integers(0, 20), max_size=20).map(sorted),
    st.lists(st.integers(0, 20), max_size=20),
)
def test_count_before_counts_the_strictly_earlier_stamps(
    known: list[int], times: list[int]
) -> None:
    for asked in (times, sorted(times)):
        found = count_before(stamps(known), stamps(asked)).tolist()
        assert found == [sum(one < time for one in known) for time in asked]


@pytest.mark.parametrize(
    ("times", "kept", "expected"),
    [
        ([1, 2, 3], [1, 1, 1], [0, 0, 0]),
        ([10, 50, 20], [1, 0, 1], [0, 30, 0]),  # ahead of the next
        ([10, 4, 20], [1, 0, 1], [0, 6, 0]),  # behind the one before
        ([30, 10, 20], [0, 1, 1], [20, 0, 0]),  # first
        ([10, 20, 5], [1, 1, 0], [0, 0, 15]),  # last
        ([10, 50, 60, 20], [1, 0, 0, 1], [0, 30, 40, 0]),
    ],
)
def test_outside_neighbours_is_the_distance_from_the_kept_rows_around(
    times: list[int], kept: list[int], expected: list[int]
) -> None:
    found = outside_neighbours_ns(stamps(times), np.array(kept, np.bool_))
    assert found.tolist() == expected


@given(st.lists(st.integers(0, 100), max_size=30))
def test_every_row_that_is_not_kept_lies_outside_its_neighbours(times: list[int]) -> None:
    kept = in_order(stamps(times))
    found = outside_neighbours_ns(stamps(times), kept)
    assert ((found > 0) == ~kept).all()
