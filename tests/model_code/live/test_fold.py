"""The live join against the join of a whole day, bit for bit."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from model_code.features.batch import tick_records
from model_code.live.fold import DAY_NS, Join, Row
from model_code.live.messages import Quote, Tick
from model_code.live.reasons import Reason
from model_code.live.recorded import Feed, PlayedDay
from model_code.market import join
from model_code.market.notes import DayNotes
from model_code.market.schema import InstrumentDay
from tests.support.live import NOON, quote, trade
from tests.support.market import DATES, SYMBOLS

NS = pa.timestamp("ns", "UTC")
DAY = InstrumentDay(DATES[0], SYMBOLS[0])
STEP = st.sampled_from([0, 0, 1, 1_000_000, 7_000_000_000])
PRICE = st.sampled_from([99.97, 100.0, 100.025, 100.05, 100.1])
SIZE = st.sampled_from([0.1, 0.3, 1.0, 1e6])


def rows(ticks: list[Tick]) -> list[Row | Reason | None]:
    live = Join(math.inf)
    return [live.quote(one) if isinstance(one, Quote) else live.trade(one) for one in ticks]


def only(ticks: list[Tick]) -> list[Row]:
    return [one for one in rows(ticks) if isinstance(one, Row)]


def bits(values: Any) -> Any:
    """Arrays that are equal only bit for bit, every NaN alike."""
    found = np.asarray(values, np.float64)
    return np.where(np.isnan(found), np.nan, found).view(np.int64).tolist()


@st.composite
def day(draw: st.DrawFn) -> tuple[pa.Table, pa.Table]:
    """Quotes and trades of a day, several of one stamp; sometimes with the source's numbers."""
    n, m = draw(st.integers(1, 12)), draw(st.integers(0, 15))
    time = np.cumsum([draw(STEP) for _ in range(n)]) + NOON
    when = np.sort(
        draw(st.lists(st.sampled_from([*time, NOON - 5, NOON + 3]), min_size=m, max_size=m))
    )
    quotes = {
        "timestamp": pa.array(time, NS),
        "bid_price": [draw(PRICE) for _ in range(n)],
        "ask_price": [draw(PRICE) + 0.01 for _ in range(n)],
        "bid_size": pa.array([draw(st.none() | SIZE) for _ in range(n)], pa.float64()),
        "ask_size": pa.array([draw(st.none() | SIZE) for _ in range(n)], pa.float64()),
    }
    trades: dict[str, Any] = {
        "timestamp": pa.array(when.astype(np.int64), NS),
        "price": pa.array([draw(PRICE) for _ in range(m)], pa.float64()),
        "size": pa.array([draw(SIZE) for _ in range(m)], pa.float64()),
    }
    if draw(st.booleans()):
        trades["buyer_is_maker"] = pa.array([draw(st.booleans()) for _ in range(m)], pa.bool_())
    if draw(st.booleans()):
        number = np.array(draw(st.permutations(range(n + m))))
        order = np.lexsort((number, np.append(time, when)))
        rank = np.empty(n + m, np.int64)
        rank[order] = np.arange(n + m)
        quotes["sequence"] = rank[:n][np.lexsort((rank[:n], time))]
        trades["sequence"] = rank[n:]
    return pa.table(quotes), pa.table(trades)


@settings(max_examples=150)
@given(day(), st.booleans())
def test_rows_equal_those_of_the_whole_day(
    tables: tuple[pa.Table, pa.Table], classified: bool
) -> None:
    quotes, trades = tables
    notes, where = DayNotes(), "here"
    loaded = join.load(
        quotes, trades, SYMBOLS[0], notes, where=where, trades_where=where, trade_band_bps=1e9
    )
    messages = list(Feed().messages([PlayedDay(DAY, quotes, loaded.trades, loaded.ticks, {})]))
    if classified and "buyer_is_maker" not in trades.column_names:
        messages = [
            one if isinstance(one, Quote) else replace(one, buyer_is_maker=None) for one in messages
        ]
    live = Join(math.inf)
    found = []
    for one in messages:
        if isinstance(one, Quote):
            live.quote(one)
            # a repeat has a row too: the day's join leaves it to validation
            session = live.dump()
            found.append((session.previous_ns, *session.previous))
        else:
            assert live.trade(one) is None
    expected = tick_records(loaded.ticks.combine_chunks().to_batches()[0])
    names = ("timestamp", *list(expected.dtype.names or ())[1:8])
    for place, name in enumerate(names):
        assert bits([row[place] for row in found]) == bits(expected[name]), name


def test_a_trade_of_the_same_stamp_counts_in_the_next_row_whichever_came_first() -> None:
    one: list[Tick] = [quote(1), trade(2, 5), quote(3, 5)]
    other: list[Tick] = [quote(1), quote(2, 5), trade(3, 5)]
    for ticks in (one, other):
        found = only([*ticks, quote(4, 6)])
        assert [row.trade_count for row in found] == [0, 0, 1]
        assert math.isnan(found[1].last_trade)
        assert (found[2].last_trade, found[2].vwap, found[2].buy_volume) == (100.02, 100.02, 1.0)


def test_the_source_s_numbers_decide_within_a_stamp() -> None:
    found = only(
        [
            quote(1, source_sequence=1),
            trade(2, 5, source_sequence=4, price=100.0),
            trade(3, 5, source_sequence=2, price=101.0),
            quote(4, 5, source_sequence=3),
            quote(5, 6, source_sequence=5),
        ]
    )
    assert [row.last_trade for row in found[1:]] == [101.0, 100.0]


def test_a_new_date_begins_a_new_session() -> None:
    day_ms = DAY_NS / 1e6
    found = only([quote(1), trade(2), trade(3, day_ms), quote(4, day_ms + 5)])
    assert (found[1].trade_count, found[1].vwap) == (0, 100.02)  # before the date's first row
    assert rows([quote(1, day_ms), trade(2)])[1] is Reason.LATE
    assert rows([trade(1, day_ms), quote(2)])[1] is Reason.LATE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"price": math.nan}, Reason.TRADE_BAD),
        ({"price": 0.0}, Reason.TRADE_BAD),
        ({"price": math.inf}, Reason.TRADE_BAD),
        ({"size": -1.0}, Reason.TRADE_BAD),
        ({"size": math.nan}, Reason.TRADE_BAD),
        ({"size": 0.0}, Reason.TRADE_EMPTY),
        ({"price": 103.0}, Reason.TRADE_OFF_QUOTES),
        ({"price": 97.0}, Reason.TRADE_OFF_QUOTES),
        ({"price": 101.0}, None),
    ],
)
def test_unusable_trades_leave_no_trace(changes: dict[str, Any], expected: Reason | None) -> None:
    live = Join(200.0)
    live.quote(quote(1))
    assert live.trade(trade(2, 1, **changes)) is expected
    row = live.quote(quote(3, 2))
    assert isinstance(row, Row)
    assert row.trade_count == (expected is None)
    assert math.isnan(row.vwap) == (expected is not None)


def test_a_row_like_the_one_above_is_a_repeat_unless_something_traded() -> None:
    same: dict[str, Any] = {
        "bid_price": 100.0,
        "ask_price": 100.1,
        "bid_size": None,
        "ask_size": 1.0,
    }
    first = quote(1, **same)
    assert rows([first, quote(2, **same)])[1] is Reason.REPEAT
    assert isinstance(rows([first, quote(2, 1, **same)])[1], Row)
    assert isinstance(rows([first, quote(2, **(same | {"ask_size": None}))])[1], Row)


def test_the_desk_s_own_values_are_used_also_where_it_has_none() -> None:
    own: dict[str, Any] = {"last_trade": 1.0, "vwap": math.nan, "feature_ema_1min": 0.25}
    row = only([quote(1), trade(2), quote(3, 5, **own)])[1]
    assert (row.last_trade, row.feature_ema_1min, row.trade_count) == (1.0, 0.25, 1)
    assert math.isnan(row.vwap)


def test_sizes_that_cancel_do_not_stop_the_join() -> None:
    for sizes in ((0.0, 0.0), (1.0, -1.0), (math.inf, math.inf)):
        found = only([quote(1, bid_size=sizes[0], ask_size=sizes[1]), quote(2, 5)])
        assert len(found) == 2
