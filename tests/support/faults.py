"""Ticks with planted faults."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from model_code.market.schema import TICKS
from tests.support.market import epoch_ns, ticks

ROWS = 1500


def edit(table: pa.Table, name: str, change: Callable[[list[Any]], None]) -> pa.Table:
    values = table[name].to_pylist()
    if pa.types.is_timestamp(table.schema.field(name).type):
        values = table[name].cast(pa.int64()).to_pylist()
    change(values)
    place = TICKS.get_field_index(name)
    return table.set_column(place, TICKS.field(name), pa.array(values, TICKS.field(name).type))


def put(table: pa.Table, name: str, rows: list[int], value: Any) -> pa.Table:
    def change(values: list[Any]) -> None:
        for row in rows:
            values[row] = value(values[row]) if callable(value) else value

    return edit(table, name, change)


def repeat(table: pa.Table, rows: list[int]) -> pa.Table:
    order = sorted([*range(table.num_rows), *rows])
    return table.take(pa.array(order, pa.int64()))


def scale(table: pa.Table, rows: list[int], factor: float) -> pa.Table:
    for name in ("bid_price", "ask_price", "last_trade"):
        table = put(table, name, rows, lambda value: value * factor)
    return table


# reason -> a table with that fault, and no other, on as many rows as given
PLANTED: dict[str, tuple[pa.Table, int]] = {
    "missing_timestamp": (put(ticks(ROWS), "timestamp", [0, 7], None), 2),
    "wrong_symbol": (put(put(ticks(ROWS), "symbol", [1], "X"), "symbol", [4], None), 2),
    "missing_bid": (
        put(put(ticks(ROWS), "bid_price", [5, 9], float("nan")), "bid_price", [6], None),
        3,
    ),
    "missing_ask": (put(ticks(ROWS), "ask_price", [5, 6, 800], float("nan")), 3),
    "missing_flow": (
        put(put(ticks(ROWS), "buy_volume", [3], None), "trade_count", [3, 4], None),
        2,
    ),
    "not_finite": (
        put(put(ticks(ROWS), "bid_size", [8], float("inf")), "feature_ema_1min", [9], np.nan),
        2,
    ),
    "size_not_positive": (
        put(put(ticks(ROWS), "bid_size", [2], 0.0), "ask_size", [900, 901], -1.0),
        3,
    ),
    "flow_negative": (
        put(put(ticks(ROWS), "sell_volume", [2], -1.0), "trade_count", [3], -1),
        2,
    ),
    "locked_quote": (put(ticks(ROWS), "ask_price", [0], ticks(1)["bid_price"][0].as_py()), 1),
    "crossed_quote": (put(ticks(ROWS), "ask_price", [0, 10, 11], lambda ask: ask - 0.05), 3),
    "spread_too_wide": (
        put(
            put(ticks(ROWS), "ask_price", [77, 78], lambda ask: ask * 1.006),
            "bid_price",
            [77, 78],
            lambda bid: bid * 0.994,
        ),
        2,
    ),
    "outside_session": (
        put(
            put(ticks(ROWS), "timestamp", [20, 21], epoch_ns(dt.date(2024, 8, 7))),
            "timestamp",
            [30],
            epoch_ns(dt.date(2024, 8, 9), 0.0),
        ),
        3,
    ),
    "clock_back": (put(ticks(ROWS), "timestamp", [40, 41], lambda ns: ns - 10**9), 2),
    "price_jump": (scale(ticks(ROWS), [0, 300, 301, 302, 1000], 1.2), 5),
    "trade_off_quotes": (put(ticks(ROWS), "last_trade", [60, 61], lambda price: price * 1.05), 2),
    "vwap_off_range": (put(ticks(ROWS), "vwap", [50], lambda vwap: vwap * 1.1), 1),
    "bad_label": (
        put(put(ticks(ROWS), "label", [0, 1, 2, 3], 1), "label", [5, 6], 2),
        2,
    ),
}
