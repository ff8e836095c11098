import datetime as dt
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.errors import DataError, SchemaError
from model_code.market import join
from model_code.market.join import decayed_average, fold
from model_code.market.notes import DayNotes, Loaded
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import open_market
from model_code.market.stream.quotes import resolution
from model_code.market.trades import prepare
from tests.support.market import quotes as quote_columns
from tests.support.market import ticks, write_hive

NS = pa.timestamp("ns", "UTC")
ANY_PRICE = 1e9  # bps


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


def folded(quotes: pa.Table, trades: pa.Table) -> pa.Table:
    usable, _ = prepare(trades, quotes, "trades", band_bps=ANY_PRICE)
    return fold(quotes, usable, "X.y", "here")


def numbered(table: pa.Table, numbers: list[int | None]) -> pa.Table:
    return table.append_column("sequence", pa.array(numbers, pa.int64()))


def test_a_row_counts_the_trades_strictly_before_it_since_the_row_above():
    trades = make_trades(
        [30, 10, 20, 20], [103, 101, 102, 98], [4, 1, 2, 8], [True, False, True, False]
    )
    out = folded(make_quotes([5, 10, 20, 25]), trades)
    assert out.schema == TICKS
    assert out["symbol"].to_pylist() == ["X.y"] * 4
    assert out["last_trade"].to_pylist() == [None, None, 101, 98]
    assert out["buy_volume"].to_pylist() == [0, 0, 1, 8]
    assert out["sell_volume"].to_pylist() == [0, 0, 0, 2]
    assert out["trade_count"].to_pylist() == [0, 0, 1, 2]
    vwap = (101 + 2 * 102 + 8 * 98) / 11
    assert out["vwap"].to_pylist() == pytest.approx([None, None, 101, vwap])


def test_first_row_counts_no_trade_and_remembers_the_price_of_those_before_it():
    out = folded(make_quotes([100, 200]), make_trades([1, 2], [5, 6], [1, 1], [True, True]))
    assert out["trade_count"].to_pylist() == [0, 0]
    assert out["sell_volume"].to_pylist() == [0, 0]
    assert out["last_trade"].to_pylist() == [6, 6]
    assert out["vwap"].to_pylist() == [5.5, 5.5]


def test_without_trades_prices_are_null_and_volumes_zero():
    out = fold(make_quotes([1, 2]), None, "X", "here")
    assert out["last_trade"].null_count == out["vwap"].null_count == 2
    assert out["buy_volume"].to_pylist() == [0, 0]


def test_empty_quotes_and_empty_trades():
    none = make_trades([], [], [], [])
    assert folded(make_quotes([]), none).num_rows == 0
    assert folded(make_quotes([]), make_trades([1], [2], [3], [True])).num_rows == 0
    assert folded(make_quotes([1]), none)["last_trade"].to_pylist() == [None]


def test_a_row_that_its_neighbours_contradict_counts_no_trade():
    trades = make_trades([5, 15, 25, 35], [1, 2, 3, 4], [1, 1, 1, 1], [False] * 4)
    out = folded(make_quotes([10, 30, 20, 40]), trades)
    assert out["trade_count"].to_pylist() == [0, 0, 1, 2]
    assert out["last_trade"].to_pylist() == [1, 3, 2, 4]


def test_an_invalid_trade_reaches_no_row():
    trades = make_trades([2, 3], [float("nan"), 7.0], [1, 1], [False, False])
    out = folded(make_quotes([1, 3, 4]), trades)
    assert out["last_trade"].to_pylist() == [None, None, 7.0]
    assert out["vwap"].to_pylist() == [None, None, 7.0]
    assert out["trade_count"].to_pylist() == [0, 0, 1]


def test_trades_of_the_same_stamp_count_only_with_a_smaller_sequence():
    quotes = numbered(make_quotes([1, 10, 10, 10, 11]), [1, 4, 6, 7, 9])
    trades = make_trades([10, 10, 10], [1, 2, 3], [1, 2, 4], [False] * 3)
    out = folded(quotes, numbered(trades, [5, 6, 8]))
    assert out["buy_volume"].to_pylist() == [0, 0, 1, 2, 4]
    assert out["last_trade"].to_pylist() == [None, None, 1, 2, 3]


@pytest.mark.parametrize("side", ["quotes", "trades", "neither"])
def test_without_a_sequence_in_both_files_trades_of_the_same_stamp_do_not_count(side):
    quotes, trades = make_quotes([1, 10, 11]), make_trades([10], [5], [1], [False])
    if side == "quotes":
        quotes = numbered(quotes, [1, 9, 10])
    if side == "trades":
        trades = numbered(trades, [2])
    assert folded(quotes, trades)["trade_count"].to_pylist() == [0, 0, 1]


def test_a_row_or_trade_without_a_sequence_number_is_not_known_to_be_earlier():
    large = 2**60
    quotes = numbered(make_quotes([1, 10, 10, 11]), [1, None, large + 2, large + 3])
    trades = make_trades([10, 10], [5, 6], [1, 2], [False, False])
    out = folded(quotes, numbered(trades, [large + 1, None]))
    assert out["buy_volume"].to_pylist() == [0, 0, 1, 2]


def test_a_sequence_that_goes_back_at_one_stamp_counts_no_trade_twice():
    quotes = numbered(make_quotes([1, 10, 10, 20]), [1, 9, 4, 11])
    trades = numbered(make_trades([10, 10], [5, 6], [1, 1], [False, False]), [5, 6])
    assert folded(quotes, trades)["trade_count"].to_pylist() == [0, 2, 0, 0]


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
    out = folded(make_quotes(times), table).to_pylist()
    ordered = sorted(trades, key=lambda trade: trade[0])
    for i, row in enumerate(out):
        mine = [t for t in ordered if i and times[i - 1] <= t[0] < times[i]]
        known = [t for t in ordered if t[0] < times[i]]
        assert row["trade_count"] == len(mine)
        assert row["buy_volume"] == pytest.approx(sum(t[2] for t in mine if not t[3]))
        assert row["sell_volume"] == pytest.approx(sum(t[2] for t in mine if t[3]))
        assert row["last_trade"] == (known[-1][1] if known else None)
    # changing later rows, and trades that are not earlier, changes no earlier row
    cut = min(cut, len(times) - 1)
    later = [t + 1000 for t in times[cut:]]
    altered = [t if t[0] < times[cut - 1] else (t[0], 777, 777, not t[3]) for t in trades]
    table = make_trades(*(list(column) for column in zip(*altered, strict=True)))
    again = folded(make_quotes(times[:cut] + later), table).to_pylist()
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
    trades = make_trades([1], [1], [1], [True]).drop_columns(["size"])
    with pytest.raises(SchemaError, match="'size' is missing"):
        folded(make_quotes([1]), trades)


def test_null_trade_time_is_refused():
    with pytest.raises(DataError, match="'timestamp' has 1 null") as caught:
        folded(make_quotes([1]), make_trades([None], [1], [1], [True]))
    assert caught.value.where == "trades"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 2 * 10**9], "1 s"),
        ([0, 3 * 10**8], "100 ms"),
        ([0, 10**6], "1 ms"),
        ([0, 10**3], "1 us"),
        ([0, 1], "1 ns"),
    ],
)
def test_resolution_is_the_coarsest_clock_of_all_stamps(times, expected):
    assert resolution(np.array(times)) == expected


def loaded(quotes: pa.Table, trades: pa.Table | None) -> Loaded:
    return join.load(
        quotes,
        trades,
        "X",
        DayNotes(warnings=("first",)),
        where="quotes",
        trades_where="trades",
        trade_band_bps=200.0,
    )


def test_load_uses_the_sources_own_prices_only_where_there_are_no_trades():
    quotes = make_quotes([0, 10**6])
    for name in ("last_trade", "vwap", "feature_ema_1min"):
        quotes = quotes.append_column(name, pa.array([0.5, 0.25]))
    found = loaded(quotes, None)
    assert found.ticks["last_trade"].to_pylist() == [0.5, 0.25]
    assert found.notes == DayNotes(resolution="1 ms", warnings=("first",))
    assert found.notes.aggressor == "no trades"
    found = loaded(quotes, make_trades([5], [100], [1], [True]))
    assert found.ticks["last_trade"].to_pylist() == [None, 100.0]
    assert found.ticks["vwap"].to_pylist() == [None, 100.0]
    assert found.ticks["feature_ema_1min"].to_pylist() == [0.5, 0.25]
    assert found.notes.aggressor == "flag"


def test_load_adds_the_warnings_of_trades_and_counts_them():
    found = loaded(
        make_quotes([0, 100]), make_trades([5] * 31, [100] * 30 + [1], [1] * 31, [True] * 31)
    )
    assert found.notes.trades is not None
    assert (found.notes.trades.rows, found.notes.trades.bad, found.notes.trades.sold) == (31, 1, 30)
    assert found.notes.warnings[:2] == (
        "first",
        "all 30 trades were sold by the aggressor: check buyer_is_maker",
    )


DATE = dt.date(2024, 8, 8)
LEAK = 5  # the row whose stamp the leaked trade has


def raw_hive(folder: Path, leak: bool) -> str:
    """Quotes and trades with stamps of whole milliseconds; the leaked trade is of row LEAK."""
    table = ticks(10)
    table = table.set_column(0, TICKS.field(0), pa.array(whole_ms(10), NS))
    write_hive(folder, table, "A", DATE)
    quotes = quote_columns(table).drop_columns(["symbol"])
    pq.write_table(quotes, folder / "quotes" / "symbol=A" / f"date={DATE}.parquet")
    rows = [2, LEAK] if leak else [2]
    price = [table["bid_price"][row].as_py() for row in rows]
    trades = make_trades(
        [whole_ms(10)[row] for row in rows], price, [1, 1000][: len(rows)], [True] * len(rows)
    )
    pq.write_table(trades, folder / "trades" / "symbol=A" / f"date={DATE}.parquet")
    return str(folder)


def raw_binance(folder: Path, leak: bool) -> str:
    """The same as archives of CSV."""
    folder.mkdir()
    ms = [time // 10**6 for time in whole_ms(10)]
    quotes = [f"{i},{100 + i % 3},5,{101 + i % 3},6,{time},{time}" for i, time in enumerate(ms)]
    trades = [f"{row},101,{size},1,{ms[row]},true" for row, size in ((2, 1), (LEAK, 1000))]
    for kind, lines in (("bookTicker", quotes), ("trades", trades if leak else trades[:1])):
        with zipfile.ZipFile(folder / f"A-{kind}-{DATE}.zip", "w") as archive:
            archive.writestr("A.csv", "\n".join(lines))
    return str(folder)


def whole_ms(n: int) -> list[int]:
    start = int(dt.datetime(2024, 8, 8, 12, tzinfo=dt.UTC).timestamp()) * 10**9
    return [start + i * 10**6 for i in range(n)]


@pytest.mark.parametrize("write", [raw_hive, raw_binance])
def test_a_trade_of_a_rows_own_millisecond_in_the_raw_files_does_not_reach_the_row(
    write: Any, tmp_path: Path
) -> None:
    found = []
    for leak in (False, True):
        store = open_market(write(tmp_path / str(leak), leak))
        (day,) = store.catalog()
        assert day.date == DATE
        found.append(store.read(InstrumentDay(day.date, day.symbol)).to_pylist())
    without, leaked = found
    assert leaked[: LEAK + 1] == without[: LEAK + 1]
    assert leaked[LEAK + 1]["sell_volume"] == 1000
    assert without[LEAK + 1]["sell_volume"] == 0
