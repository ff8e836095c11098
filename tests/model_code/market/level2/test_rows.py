"""The table of depth rows: read back as written, unfit rows left out and counted."""

import numpy as np
import pyarrow as pa
import pytest

from model_code.errors import DataError, SchemaError
from model_code.market.level2.rows import COLUMNS, LEVELS, DepthRows, read_rows, to_table
from tests.support.frames import depth_rows
from tests.support.market import ticks


def rows() -> DepthRows:
    return depth_rows(ticks(40), every=1)


def test_written_and_read_back() -> None:
    table = to_table(rows())
    assert table.column_names == ["timestamp", *COLUMNS]
    assert table["ask_price_9"].null_count > 0
    found = read_rows(table, "file")
    assert found.notes == ()
    np.testing.assert_array_equal(found.timestamp_N, rows().timestamp_N)
    for part_NL, expected_NL in zip(found.levels, rows().levels, strict=True):
        assert part_NL.shape == (40, LEVELS)
        np.testing.assert_array_equal(part_NL, expected_NL)


@pytest.mark.parametrize(
    ("part", "level", "value"),
    [
        (0, 0, np.nan),  # no bid
        (0, 0, np.inf),
        (2, 0, 1.0),  # crossed
        (0, 3, 1e6),  # not sorted
        (2, 4, np.nan),  # a hole
        (1, 2, 0.0),
        (3, 2, np.nan),
        (3, 5, np.inf),
    ],
)
def test_a_row_that_is_no_book_is_left_out_and_counted(part: int, level: int, value: float) -> None:
    broken = rows()
    broken.levels[part][[3, 7], level] = value
    found = read_rows(to_table(broken), "file")
    assert found.notes == ("depth rows left out, not a book: 2",)
    np.testing.assert_array_equal(found.timestamp_N, np.delete(rows().timestamp_N, [3, 7]))


def test_a_row_whose_clock_goes_back_is_left_out_and_counted() -> None:
    broken = rows()
    broken.timestamp_N[5] -= 10**12
    found = read_rows(to_table(broken), "file")
    assert found.notes == ("depth rows left out, out of time order: 1",)
    assert (np.diff(found.timestamp_N) >= 0).all()
    assert len(found.timestamp_N) == 39


def test_missing_columns_wrong_types_and_null_stamps_are_errors() -> None:
    table = to_table(rows())
    with pytest.raises(SchemaError, match="column 'ask_size_9' is missing"):
        read_rows(table.drop_columns(["ask_size_9"]), "file")
    text = pa.array(["x"] * 40)
    with pytest.raises(SchemaError, match="column 'bid_price_0' has the wrong type"):
        read_rows(table.set_column(1, "bid_price_0", text), "file")
    null = pa.array([None] * 40, pa.timestamp("ns", "UTC"))
    with pytest.raises(DataError, match="40 nulls"):
        read_rows(table.set_column(0, "timestamp", null), "file")
