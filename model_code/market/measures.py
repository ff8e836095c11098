"""Measures of each tick row, which `model_code/market/quality.py` checks against limits.

A null measure means "does not apply": FX quotes have no sizes, a missing bid has no spread.
"""

import datetime as dt
import math
from collections.abc import Iterable

import numpy as np
import polars as pl
import pyarrow as pa

from model_code.market.order import in_order, outside_neighbours_ns
from model_code.market.schema import TICKS, InstrumentDay

ANCHOR_ROWS = 21  # their median survives a burst of up to ten bad rows
VOLATILITY_ROWS = 1000
VOLATILITY_FLOOR_BPS = 1.0  # unchanged prices have zero volatility
BAND_IN_SPREADS = 5.0  # a distance of fewer tightest spreads is usual where the tick is coarse
VOLATILITY_CLIP_BPS = 20.0  # cap per row: one spike must not mask the next

FLOATS = tuple(field.name for field in TICKS if field.type == pa.float64())
FLOW = ("buy_volume", "sell_volume", "trade_count")


def derive(ticks: pa.Table, day: InstrumentDay) -> pl.DataFrame:
    """Measure every row: one column per measure of `row_rules`, in row order, never NaN.

    `jump_sigma` is the distance of the mid from the median of the ANCHOR_ROWS mids before it,
    divided by sqrt(pi/2) times the mean such distance of the VOLATILITY_ROWS rows before (for a
    Gaussian, the standard deviation; Geary, Biometrika 1935), with the floor and the cap given by
    the constants above. The floor is at least the day's tightest spread: with a coarse tick every
    one-tick move is real. It needs ANCHOR_ROWS // 2 + 1 mids; the first rows are compared with the
    first such median.

    `clock_back_s` is how far a row's stamp lies outside those of its neighbours, counted for the
    fewest rows whose removal leaves a clock that never goes back. `repeat` is 1 where a row equals
    the row directly above it in everything but traded volumes, and traded nothing itself.

    Args:
        ticks: N rows conforming to `TICKS`, in source order.
        day: expected instrument and session date.
    """
    frame = pl.from_arrow(ticks)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 (a table never becomes a Series)
    number = {name: pl.col(name).fill_nan(None) for name in FLOATS}
    bid, ask = number["bid_price"], number["ask_price"]
    sane = (bid > 0) & (ask > 0) & bid.is_finite() & ask.is_finite()
    offset_ns = pl.col("timestamp").cast(pl.Int64) - _midnight_ns(day.date)
    mid = pl.col("mid")
    return (
        frame.lazy()
        .select(
            timestamp=pl.col("timestamp").cast(pl.Int64),
            session_hour=offset_ns / 3_600e9,
            clock_back_s=_clock_back_s(frame, day),
            wrong_symbol=pl.col("symbol").ne_missing(pl.lit(day.symbol)).cast(pl.Int8),
            bid_price=bid,
            ask_price=ask,
            missing_flow=_count(number.get(name, pl.col(name)).is_null() for name in FLOW),
            not_finite=_count(_not_finite(name) for name in FLOATS),
            lowest_price=pl.min_horizontal(bid, ask, number["last_trade"], number["vwap"]),
            lowest_size=pl.min_horizontal(number["bid_size"], number["ask_size"]),
            lowest_flow=pl.min_horizontal(number.get(name, pl.col(name)) for name in FLOW),
            spread=(ask - bid).fill_nan(None),
            locked=(ask == bid).cast(pl.Int8),
            mid=pl.when(sane).then(bid / 2 + ask / 2),
            last_trade=number["last_trade"],
            vwap=number["vwap"],
            label=pl.col("label"),
        )
        .with_columns(spread_bps=pl.col("spread") / mid * 1e4)
        .with_columns(
            tightest_bps=pl.col("spread_bps").filter(pl.col("spread_bps") > 0).min().fill_null(0.0)
        )
        .with_columns(
            trade_off_bps=_outside_bps("last_trade", pl.col("bid_price"), pl.col("ask_price")),
            anchor=mid.shift(1)
            .rolling_median(ANCHOR_ROWS, min_samples=ANCHOR_ROWS // 2 + 1)
            .forward_fill()
            .backward_fill(),
        )
        .with_columns(
            distance_bps=(mid / pl.col("anchor")).log().abs() * 1e4,
            vwap_off_bps=_outside_bps("vwap", pl.col("anchor").min(), pl.col("anchor").max()),
        )
        .with_columns(
            jump_sigma=(pl.col("distance_bps") / _volatility_bps(pl.col("distance_bps"))).fill_nan(
                None
            )
        )
        .with_columns(
            pl.when(pl.col(name) > BAND_IN_SPREADS * pl.col("tightest_bps"))
            .then(pl.col(name))
            .when(pl.col(name).is_not_null())
            .then(pl.min_horizontal(name, pl.lit(0.0)))
            .alias(name)
            for name in ("trade_off_bps", "vwap_off_bps")
        )
        .with_columns(
            wide_spread_bps=pl.when(
                pl.col("spread_bps") > BAND_IN_SPREADS * pl.col("tightest_bps")
            ).then("spread_bps")
        )
        .drop("mid", "anchor", "distance_bps", "tightest_bps", "last_trade", "vwap")
        .with_columns(repeats(ticks))
        .collect()
    )


def _midnight_ns(date: dt.date) -> int:
    return (date - dt.date(1970, 1, 1)).days * 86_400 * 10**9


def _not_finite(name: str) -> pl.Expr:
    # a NaN where a value is required counts as missing, not twice
    value = pl.col(name)
    return ~value.is_finite() if TICKS.field(name).nullable else value.is_infinite()


def _count(conditions: Iterable[pl.Expr]) -> pl.Expr:
    return pl.sum_horizontal(
        condition.fill_null(value=False).cast(pl.Int8) for condition in conditions
    ).cast(pl.Int8)


def _volatility_bps(distance_bps: pl.Expr) -> pl.Expr:
    mean = (
        distance_bps.clip(upper_bound=VOLATILITY_CLIP_BPS)
        .shift(1)
        .rolling_mean(VOLATILITY_ROWS, min_samples=1)
    )
    return pl.max_horizontal(
        math.sqrt(math.pi / 2) * mean, pl.lit(VOLATILITY_FLOOR_BPS), pl.col("tightest_bps")
    )


def _outside_bps(name: str, low: pl.Expr, high: pl.Expr) -> pl.Expr:
    """Distance of a value outside [low, high], in bps of the bound; null if any is absent."""
    value = pl.col(name)
    below, above = (low - value) / low, (value - high) / high
    outside = pl.max_horizontal(below, above, pl.lit(0.0)) * 1e4
    return pl.when(below.is_finite() & above.is_finite()).then(outside)


def _clock_back_s(frame: pl.DataFrame, day: InstrumentDay) -> pl.Series:
    """Seconds outside the neighbours' stamps; null where the stamp is outside the session."""
    time = frame["timestamp"].cast(pl.Int64)
    offset = time - _midnight_ns(day.date)
    inside = offset.is_between(0, 86_400 * 10**9, closed="left").fill_null(value=False)
    # a stamp outside the session must not make the rest of the day look late
    places = inside.arg_true().to_numpy()
    known = time.filter(inside).to_numpy(writable=True)  # without nulls it stays integer
    back = np.full(frame.height, np.nan)
    back[places] = outside_neighbours_ns(known, in_order(known)) / 1e9
    return pl.Series("clock_back_s", back).fill_nan(None)


def repeats(ticks: pa.Table) -> pl.Series:
    """1 where the row equals the row directly above (null equals null) and traded nothing; int8."""
    frame = pl.from_arrow(ticks)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 (a table never becomes a Series)
    same = [
        pl.col(name).eq_missing(pl.col(name).shift(1)) for name in TICKS.names if name not in FLOW
    ]
    idle = [pl.col(name) == 0 for name in FLOW]
    repeat = pl.all_horizontal(*same, *idle).fill_null(value=False).cast(pl.Int8)
    return frame.select(repeat.alias("repeat")).to_series()
