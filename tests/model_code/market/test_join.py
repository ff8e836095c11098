import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.errors import DataError, SchemaError
from model_code.market.join import decayed_average, fold
from model_code.market.schema import TICKS

NS = pa.timestamp("ns", "UTC")


def make_quotes(times, size=1.0):
    n = len(times)
    return pa.table(
        {
            "timestamp": pa.array(times, pa.int64()).cast(NS),
            "bid_price": np.full(n, 99.0),
            "ask_price": np.full(n, 101.0),
            "bid_size": np.full(n, size),
            "ask_size": np.full(n, 3.0),
        }
    )


def make_trades(times, prices, sizes, sells):
    return pa.table(
        {
            "timestamp": pa.array(times, pa.int64()).cast(NS),
            "price": pa.array(prices, pa.float64()),
            "size": pa.array(sizes, pa.float64()),
            "buyer_is_maker": pa.array(sells, pa.bool_()),
        }
    )


def test_trades_fold_backward_with_ties_included():
    trades = make_trades(
        [30, 10, 20, 20], [103, 101, 102, 98], [4, 1, 2, 8], [True, False, True, False]
    )
    out = fold(make_quotes([5, 10, 20, 25]), trades, "X.y", "here")
    assert out.schema == TICKS
    assert out["symbol"].to_pylist() == ["X.y"] * 4
    assert out["last_trade"].to_pylist() == [None, 101, 98, 98]
    assert out["buy_volume"].to_pylist() == [0, 1, 8, 0]
    assert out["sell_volume"].to_pylist() == [0, 0, 2, 0]
    assert out["trade_count"].to_pylist() == [0, 1, 2, 0]
    vwap = (101 + 2 * 102 + 8 * 98) / 11
    assert out["vwap"].to_pylist() == pytest.approx([None, 101, vwap, vwap])


def test_first_row_counts_all_trades_up_to_itself():
    out = fold(make_quotes([100]), make_trades([1, 2], [5, 6], [1, 1], [True, True]), "X", "here")
    assert out["trade_count"].to_pylist() == [2]


def test_without_trades_prices_are_null_and_volumes_zero():
    out = fold(make_quotes([1, 2]), None, "X", "here")
    assert out["last_trade"].null_count == out["vwap"].null_count == 2
    assert out["buy_volume"].to_pylist() == [0, 0]


def test_empty_quotes_and_empty_trades():
    none = make_trades([], [], [], [])
    assert fold(make_quotes([]), none, "X", "here").num_rows == 0
    assert fold(make_quotes([1]), none, "X", "here")["last_trade"].to_pylist() == [None]


def test_a_clock_that_goes_back_counts_no_trade_twice():
    trades = make_trades([1, 2, 3], [1, 2, 3], [1, 1, 1], [False] * 3)
    out = fold(make_quotes([2, 1, 3]), trades, "X", "here")
    assert out["trade_count"].to_pylist() == [2, 0, 2]
    assert out["last_trade"].to_pylist() == [2, 1, 3]


def test_an_invalid_trade_affects_only_its_own_rows():
    trades = make_trades([1, 2], [float("nan"), 7.0], [1, 1], [False, False])
    out = fold(make_quotes([1, 2]), trades, "X", "here")
    assert np.isnan(out["last_trade"][0].as_py())
    assert out["last_trade"][1].as_py() == 7.0
    assert out["vwap"].to_pylist() == [None, 7.0]


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=30),
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 9), st.integers(1, 9), st.booleans()),
        max_size=30,
    ),
    st.integers(1, 29),
)
def test_matches_brute_force_and_never_looks_ahead(times, trades, cut):
    times = sorted(times)
    table = make_trades(*(list(column) for column in zip(*trades, strict=True))) if trades else None
    if table is None:
        return
    out = fold(make_quotes(times), table, "X", "here").to_pylist()
    ordered = sorted(trades, key=lambda trade: trade[0])
    for i, row in enumerate(out):
        low = times[i - 1] if i else -1
        mine = [t for t in ordered if low < t[0] <= times[i]]
        known = [t for t in ordered if t[0] <= times[i]]
        assert row["trade_count"] == len(mine)
        assert row["buy_volume"] == pytest.approx(sum(t[2] for t in mine if not t[3]))
        assert row["sell_volume"] == pytest.approx(sum(t[2] for t in mine if t[3]))
        assert row["last_trade"] == (known[-1][1] if known else None)
    # changing later rows changes no earlier row
    cut = min(cut, len(times) - 1)
    later = [t + 1000 for t in times[cut:]]
    altered = [t if t[0] <= times[cut - 1] else (t[0], 777, 777, not t[3]) for t in trades]
    table = make_trades(*(list(column) for column in zip(*altered, strict=True)))
    again = fold(make_quotes(times[:cut] + later), table, "X", "here").to_pylist()
    assert again[:cut] == out[:cut]


def test_imbalance_average_is_polars_ewm_mean_by():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(1, 10**10, 200))
    values = rng.random(200)
    expected = pl.DataFrame({"t": times, "x": values}).select(
        pl.col("x").ewm_mean_by(pl.col("t").cast(pl.Datetime("ns")), half_life="41588830833ns")
    )["x"]  # 60 s * ln 2
    for function in (decayed_average, decayed_average.py_func):
        np.testing.assert_allclose(function(times, values, 60e9), expected.to_numpy(), rtol=1e-9)


def test_imbalance_average_without_sizes_is_null_and_survives_gaps():
    quotes = make_quotes([1, 2]).drop_columns(["bid_size"])
    quotes = quotes.append_column("bid_size", pa.nulls(2, pa.float64()))
    assert fold(quotes, None, "X", "here")["feature_ema_1min"].null_count == 2
    times = np.array([0, 10, 5, 20])
    values = np.array([np.nan, 1.0, 0.0, np.nan])
    np.testing.assert_array_equal(decayed_average.py_func(times, values, 1e9), [np.nan, 1, 1, 1])
    assert decayed_average.py_func(times[:0], values[:0], 1e9).shape == (0,)


def test_null_time_is_refused():
    quotes = make_quotes([1, None])
    with pytest.raises(DataError, match="'timestamp' has 1 null"):
        fold(quotes, None, "X", "here")


def test_missing_trade_column_is_named():
    trades = make_trades([1], [1], [1], [True]).drop_columns(["buyer_is_maker"])
    with pytest.raises(SchemaError, match="'buyer_is_maker' is missing"):
        fold(make_quotes([1]), trades, "X", "here")
