"""A column of many files against one array of the same rows."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.features.column import ShardedColumn

ROWS = (7, 0, 1, 40, 0)


@pytest.fixture(params=[True, False], ids=["open", "closed"])
def stays_open(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def column(folder: Path, stays_open: bool) -> tuple[ShardedColumn, NDArray[np.float32]]:
    rng, paths, parts = np.random.default_rng(1), [], []
    for number, rows in enumerate(ROWS):
        parts.append(rng.normal(size=(rows, 3)).astype(np.float32))
        paths.append(folder / f"{number}.npy")
        np.save(paths[-1], parts[-1])
    return ShardedColumn(paths, stays_open=stays_open), np.concatenate(parts)


def test_slices_and_row_numbers_give_the_rows_of_the_one_array(
    tmp_path: Path, stays_open: bool
) -> None:
    found, whole = column(tmp_path, stays_open)
    assert (found.shape, found.ndim, len(found)) == ((48, 3), 2, 48)
    assert found.dtype == np.float32
    rng = np.random.default_rng(2)
    wanted: list[Any] = [
        *(slice(a, b) for a in range(-50, 50, 3) for b in range(-50, 60, 7)),
        slice(None),
        rng.integers(-48, 48, 500),
        rng.integers(0, 48, (20, 64)),
        np.arange(48, dtype=np.int32),
        np.empty(0, np.int64),
    ]
    for rows in wanted:
        expected = whole[rows]
        assert found[rows].dtype == expected.dtype
        np.testing.assert_array_equal(found[rows], expected)
    np.testing.assert_array_equal(np.asarray(found), whole)
    assert np.asarray(found, np.float64).dtype == np.float64


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.array([48]), IndexError),
        (np.array([-49]), IndexError),
        (slice(0, 9, 2), TypeError),
        (np.ones(48, bool), TypeError),
        (3, TypeError),
        ((np.array([1]), 0), TypeError),
    ],
)
def test_what_is_not_rows_is_refused(
    tmp_path: Path, stays_open: bool, rows: Any, error: type[Exception]
) -> None:
    found, _ = column(tmp_path, stays_open)
    with pytest.raises(error):
        found[rows]
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(found, copy=False)


def test_rows_are_read_from_mapped_files(tmp_path: Path) -> None:
    found, _ = column(tmp_path, stays_open=True)
    base: Any = found[8:40]
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.base
    assert isinstance(base, mmap.mmap)


def test_a_closed_column_keeps_no_file_open(tmp_path: Path) -> None:
    def held() -> int:
        return sum(
            str(tmp_path) in str(link.readlink())
            for link in Path("/proc/self/fd").iterdir()
            if link.is_symlink()
        )

    closed, _ = column(tmp_path, stays_open=False)
    assert closed[np.arange(48)].shape == (48, 3)
    assert held() == 0
    _kept, _ = column(tmp_path, stays_open=True)
    assert held() == len(ROWS)
