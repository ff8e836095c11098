"""Windows against the plain definition."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError, ServingError
from model_code.features import windows

T = 64


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1, 30, 63, 64, 65, 130]), max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_valid_ends_are_whole_and_labelled(lengths: list[int], seed: int) -> None:
    segment = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    label = np.random.default_rng(seed).integers(-1, 2, len(segment)).astype(np.int8)
    expected = [
        i
        for i in range(len(segment))
        if i >= T - 1 and (segment[i - T + 1 : i + 1] == segment[i]).all() and label[i] != -1
    ]
    assert windows.valid_ends(segment, label).tolist() == expected


def test_gather_copies_the_rows_up_to_each_end(tmp_path: Path) -> None:
    features = np.arange(200 * 16, dtype=np.float32).reshape(200, 16)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    ends = np.array([63, 199, 100])
    found = windows.gather(mapped, ends)
    assert found.shape == (3, T, 16)
    assert found.dtype == np.float32
    assert type(found) is np.ndarray
    for window, end in zip(found, ends, strict=True):
        assert np.array_equal(window, features[end - T + 1 : end + 1])
    assert windows.gather(mapped, np.array([], np.int64)).shape == (0, T, 16)


@pytest.mark.parametrize("end", [-1, 62, 200])
def test_gather_refuses_ends_without_a_window(end: int) -> None:
    with pytest.raises(DataError, match=f"ends at row {end} of 200"):
        windows.gather(np.zeros((200, 16), np.float32), np.array([100, end]))


def test_weighted_steps_take_the_shares_of_all_windows() -> None:
    rare = np.random.default_rng(1).uniform(size=5000) < 0.5
    weight = np.where(rare, 1.0, 9.0)  # a tenth of the windows they stand for
    found = windows.spread(np.arange(5000), 512, weight)
    assert len(found) == 512
    assert rare[found].mean() == pytest.approx(0.1, abs=0.03)
    even = windows.spread(np.arange(2000), 500, np.ones(2000))
    assert set(np.diff(even)) == {4}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_windows_that_are_not_finite_are_refused_and_named(value: float) -> None:
    x_BTF = np.zeros((3, T, 16), np.float32)
    windows.require_finite(x_BTF)
    x_BTF[1, 63, 4] = x_BTF[2, 0, 0] = value
    with pytest.raises(ServingError, match="NaN or infinity: 2 of 3072 values") as caught:
        windows.require_finite(x_BTF, ServingError, "x.npy")
    assert caught.value.where == "x.npy, window 1, step 63, feature 4"
    with pytest.raises(DataError, match="NaN or infinity"):
        windows.require_finite(x_BTF[1:2, ::-1])  # not contiguous


@pytest.mark.filterwarnings("error")
def test_infinities_that_cancel_are_seen_and_large_finite_values_pass() -> None:
    x_BTF = np.ones((1, T, 16), np.float32)
    x_BTF[0, 0, :2] = np.inf, -np.inf
    with pytest.raises(DataError, match="2 of 1024"):
        windows.require_finite(x_BTF)
    windows.require_finite(np.full((64, T, 16), np.finfo(np.float32).max))
