"""Fold trades into quotes: one row per quote, every trade value known at the row's own time.

Shapes: N quote rows, M trades. There is no look-ahead: a row depends only on earlier rows and on
trades stamped at or before it.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from model_code.errors import DataError
from model_code.market.schema import conform, require

EMA_TAU_S = 60.0

QUOTES: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("ns", "UTC"),
    "bid_price": pa.float64(),
    "ask_price": pa.float64(),
    "bid_size": pa.float64(),
    "ask_size": pa.float64(),
}
TRADES: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("ns", "UTC"),
    "price": pa.float64(),
    "size": pa.float64(),
    "buyer_is_maker": pa.bool_(),
}

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


def fold(quotes: pa.Table, trades: pa.Table | None, symbol: str, where: str) -> pa.Table:
    """Return TICKS rows, one per quote in source order, with the trades folded in.

    A row counts the trades after the previous row, up to and including its own time. The first row
    counts all trades up to its own time. `buyer_is_maker` marks a sell (the aggressor sold). A
    trade with a non-finite price or size gives a NaN `last_trade`, so that validation finds it, and
    does not count in volumes or `vwap`.

    Args:
        quotes: the columns of `QUOTES`, N rows in any order.
        trades: the columns of `TRADES`, M rows in any order; None when the source has none.
        symbol: written to every row.
        where: the file, for messages.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: a time stamp is null.
    """
    quotes = require(quotes, QUOTES, where)
    row_time = _stamps(quotes, where)
    columns: dict[str, Any] = {name: quotes[name] for name in QUOTES}
    columns["symbol"] = pa.repeat(symbol, len(row_time))
    columns["label"] = pa.nulls(len(row_time), pa.int8())
    columns["feature_ema_1min"] = _imbalance_average(quotes, row_time)
    columns |= _trade_columns(row_time, trades, where)
    return conform(pa.table(columns), where)


def _stamps(table: pa.Table, where: str) -> Stamps:
    column = table["timestamp"]
    if column.null_count:
        raise DataError(
            f"column 'timestamp' has {column.null_count} nulls",
            where=where,
            remedy="export the file again with a time stamp on every row",
        )
    stamps: Stamps = column.cast(pa.int64()).to_numpy()
    return stamps


def _trade_columns(row_time: Stamps, trades: pa.Table | None, where: str) -> dict[str, Any]:
    n = len(row_time)
    if trades is None:
        return {
            "last_trade": pa.nulls(n, pa.float64()),
            "vwap": pa.nulls(n, pa.float64()),
            "buy_volume": np.zeros(n),
            "sell_volume": np.zeros(n),
            "trade_count": np.zeros(n, np.int32),
        }
    trades = require(trades, TRADES, where)
    order = np.argsort(_stamps(trades, where), kind="stable")
    time = _stamps(trades, where)[order]
    price, size, sell = (
        trades[name].to_numpy().astype(np.float64)[order]
        for name in ("price", "size", "buyer_is_maker")
    )
    good = np.isfinite(price) & np.isfinite(size) & np.isfinite(sell)
    size = np.where(good, size, 0.0)
    last = np.where(good, price, np.nan)
    # a row's trades are [low, high) of the sorted trades; a row whose clock goes back has none
    high = np.searchsorted(time, row_time, side="right")
    low = np.minimum(np.concatenate([[0], high[:-1]])[:n], high)
    traded = high > 0
    total = _running(size)[high]
    value = _running(np.where(good, price, 0.0) * size)[high]
    bought, sold = (_running(size * (sell == side)) for side in (0.0, 1.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        vwap = (value / total).astype(np.float64)
    return {
        "last_trade": pa.array(np.append(last, np.nan)[high - 1], mask=~traded),
        "vwap": pa.array(vwap, mask=~(total > 0)),
        "buy_volume": (bought[high] - bought[low]).astype(np.float64),
        "sell_volume": (sold[high] - sold[low]).astype(np.float64),
        "trade_count": (high - low).astype(np.int32),
    }


def _running(values: Floats) -> npt.NDArray[np.longdouble]:
    """Sum of the first k values, k = 0..M; in long double, so that differences stay accurate."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.longdouble)])


def _imbalance_average(quotes: pa.Table, row_time: Stamps) -> pa.Array:
    bid, ask = (quotes[name].fill_null(math.nan).to_numpy() for name in ("bid_size", "ask_size"))
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = decayed_average(row_time, bid / (bid + ask), EMA_TAU_S * 1e9)
    return pa.array(averages, mask=np.isnan(averages))


@njit(cache=True)
def decayed_average(row_time: Stamps, values: Floats, tau_ns: float) -> Floats:
    """Exponential average over uneven times: a += (1 - exp(-dt / tau)) (x - a), from the first x.

    A NaN value leaves the average unchanged. The average is NaN before the first value. A clock
    that goes back counts as dt = 0. Source: Eckner, "Algorithms for Unevenly Spaced Time Series",
    EMA_next.
    """
    averages = np.empty(len(values))
    average, newest = np.nan, row_time[0] if len(row_time) else 0
    for i in range(len(values)):
        value = values[i]
        if not np.isnan(value):
            if np.isnan(average):
                average = value
            elif row_time[i] > newest:
                average += (1.0 - math.exp(-(row_time[i] - newest) / tau_ns)) * (value - average)
            newest = max(newest, row_time[i])
        averages[i] = average
    return averages
