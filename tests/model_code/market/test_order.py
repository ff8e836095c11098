import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.market import order
from model_code.market.order import NONE, Disorder, Order, count_before, in_order


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


def found(times: list[int], size: int) -> Disorder:
    chunks = [stamps(times[at : at + size]) for at in range(0, len(times), size)]
    stream = Order()
    for chunk in chunks:
        stream.add(chunk)
    return stream.find(iter(chunks))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1, 2, 3], {}),
        ([10, 50, 20], {1: 30}),  # ahead of the next
        ([8, 10, 4, 20], {2: 6}),  # behind the one before
        ([30, 10, 20], {0: 20}),  # first
        ([10, 20, 5], {2: 15}),  # last
        ([10, 50, 60, 20, 21, 22], {1: 30, 2: 40}),
        ([10, 20, 30, 25, 26, 40], {2: 5}),
    ],
)
def test_a_row_out_of_order_lies_outside_the_kept_rows_around_it(
    times: list[int], expected: dict[int, int], size: int
) -> None:
    disorder = found(times, size)
    assert dict(zip(disorder.row_K.tolist(), disorder.outside_ns_K.tolist(), strict=True)) == (
        expected
    )


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 12), st.sampled_from([2, 5, 99]))
def test_a_stream_in_chunks_leaves_out_the_rows_that_the_whole_leaves_out(
    times: list[int], size: int, in_memory: int
) -> None:
    kept = in_order(stamps(times))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "IN_MEMORY", in_memory)  # longer parts go to files
        disorder = found(times, size)
    assert disorder.row_K.tolist() == np.flatnonzero(~kept).tolist()
    for row, outside in zip(disorder.row_K.tolist(), disorder.outside_ns_K.tolist(), strict=True):
        before = [t for t, k in zip(times[:row], kept[:row], strict=True) if k][-1:]
        after = [t for t, k in zip(times[row:], kept[row:], strict=True) if k][:1]
        late = [t - times[row] for t in before]
        early = [times[row] - t for t in after]
        assert outside == max([*late, *early, 0]) > 0


def test_rows_of_a_part_are_counted_from_its_start() -> None:
    disorder = Disorder(stamps([3, 5, 9]), stamps([1, 2, 3]))
    part = disorder.within(4, 5)
    assert (part.row_K.tolist(), part.outside_ns_K.tolist()) == ([1], [2])


def test_a_stream_in_order_is_not_read_again() -> None:
    stream = Order()
    for chunk in ([1, 2], [], [2, 3]):
        stream.add(stamps(chunk))
    assert stream.kept

    def chunks() -> Iterator[Any]:
        pytest.fail("read again")
        yield

    assert stream.find(chunks()) is NONE
