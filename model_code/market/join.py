"""Fold trades into quotes: one row per quote, every trade value known before the row's own time.

Shapes: N quote rows, M trades. There is no look-ahead: a row's values come from earlier rows and
from trades that are known to be earlier. A trade is known to be earlier if its stamp is or, if both
files have a column `sequence`, if it has the same stamp and a smaller number. With stamps of 1 ms a
trade of the same stamp may come after the quote, most often in bursts, where labels are 1.

Only which rows and trades are usable at all (a clock contradicts its neighbours, a price is far off
the quotes) is decided with the whole day in view, as all validation is.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.compiled import compiled
from model_code.market import trades as trade_rules
from model_code.market.notes import DayNotes, Loaded
from model_code.market.order import count_before, in_order
from model_code.market.schema import conform, moment, require, stamps
from model_code.market.trades import SEQUENCE, Trades, floats

EMA_TAU_S = 60.0

QUOTES: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("ns", "UTC"),
    "bid_price": pa.float64(),
    "ask_price": pa.float64(),
    "bid_size": pa.float64(),
    "ask_size": pa.float64(),
}
# the source's own values, used as they are; the first two only where there are no trades
OWN: dict[str, pa.DataType] = {
    "last_trade": pa.float64(),
    "vwap": pa.float64(),
    "feature_ema_1min": pa.float64(),
    "label": pa.int8(),
}
FROM_TRADES = ("last_trade", "vwap")
RESOLUTIONS = (("1 s", 10**9), ("100 ms", 10**8), ("1 ms", 10**6), ("1 us", 10**3))

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


def load(
    quotes: pa.Table,
    trades: pa.Table | None,
    symbol: str,
    notes: DayNotes,
    *,
    where: str,
    trades_where: str,
    trade_band_bps: float,
) -> Loaded:
    """Return one instrument-day: quotes with usable trades folded in, and the completed notes.

    Args:
        quotes: the columns of `QUOTES`, optionally of `OWN` and `sequence`; N rows in source order.
        trades: see `model_code.market.trades.prepare`; None if the source has none.
        symbol: written to every row.
        notes: what the reader knows: files, moved and repeated rows, warnings.
        where: the quotes' file, for messages.
        trades_where: the trades' file, for messages.
        trade_band_bps: a trade further off the quotes is bad.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: a time stamp is null.
    """
    own = {name: kind for name, kind in OWN.items() if name in quotes.column_names}
    if trades is not None:
        own = {name: kind for name, kind in own.items() if name not in FROM_TRADES}
    kinds = QUOTES | own
    if SEQUENCE in quotes.column_names:
        kinds = kinds | {SEQUENCE: pa.int64()}
    quotes = require(quotes, kinds, where)
    time = stamps(quotes, where)
    warnings = list(notes.warnings)
    usable = None
    update: dict[str, Any] = {"resolution": resolution(time)}
    if trades is not None:
        usable, counts = trade_rules.prepare(trades, quotes, trades_where, band_bps=trade_band_bps)
        update["trades"] = counts
        span = (moment(time.min()), moment(time.max())) if len(time) else None
        warnings += trade_rules.warnings(counts, span)
    ticks = fold(quotes, usable, symbol, where)
    return Loaded(
        ticks,
        notes.model_copy(update=update | {"warnings": tuple(warnings)}),
        trades=usable,
        sequence=_sequence(quotes),
        own=tuple(own),
    )


def resolution(time_ns: Stamps) -> str:
    """The coarsest usual clock that all stamps are multiples of, e.g. `1 ms`."""
    first = time_ns[:1000]  # mostly enough to rule a clock out
    return next(
        (
            name
            for name, unit in RESOLUTIONS
            if not (first % unit).any() and not (time_ns % unit).any()
        ),
        "1 ns",
    )


def fold(quotes: pa.Table, trades: Trades | None, symbol: str, where: str) -> pa.Table:
    """Return TICKS rows, one per quote in source order, with the trades folded in.

    A row counts the trades since the previous row that are known to be earlier than itself. The
    first row counts none: `last_trade` and `vwap` alone remember what was traded before it. A row
    that its neighbours contradict (its clock is ahead or behind) counts none either.

    Args:
        quotes: the columns of `QUOTES`, optionally of `OWN` and `sequence`; N rows in any order.
        trades: usable trades in time order; None when the source has none.
        symbol: written to every row.
        where: the file, for messages.

    Raises:
        SchemaError: a column has the wrong type.
        DataError: a time stamp is null.
    """
    row_time = stamps(quotes, where)
    columns: dict[str, Any] = {name: quotes[name] for name in QUOTES}
    columns["symbol"] = pa.repeat(symbol, len(row_time))
    columns["label"] = pa.nulls(len(row_time), pa.int8())
    columns |= _trade_columns(row_time, _sequence(quotes), trades)
    columns |= {name: quotes[name] for name in OWN if name in quotes.column_names}
    if "feature_ema_1min" not in columns:
        columns["feature_ema_1min"] = _imbalance_average(quotes, row_time)
    return conform(pa.table(columns), where)


def _sequence(quotes: pa.Table) -> Stamps:
    if SEQUENCE not in quotes.column_names:
        return np.empty(0, np.int64)
    found: Stamps = quotes[SEQUENCE].fill_null(np.iinfo(np.int64).min).to_numpy()
    return found


def _trade_columns(row_time: Stamps, sequence: Stamps, trades: Trades | None) -> dict[str, Any]:
    n = len(row_time)
    if trades is None:
        return {
            "last_trade": pa.nulls(n, pa.float64()),
            "vwap": pa.nulls(n, pa.float64()),
            "buy_volume": np.zeros(n),
            "sell_volume": np.zeros(n),
            "trade_count": np.zeros(n, np.int32),
        }
    high = _earlier(row_time, sequence, trades)
    # a row's trades are [low, high) of the sorted trades; none is counted by two rows
    kept = np.flatnonzero(in_order(row_time))
    low = high.copy()
    low[kept[1:]] = np.minimum(np.maximum.accumulate(high[kept])[:-1], high[kept[1:]])
    traded = high > 0
    total = _running(trades.size)[high]
    value = _running(trades.price * trades.size)[high]
    bought, sold = _volumes(low, high, trades.size, trades.sell)
    with np.errstate(invalid="ignore", divide="ignore"):
        vwap = (value / total).astype(np.float64)
    return {
        "last_trade": pa.array(np.append(trades.price, np.nan)[high - 1], mask=~traded),
        "vwap": pa.array(vwap, mask=~(total > 0)),
        "buy_volume": bought,
        "sell_volume": sold,
        "trade_count": (high - low).astype(np.int32),
    }


def _earlier(row_time: Stamps, sequence: Stamps, trades: Trades) -> Stamps:
    """How many trades are known to be earlier than each row, (N,)."""
    if not (len(sequence) and len(trades.sequence)):
        return count_before(trades.time_ns, row_time)
    # rank the (stamp, number) pairs of rows and trades together
    time = np.concatenate([row_time, trades.time_ns])
    number = np.concatenate([sequence, trades.sequence])
    order = np.lexsort((number, time))
    new = (np.diff(time[order]) != 0) | (np.diff(number[order]) != 0)
    rank = np.empty(len(time), np.int64)
    rank[order] = np.concatenate([[0], np.cumsum(new)]) if len(order) else []
    return np.searchsorted(rank[len(row_time) :], rank[: len(row_time)], side="left")


@compiled
def _volumes(low_N, high_N, size_M, sell_M):  # type: ignore[no-untyped-def]
    """Bought and sold size of the trades [low, high) of each row."""
    bought_N, sold_N = np.zeros(len(low_N)), np.zeros(len(low_N))
    for i in range(len(low_N)):
        for k in range(low_N[i], high_N[i]):
            if sell_M[k]:
                sold_N[i] += size_M[k]
            else:
                bought_N[i] += size_M[k]
    return bought_N, sold_N


def _running(values: Floats) -> npt.NDArray[np.longdouble]:
    """Sum of the first k values, k = 0..M; in long double, so that a long day stays accurate."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.longdouble)])


def _imbalance_average(quotes: pa.Table, row_time: Stamps) -> pa.Array:
    bid, ask = (floats(quotes, name) for name in ("bid_size", "ask_size"))
    with np.errstate(invalid="ignore", divide="ignore"):
        averages = decayed_average(row_time, bid / (bid + ask), EMA_TAU_S * 1e9)
    return pa.array(averages, mask=np.isnan(averages))


@compiled
def decay(average, newest, time, value, tau_ns):  # type: ignore[no-untyped-def]
    """The average after one more value, and the newest time: a step of `decayed_average`."""
    if not np.isnan(value):
        if np.isnan(average):
            average = value
        elif time > newest:
            average += (1.0 - math.exp(-(time - newest) / tau_ns)) * (value - average)
        newest = max(newest, time)
    return average, newest


@compiled
def decayed_average(row_time: Stamps, values: Floats, tau_ns: float) -> Floats:
    """Exponential average over uneven times: a += (1 - exp(-dt / tau)) (x - a), from the first x.

    A NaN value leaves the average unchanged. The average is NaN before the first value. A clock
    that goes back counts as dt = 0. Source: Eckner, "Algorithms for Unevenly Spaced Time Series",
    EMA_next.
    """
    averages = np.empty(len(values))
    average, newest = np.nan, row_time[0] if len(row_time) else 0
    for i in range(len(values)):
        average, newest = decay(average, newest, row_time[i], values[i], tau_ns)
        averages[i] = average
    return averages
