import math

import numpy as np
import pyarrow as pa
import pytest

from model_code.errors import DataError, SchemaError
from model_code.market.schema import TICKS, conform
from tests.support.market import ticks


def replace(table, name, column):
    return table.set_column(table.column_names.index(name), name, column)


def test_conform_restores_order_and_types():
    table = ticks(20)
    shuffled = table.select(sorted(table.column_names))
    shuffled = replace(shuffled, "trade_count", shuffled["trade_count"].cast(pa.int64()))
    assert conform(shuffled, "here").equals(table)


def test_null_prices_become_nan_for_validation():
    table = ticks(3)
    out = conform(replace(table, "bid_price", pa.array([1.0, None, 2.0])), "here")
    assert math.isnan(out["bid_price"][1].as_py())
    assert out["bid_price"].null_count == 0


@pytest.mark.parametrize("name", TICKS.names)
def test_a_missing_column_is_named(name):
    with pytest.raises(SchemaError, match=f"column '{name}' is missing") as caught:
        conform(ticks(3).drop_columns([name]), "file.parquet")
    assert caught.value.where == "file.parquet"


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("bid_price", pa.array(["1.5", "2", "3"])),
        ("timestamp", pa.array([1, 2, 3], pa.int64())),
        ("timestamp", pa.array([1, 2, 3], pa.timestamp("ns"))),
        ("symbol", pa.array([1, 2, 3])),
        ("label", pa.array([0.5, 1.0, 0.0])),
        ("label", pa.array([0, 1, 300])),
        ("trade_count", pa.array([True, False, True])),
    ],
)
def test_a_wrong_type_is_named_with_expected_and_found(name, column):
    with pytest.raises(
        SchemaError, match=f"column '{name}' has the wrong type: expected"
    ) as caught:
        conform(replace(ticks(3), name, column), "here")
    assert f"found {column.type}" in caught.value.what


def test_nulls_in_required_columns_are_refused():
    with pytest.raises(DataError, match="'trade_count' has 1 nulls"):
        conform(replace(ticks(2), "trade_count", pa.array([None, 1], pa.int32())), "here")


def test_dictionary_columns_and_other_time_zones_are_accepted():
    table = ticks(3)
    out = replace(table, "symbol", table["symbol"].dictionary_encode())
    out = replace(
        out, "timestamp", table["timestamp"].cast(pa.timestamp("us", "Europe/Paris"), safe=False)
    )
    out = conform(out, "here")
    assert out["symbol"].equals(table["symbol"])
    micro = np.asarray(table["timestamp"].cast(pa.int64())) // 1000
    assert np.array_equal(np.asarray(out["timestamp"].cast(pa.int64())) // 1000, micro)
