"""Measures of each tick row, which `model_code/market/quality.py` checks against limits.

A null measure means "does not apply": FX quotes have no sizes, a missing bid has no spread.
"""

import datetime as dt
import functools
import math
import operator
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
        midnight = _midnight_ns(self._day.date)
        column = {name: floats(ticks, name) for name in (*FLOATS, "trade_count")}
        measured, count_K = self._measured(column)
        known = {
            name: pl.Series(name, values, nan_to_null=bool(nulls))
            for name, values, nulls in zip(_MEASURED, measured, count_K, strict=True)
        }
        time = pl.Series("timestamp", ticks["timestamp"].cast(pa.int64()))
        symbol = pl.Series("symbol", ticks["symbol"])
        return pl.DataFrame(
            [
                time,
                ((time - midnight) / 3_600e9).alias("session_hour"),
                self._clock_back_s(ticks),
                symbol.ne_missing(self._day.symbol).cast(pl.Int8).alias("wrong_symbol"),
                *known.values(),
                _not_finite(ticks, column),
                pl.Series("label", ticks["label"]),
                self._repeats(ticks),
            ]
        )

    def _measured(self, column: dict[str, Floats]) -> tuple[Floats, Stamps]:
        """Values of `_MEASURED`, NaN where one does not apply, and how often that is."""
        bid, ask = column["bid_price"], column["ask_price"]
        mid = _mid(bid, ask)
        anchor = self._anchors.of(mid)
        if np.isnan(anchor[:1]).any():
            anchor[np.isnan(anchor)] = self._facts.first_anchor
        facts = self._facts
        found: tuple[Floats, Stamps] = _measure(
            bid, ask, column["bid_size"], column["ask_size"], column["last_trade"], column["vwap"],
            column["buy_volume"], column["sell_volume"], column["trade_count"], mid,
            self._jump_sigma(mid, anchor), facts.lowest_anchor, facts.highest_anchor,
            BAND_IN_SPREADS * facts.tightest_bps,
        )  # fmt: skip
        return found

    def _clock_back_s(self, ticks: pa.Table) -> pl.Series:
        """Seconds outside the neighbours' stamps; null where the stamp is outside the session."""
        known, places = _inside(ticks, _midnight_ns(self._day.date))
        late = self._facts.late.within(self._inside, len(known))
        self._inside += len(known)
        every = len(known) == ticks.num_rows
        back = np.zeros(ticks.num_rows) if every else np.full(ticks.num_rows, np.nan)
        if not every:
            back[places] = 0.0
        back[places[late.row_K]] = late.outside_ns_K / 1e9
        return pl.Series("clock_back_s", back, nan_to_null=not every)

    def _jump_sigma(self, mid: Floats, anchor: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            distance_bps = np.abs(np.log(mid / anchor)) * 1e4
            floor = max(VOLATILITY_FLOOR_BPS, self._facts.tightest_bps)
            found: Floats = distance_bps / np.fmax(self._volatility.bps(distance_bps), floor)
        return found

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
    return bid, ask, _mid(bid, ask)


@compiled
def _mid(bid_N, ask_N):  # type: ignore[no-untyped-def]
    mid_N = np.empty(len(bid_N))
    for i in range(len(bid_N)):
        bid, ask = bid_N[i], ask_N[i]
        sane = 0 < bid < np.inf and 0 < ask < np.inf
        mid_N[i] = bid / 2 + ask / 2 if sane else np.nan
    return mid_N


@compiled
def _lower(one, other):  # type: ignore[no-untyped-def]
    """The lower of two values, either of which may be missing."""
    return other if np.isnan(one) or other < one else one


@compiled
def _outside_bps(value, low, high, usual_bps):  # type: ignore[no-untyped-def]
    """Distance of a value outside [low, high], in bps of the bound; 0 up to the usual distance."""
    if low == 0 or high == 0:
        return np.nan
    below, above = (low - value) / low, (value - high) / high
    if not (np.isfinite(below) and np.isfinite(above)):
        return np.nan
    outside = max(below, above, 0.0) * 1e4
    return outside if outside > usual_bps else 0.0


# in the order in which `_measure` computes them
_MEASURED = (
    "bid_price", "ask_price", "missing_flow", "lowest_price", "lowest_size", "lowest_flow",
    "spread", "locked", "spread_bps", "trade_off_bps", "vwap_off_bps", "jump_sigma",
    "wide_spread_bps",
)  # fmt: skip


@compiled
def _measure(  # type: ignore[no-untyped-def]
    bid_N, ask_N, bid_size_N, ask_size_N, last_trade_N, vwap_N, bought_N, sold_N, count_N, mid_N,
    jump_N, lowest, highest, usual_bps,
):  # fmt: skip
    n = len(bid_N)
    found = np.empty((13, n))
    for i in range(n):
        bid, ask, last, vwap = bid_N[i], ask_N[i], last_trade_N[i], vwap_N[i]
        bought, sold, count = bought_N[i], sold_N[i], count_N[i]
        spread = ask - bid
        spread_bps = spread / mid_N[i] * 1e4
        found[0, i], found[1, i] = bid, ask
        found[2, i] = np.isnan(bought) + np.isnan(sold) + np.isnan(count)
        found[3, i] = _lower(_lower(bid, ask), _lower(last, vwap))
        found[4, i] = _lower(bid_size_N[i], ask_size_N[i])
        found[5, i] = _lower(_lower(bought, sold), count)
        found[6, i] = spread
        found[7, i] = np.nan if np.isnan(bid) or np.isnan(ask) else 1.0 * (ask == bid)
        found[8, i] = spread_bps
        found[9, i] = _outside_bps(last, bid, ask, usual_bps)
        found[10, i] = _outside_bps(vwap, lowest, highest, usual_bps)
        found[11, i] = jump_N[i]
        found[12, i] = spread_bps if spread_bps > usual_bps else np.nan
    null_K = np.zeros(13, np.int64)
    for k in range(13):
        for i in range(n):
            null_K[k] += np.isnan(found[k, i])
    return found, null_K


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


def _not_finite(ticks: pa.Table, column: dict[str, Floats]) -> pl.Series:
    """How many values of each row are infinite, or NaN where a value is optional."""
    found = np.zeros(ticks.num_rows, np.int8)
    for name in FLOATS:
        finite = np.isfinite(column[name])
        if finite.all():
            continue
        wrong = np.isinf(column[name])
        if TICKS.field(name).nullable:
            # a NaN where a value is required counts as missing, not twice
            wrong = ~finite & ~np.asarray(ticks[name].is_null().to_numpy())
        found += wrong
    return pl.Series("not_finite", found)


def repeats(ticks: pa.Table) -> pl.Series:
    """1 where the row equals the row directly above (null equals null) and traded nothing; int8."""
    time = ticks["timestamp"].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    places = np.flatnonzero(time[1:] == time[:-1]) + 1
    found = np.zeros(len(time), np.int8)
    if len(places):
        rows, above = (pl.from_arrow(ticks.take(pa.array(at))) for at in (places, places - 1))
        assert isinstance(rows, pl.DataFrame)  # noqa: S101 (a table never becomes a Series)
        assert isinstance(above, pl.DataFrame)  # noqa: S101
        same = [rows[name].eq_missing(above[name]) for name in TICKS.names if name not in FLOW]
        idle = [(rows[name] == 0).fill_null(value=False) for name in FLOW]
        found[places] = functools.reduce(operator.and_, [*same, *idle]).to_numpy()
    return pl.Series("repeat", found)
