import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.validation import median
from tasks.validation.median import Median


@given(
    hnp.arrays(
        np.float64,
        st.integers(1, 40),
        elements=st.one_of(
            st.floats(allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52])
        ),
    ),
    st.integers(1, 40),
    st.sampled_from([1, 7, 1 << 18]),
)
def test_it_is_the_median_for_every_size_of_chunk(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], size: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(median, "IN_MEMORY", 8)
        patch.setattr(median, "_CHUNK", chunk)
        found = Median()
        for at in range(0, len(values), size):
            found.add(values[at : at + size])
        with np.errstate(invalid="ignore", over="ignore"):
            np.testing.assert_equal((found.value or 0.0), _middle(values) or 0.0)  # 0 is -0


def _middle(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    ordered = np.sort(values)
    low, high = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    return float(low) if low == high else (float(low) + float(high)) / 2


def test_without_numbers_there_is_none() -> None:
    found = Median()
    assert found.value is None
    found.add(np.empty(0))
    assert found.value is None
