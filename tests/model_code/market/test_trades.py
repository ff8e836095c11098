import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model_code.errors import DataError, SchemaError
from model_code.market.notes import TradeNotes
from model_code.market.schema import moment
from model_code.market.trades import Trades, prepare, warnings

NS = pa.timestamp("ns", "UTC")
NAN = math.nan


def make_quotes(times: list[int], bid: list[float], ask: list[float]) -> pa.Table:
    return pa.table(
        {
            "timestamp": pa.array(times, pa.int64()).cast(NS),
            "bid_price": pa.array(bid, pa.float64()),
            "ask_price": pa.array(ask, pa.float64()),
        }
    )


def make_trades(
    times: list[int], price: list[Any], size: list[Any] | None = None, **more: list[Any]
) -> pa.Table:
    columns: dict[str, Any] = {
        "timestamp": pa.array(times, pa.int64()).cast(NS),
        "price": pa.array(price, pa.float64()),
        "size": pa.array(size or [1.0] * len(times), pa.float64()),
    }
    return pa.table(columns | more)


QUOTES = make_quotes([10, 20, 30], [99.0] * 3, [101.0] * 3)


def usable(
    trades: pa.Table, quotes: pa.Table = QUOTES, band_bps: float = 200.0
) -> tuple[Trades, TradeNotes]:
    return prepare(trades, quotes, "trades", band_bps=band_bps)


@pytest.mark.parametrize("name", ["trade_id", "id"])
def test_a_trade_with_an_id_seen_before_is_used_once(name: str) -> None:
    ids = {name: [1, 2, 1, None, None, 2]}
    found, notes = usable(make_trades([10, 11, 12, 13, 14, 15], [100.0] * 6, **ids))
    assert found.time_ns.tolist() == [10, 11, 13, 14]
    assert (notes.rows, notes.repeated) == (6, 2)


def test_trade_id_counts_before_id() -> None:
    found, notes = usable(make_trades([10, 11], [100.0] * 2, id=[1, 1], trade_id=["a", "b"]))
    assert (len(found.time_ns), notes.repeated) == (2, 0)


@pytest.mark.parametrize(
    ("price", "size"),
    [
        (NAN, 1.0),
        (None, 1.0),
        (math.inf, 1.0),
        (0.0, 1.0),
        (-100.0, 1.0),
        (100.0, NAN),
        (100.0, None),
        (100.0, math.inf),
        (100.0, -1.0),
        (NAN, 0.0),
    ],
)
def test_a_price_or_size_that_is_not_positive_and_finite_is_bad(price: Any, size: Any) -> None:
    found, notes = usable(make_trades([11, 12], [price, 100.0], [size, 2.0]))
    assert found.size.tolist() == [2.0]
    assert (notes.rows, notes.bad, notes.empty) == (2, 1, 0)
    assert (notes.first, notes.last) == (moment(11), moment(12))


def test_a_trade_of_size_0_is_empty_and_not_bad() -> None:
    found, notes = usable(make_trades([11, 12], [100.0, 100.0], [0.0, 2.0]))
    assert found.time_ns.tolist() == [12]
    assert (notes.bad, notes.empty) == (0, 1)


def test_a_trade_without_its_flag_is_bad() -> None:
    trades = make_trades([11, 12], [100.0, 100.0], buyer_is_maker=[None, True])
    found, notes = usable(trades)
    assert (found.sell.tolist(), notes.bad) == ([True], 1)


def test_a_price_further_off_the_quotes_than_the_band_is_bad() -> None:
    fine = make_quotes([10, 20], [99.99, 99.99], [100.01, 100.01])  # 2 bps
    price = [99.99 * 0.9989, 99.99 * 0.9991, 100.01 * 1.0009, 100.01 * 1.0011]
    found, notes = usable(make_trades([11, 12, 13, 14], price), fine, band_bps=10.0)
    assert found.time_ns.tolist() == [12, 13]
    assert notes.bad == 2


def test_up_to_five_tightest_spreads_off_the_quotes_is_not_bad_where_the_tick_is_coarse() -> None:
    coarse = make_quotes([10, 20], [99.5, 99.5], [100.5, 100.5])  # 100 bps
    price = [99.5 * 0.949, 99.5 * 0.951, 100.5 * 1.049, 100.5 * 1.051]
    found, notes = usable(make_trades([11, 12, 13, 14], price), coarse, band_bps=10.0)
    assert found.time_ns.tolist() == [12, 13]
    assert notes.bad == 2


def test_a_trade_just_before_the_quote_that_it_moved_is_not_bad() -> None:
    moved = make_quotes([10, 20, 30], [99.99, 104.99, 104.99], [100.01, 105.01, 105.01])
    found, notes = usable(make_trades([11, 21, 22], [105.0, 105.0, 100.0]), moved, band_bps=10.0)
    assert found.time_ns.tolist() == [11, 21]
    assert notes.bad == 1


def test_quotes_that_are_not_two_sided_or_not_in_order_do_not_judge_trades() -> None:
    odd = make_quotes(
        [10, 11, 12, 99, 20], [99.0, NAN, 500.0, 500.0, 99.0], [101.0, 1.0, 400.0, 501.0, 101.0]
    )
    found, _ = usable(make_trades([13, 14], [100.0, 500.0]), odd)
    assert found.time_ns.tolist() == [13]


def test_the_flag_says_who_the_aggressor_was() -> None:
    trades = make_trades([12, 11], [99.0, 101.0], buyer_is_maker=[False, True])
    found, notes = usable(trades)
    assert found.time_ns.tolist() == [11, 12]
    assert found.sell.tolist() == [True, False]
    assert (notes.bought, notes.sold, notes.aggressor) == (1, 1, "flag")


@pytest.mark.parametrize(
    ("prices", "sold"),
    [
        ([100.5, 99.5], [False, True]),  # above and below the mid
        ([100.0], [False]),  # at the mid, no change of price before
        ([99.5, 100.0], [True, False]),  # at the mid after an up tick
        ([99.5, 100.0, 100.0], [True, False, False]),  # zero tick after an up tick
        ([100.5, 100.0], [False, True]),  # at the mid after a down tick
        ([100.5, 100.0, 100.0], [False, True, True]),  # zero tick after a down tick
        ([100.6, 100.5], [False, False]),  # a down tick above the mid
    ],
)
def test_lee_ready_compares_with_the_mid_and_then_with_the_last_price(
    prices: list[float], sold: list[bool]
) -> None:
    found, notes = usable(make_trades(list(range(11, 11 + len(prices))), prices))
    assert found.sell.tolist() == sold
    assert (notes.bought, notes.sold) == (sold.count(False), sold.count(True))
    assert notes.aggressor == "Lee-Ready"


def test_lee_ready_uses_the_quote_strictly_before_the_trade() -> None:
    quotes = make_quotes([10, 20], [99.0, 101.0], [101.0, 103.0])  # mids 100 and 102
    found, _ = usable(make_trades([20, 21], [101.0, 101.0]), quotes)
    assert found.sell.tolist() == [False, True]


def test_lee_ready_finds_a_price_at_the_mid_in_spite_of_rounding() -> None:
    """(bid + ask) / 2 is not the nearest number to the mid's decimal text."""
    cents = [cent for cent in range(10_000, 20_000) if (cent / 100 + (cent + 4) / 100) / 2
             != (cent + 2) / 100]  # fmt: skip
    assert cents
    for cent in cents[:20]:
        bid, mid, ask = cent / 100, (cent + 2) / 100, (cent + 4) / 100
        quotes = make_quotes([10, 20], [bid] * 2, [ask] * 2)
        for before, sold in ((bid, False), (ask, True)):
            found, _ = usable(make_trades([11, 12], [before, mid]), quotes)
            assert found.sell.tolist()[1] == sold


def test_lee_ready_without_quotes_uses_the_last_change_of_price() -> None:
    trades = make_trades([1, 2, 3, 4, 5, 6], [5.0, 5.0, 6.0, 6.0, 5.0, 5.0])
    found, notes = usable(trades, make_quotes([], [], []))
    assert found.sell.tolist() == [False, False, False, False, True, True]
    assert (notes.outside, notes.bad) == (6, 0)


def test_outside_counts_trades_before_the_first_and_after_the_last_row() -> None:
    trades = make_trades([5, 10, 30, 31], [100.0] * 4)
    found, notes = usable(trades)
    assert found.time_ns.tolist() == [5, 10, 30, 31]
    assert notes.outside == 2
    stray = make_quotes([10, 10**9, 20, 30], [99.0] * 4, [101.0] * 4)
    assert usable(trades, stray)[1].outside == 2


def test_trades_are_put_in_the_order_of_time_and_of_sequence_at_one_stamp() -> None:
    trades = make_trades([12, 11, 11], [1.0, 2.0, 3.0], [1, 2, 3], sequence=[7, 9, 8])
    found, _ = usable(trades, band_bps=1e9)
    assert found.price.tolist() == [3.0, 2.0, 1.0]
    assert found.sequence.tolist() == [8, 9, 7]
    without, _ = usable(trades.drop_columns(["sequence"]), band_bps=1e9)
    assert without.price.tolist() == [2.0, 3.0, 1.0]  # as in the file
    assert without.sequence.tolist() == []


def test_a_null_sequence_number_is_the_last_of_its_stamp_and_leaves_the_others_exact() -> None:
    trades = make_trades([11, 11], [1.0, 2.0], sequence=[None, 2**60 + 1])
    found, _ = usable(trades, band_bps=1e9)
    assert found.sequence.dtype == np.int64
    assert found.price.tolist() == [2.0, 1.0]
    assert found.sequence[0] == 2**60 + 1


def test_no_trades_are_counted_as_none() -> None:
    found, notes = usable(make_trades([], []))
    assert len(found.time_ns) == 0
    assert (notes.rows, notes.first, notes.last) == (0, None, None)


def test_a_missing_column_and_a_null_time_are_refused() -> None:
    with pytest.raises(SchemaError, match="'price' is missing"):
        usable(make_trades([1], [1.0]).drop_columns(["price"]))
    trades = make_trades([1], [1.0]).set_column(0, "timestamp", pa.array([None], NS))
    with pytest.raises(DataError, match="'timestamp' has 1 null"):
        usable(trades)


START = dt.datetime(2024, 8, 8, 9, tzinfo=dt.UTC)
ROWS = (START, START + dt.timedelta(hours=8))


def notes(bought: int, sold: int, hours: float = 8.0, start: float = 0.0) -> TradeNotes:
    first = START + dt.timedelta(hours=start)
    return TradeNotes(
        rows=bought + sold,
        repeated=0,
        empty=0,
        bad=0,
        outside=0,
        first=first,
        last=first + dt.timedelta(hours=hours),
        bought=bought,
        sold=sold,
        aggressor="flag",
    )


def test_thirty_trades_of_one_side_are_a_warning() -> None:
    assert list(warnings(notes(30, 0), ROWS)) == [
        "all 30 trades were bought by the aggressor: check buyer_is_maker"
    ]
    assert list(warnings(notes(0, 1234), ROWS)) == [
        "all 1,234 trades were sold by the aggressor: check buyer_is_maker"
    ]
    assert list(warnings(notes(29, 0), ROWS)) == []
    assert list(warnings(notes(30, 1), ROWS)) == []


def test_trades_that_cover_less_than_half_of_the_quotes_hours_are_a_warning() -> None:
    assert list(warnings(notes(20, 20, hours=2), ROWS)) == [
        "trades from 09:00:00 to 11:00:00 UTC cover 25% of the quotes' 09:00:00 to 17:00:00"
    ]
    assert list(warnings(notes(20, 20, hours=4), ROWS)) == []
    assert list(warnings(notes(20, 20, hours=8, start=-5), ROWS)) == [
        "trades from 04:00:00 to 12:00:00 UTC cover 38% of the quotes' 09:00:00 to 17:00:00"
    ]
    assert "cover 0% of" in next(warnings(notes(20, 20, hours=8, start=9), ROWS))
    assert list(warnings(notes(14, 15, hours=2), ROWS)) == []
    assert list(warnings(notes(20, 20, hours=2), None)) == []


def test_a_flag_of_0_and_1_is_read_and_other_integers_are_refused() -> None:
    flag = {"buyer_is_maker": pa.array([1, 0, None], pa.int64())}
    found, notes = usable(make_trades([11, 12, 13], [100.0] * 3, **flag))
    assert found.sell.tolist() == [True, False]
    assert (notes.aggressor, notes.bad) == ("flag", 1)
    with pytest.raises(SchemaError, match="buyer_is_maker"):
        usable(make_trades([11, 12], [100.0] * 2, buyer_is_maker=[1, 2]))
