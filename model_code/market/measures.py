"""Measures of each tick row, which `model_code/market/quality.py` checks against limits.

A null measure means "does not apply": FX quotes have no sizes, a missing bid has no spread.
"""

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from model_code.compiled import compiled
from model_code.market.order import Disorder, Order, Stamps
from model_code.market.schema import TICKS, InstrumentDay, floats
from model_code.market.stream.rows import Rows, TableRows

ANCHOR_ROWS = 21  # their median survives a burst of up to ten bad rows
VOLATILITY_ROWS = 1000
VOLATILITY_FLOOR_BPS = 1.0  # unchanged prices have zero volatility
BAND_IN_SPREADS = 5.0  # a distance of fewer tightest spreads is usual where the tick is coarse
VOLATILITY_CLIP_BPS = 20.0  # cap per row: one spike must not mask the next

FLOATS = tuple(field.name for field in TICKS if field.type == pa.float64())
FLOW = ("buy_volume", "sell_volume", "trade_count")


Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DayFacts:
    """Figures of the whole day that measures of a row refer to.

    Attributes:
        late: of the rows inside the session alone, those that their neighbours contradict.
        tightest_bps: tightest positive spread; 0 if there is none.
        first_anchor, lowest_anchor, highest_anchor: of the anchors of `Measures`; NaN without any.
    """

    late: Disorder
    tightest_bps: float
    first_anchor: float
    lowest_anchor: float
    highest_anchor: float


class DayScan:
    """Gathers `DayFacts` from the chunks of a day; each has a stamp, a bid and an ask.

    Args:
        day: expected instrument and session date.
    """

    def __init__(self, day: InstrumentDay) -> None:
        self._midnight, self._order = _midnight_ns(day.date), Order()
        self._anchors, self._tightest = _Anchors(), np.inf
        self._first, self._lowest, self._highest = np.nan, np.nan, np.nan

    def add(self, chunk: pa.Table) -> None:
        """Take the next chunk."""
        self._order.add(_inside(chunk, self._midnight)[0])
        bid, ask, mid = _quotes(chunk)
        with np.errstate(invalid="ignore"):
            spread_bps = (ask - bid) / mid * 1e4
            positive = spread_bps > 0
        if positive.any():
            self._tightest = min(self._tightest, float(spread_bps[positive].min()))
        anchor = self._anchors.of(mid)
        anchor = anchor[~np.isnan(anchor)]
        if len(anchor):
            self._first = anchor[0] if np.isnan(self._first) else self._first
            self._lowest = float(np.fmin(self._lowest, anchor.min()))
            self._highest = float(np.fmax(self._highest, anchor.max()))

    def facts(self, rows: Rows) -> DayFacts:
        """The figures; a day with rows out of order is read again.

        Args:
            rows: whose chunks were added.
        """
        late = self._order.find(
            _inside(chunk, self._midnight)[0] for chunk in rows.chunks(("timestamp",))
        )
        return DayFacts(
            late=late,
            tightest_bps=self._tightest if np.isfinite(self._tightest) else 0.0,
            first_anchor=float(self._first),
            lowest_anchor=self._lowest,
            highest_anchor=self._highest,
        )


def derive(ticks: pa.Table, day: InstrumentDay) -> pl.DataFrame:
    """Measure every row of a day in memory; see `Measures`.

    Args:
        ticks: N rows conforming to `TICKS`, in source order.
        day: expected instrument and session date.
    """
    scan = DayScan(day)
    scan.add(ticks)
    return Measures(scan.facts(TableRows(ticks)), day).derive(ticks)


class Measures:
    """Measures every row of a day, chunk by chunk: the same values for every size of chunk.

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
        facts: of the whole day.
        day: expected instrument and session date.
    """

    def __init__(self, facts: DayFacts, day: InstrumentDay) -> None:
        self._facts, self._day = facts, day
        self._anchors, self._volatility = _Anchors(), _Volatility()
        self._inside = 0  # rows inside the session so far
        self._above = TICKS.empty_table()  # the row above the next chunk

    def derive(self, ticks: pa.Table) -> pl.DataFrame:
        """One column per measure of `row_rules`, in row order, never NaN.

        Args:
            ticks: the next rows, conforming to `TICKS`, in source order.
        """
        frame = pl.from_arrow(ticks)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 (a table never becomes a Series)
        number = {name: pl.col(name).fill_nan(None) for name in FLOATS}
        bid, ask = number["bid_price"], number["ask_price"]
        sane = (bid > 0) & (ask > 0) & bid.is_finite() & ask.is_finite()
        offset_ns = pl.col("timestamp").cast(pl.Int64) - _midnight_ns(self._day.date)
        tightest = self._facts.tightest_bps
        mid = _quotes(ticks)[2]
        anchor = self._anchors.of(mid)
        anchor[np.isnan(anchor)] = self._facts.first_anchor
        return (
            frame.lazy()
            .select(
                timestamp=pl.col("timestamp").cast(pl.Int64),
                session_hour=offset_ns / 3_600e9,
                clock_back_s=self._clock_back_s(ticks),
                wrong_symbol=pl.col("symbol").ne_missing(pl.lit(self._day.symbol)).cast(pl.Int8),
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
            .with_columns(
                spread_bps=pl.col("spread") / pl.col("mid") * 1e4,
                trade_off_bps=_outside_bps("last_trade", pl.col("bid_price"), pl.col("ask_price")),
                vwap_off_bps=_outside_bps(
                    "vwap", _known(self._facts.lowest_anchor), _known(self._facts.highest_anchor)
                ),
                jump_sigma=self._jump_sigma(mid, anchor),
            )
            .with_columns(
                pl.when(pl.col(name) > BAND_IN_SPREADS * tightest)
                .then(pl.col(name))
                .when(pl.col(name).is_not_null())
                .then(pl.min_horizontal(name, pl.lit(0.0)))
                .alias(name)
                for name in ("trade_off_bps", "vwap_off_bps")
            )
            .with_columns(
                wide_spread_bps=pl.when(pl.col("spread_bps") > BAND_IN_SPREADS * tightest).then(
                    "spread_bps"
                )
            )
            .drop("mid", "last_trade", "vwap")
            .with_columns(self._repeats(ticks))
            .collect()
        )

    def _clock_back_s(self, ticks: pa.Table) -> pl.Series:
        """Seconds outside the neighbours' stamps; null where the stamp is outside the session."""
        known, places = _inside(ticks, _midnight_ns(self._day.date))
        late = self._facts.late.within(self._inside, len(known))
        self._inside += len(known)
        back = np.full(ticks.num_rows, np.nan)
        back[places] = 0.0
        back[places[late.row_K]] = late.outside_ns_K / 1e9
        return pl.Series("clock_back_s", back).fill_nan(None)

    def _jump_sigma(self, mid: Floats, anchor: Floats) -> pl.Series:
        with np.errstate(invalid="ignore", divide="ignore"):
            distance_bps = np.abs(np.log(mid / anchor)) * 1e4
            floor = max(VOLATILITY_FLOOR_BPS, self._facts.tightest_bps)
            sigma = distance_bps / np.fmax(self._volatility.bps(distance_bps), floor)
        return pl.Series("jump_sigma", sigma, nan_to_null=True)

    def _repeats(self, ticks: pa.Table) -> pl.Series:
        above = self._above
        self._above = ticks.slice(max(ticks.num_rows - 1, 0)) if ticks.num_rows else above
        return repeats(pa.concat_tables([above, ticks])).slice(above.num_rows)


def _inside(chunk: pa.Table, midnight_ns: int) -> tuple[Stamps, Stamps]:
    """Stamps inside the session, and the rows that have them."""
    column = chunk["timestamp"].cast(pa.int64())
    # a stamp outside the session must not make the rest of the day look late
    time = column.fill_null(midnight_ns - 1).to_numpy()
    inside = (time >= midnight_ns) & (time < midnight_ns + 86_400 * 10**9)
    return (time if inside.all() else time[inside]), np.flatnonzero(inside)


def _quotes(chunk: pa.Table) -> tuple[Floats, Floats, Floats]:
    """Bid, ask, and the mid where both are positive and finite, else NaN."""
    bid, ask = floats(chunk, "bid_price"), floats(chunk, "ask_price")
    sane = (bid > 0) & (ask > 0) & np.isfinite(bid) & np.isfinite(ask)
    return bid, ask, np.where(sane, bid / 2 + ask / 2, np.nan)


def _known(value: float) -> pl.Expr:
    return pl.lit(None if math.isnan(value) else value, pl.Float64)


class _Anchors:
    """The median of the ANCHOR_ROWS mids before each row, or the newest there was; else NaN."""

    def __init__(self) -> None:
        self._ring = np.full(ANCHOR_ROWS, np.nan)
        self._sorted = np.empty(ANCHOR_ROWS)
        self._at, self._count, self._newest = 0, 0, np.nan

    def of(self, mid: Floats) -> Floats:
        found: Floats
        found, self._at, self._count, self._newest = _medians(
            mid, self._ring, self._sorted, self._at, self._count, self._newest
        )
        return found


@compiled
def _medians(mid_N, ring, ordered, at, count, newest):  # type: ignore[no-untyped-def]
    """Running medians; `ring` has the newest rows, `ordered` those of them that have a mid."""
    found_N = np.empty(len(mid_N))
    rows = len(ring)
    for i in range(len(mid_N)):
        if count > rows // 2:
            middle = count // 2
            newest = ordered[middle]
            if count % 2 == 0:
                newest = (newest + ordered[middle - 1]) / 2
        found_N[i] = newest
        old, new = ring[at], mid_N[i]
        ring[at] = new
        at = (at + 1) % rows
        if old == new:
            continue
        if not np.isnan(old):
            k = 0
            while ordered[k] < old:
                k += 1
            count -= 1
            for j in range(k, count):
                ordered[j] = ordered[j + 1]
        if not np.isnan(new):
            k = count
            while k > 0 and ordered[k - 1] > new:
                ordered[k] = ordered[k - 1]
                k -= 1
            ordered[k] = new
            count += 1
    return found_N, at, count, newest


class _Volatility:
    """sqrt(pi/2) times the mean distance of the VOLATILITY_ROWS rows before each row."""

    def __init__(self) -> None:
        self._ring = np.full(VOLATILITY_ROWS, np.nan)
        self._at, self._sum, self._count = 0, 0.0, 0

    def bps(self, distance_bps: Floats) -> Floats:
        means: Floats
        means, self._at, self._sum, self._count = _means(
            distance_bps, VOLATILITY_CLIP_BPS, self._ring, self._at, self._sum, self._count
        )
        return math.sqrt(math.pi / 2) * means


@compiled
def _means(value_N, most, ring, at, total, count):  # type: ignore[no-untyped-def]
    """Running means of the values before each row, each at most `most`; NaN without any."""
    found_N = np.empty(len(value_N))
    for i in range(len(value_N)):
        found_N[i] = total / count if count else np.nan
        old, new = ring[at], value_N[i]
        new = most if new > most else new
        ring[at] = new
        if not np.isnan(old):
            total -= old
            count -= 1
        if not np.isnan(new):
            total += new
            count += 1
        at += 1
        if at == len(ring):  # a fresh sum, so that rounding does not grow with the day
            at, total = 0, 0.0
            for k in range(len(ring)):
                if not np.isnan(ring[k]):
                    total += ring[k]
    return found_N, at, total, count


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


def _outside_bps(name: str, low: pl.Expr, high: pl.Expr) -> pl.Expr:
    """Distance of a value outside [low, high], in bps of the bound; null if any is absent."""
    value = pl.col(name)
    below, above = (low - value) / low, (value - high) / high
    outside = pl.max_horizontal(below, above, pl.lit(0.0)) * 1e4
    return pl.when(below.is_finite() & above.is_finite()).then(outside)


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
