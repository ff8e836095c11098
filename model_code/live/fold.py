"""One instrument's quotes and trades joined into ticks, as they come: `market.join`, row by row.

The same rows and trades give the same bits as the join of a whole day: a row counts a trade only if
it is known to be earlier, sums are long double, the average is the same compiled step.

Two things differ, because a day in files is judged with later rows in view (docs/live.md): trades
off the quotes are compared with the newest quote alone, and a message behind a later one is left
out before it gets here.
"""

import math
from bisect import insort
from typing import NamedTuple

import msgspec
import numpy as np

from model_code.live.messages import Quote, Trade
from model_code.live.reasons import Reason
from model_code.market.join import EMA_TAU_S, decay
from model_code.market.trade_check import classify, off_band, two_sided, usable

DAY_NS = 86_400_000_000_000
NAN = math.nan
FIRST_NUMBER, LAST_NUMBER = -(2**63), 2**63 - 1  # of a quote, of a trade without one
TAU_NS = EMA_TAU_S * 1e9


class Row(NamedTuple):
    """One tick: the columns of `kernel.TICK`, missing is NaN."""

    timestamp: int
    bid_price: float
    ask_price: float
    bid_size: float
    ask_size: float
    last_trade: float
    vwap: float
    feature_ema_1min: float
    buy_volume: float
    sell_volume: float
    trade_count: int


class Session(msgspec.Struct):
    """What the join remembers of one UTC date.

    Attributes:
        day: date, in days since the epoch.
        rows: quotes so far.
        waiting: trades that no row has counted: time, number, price, size, whether sold.
        total, value: size, and price times size, of the counted trades; bytes of a long double.
        last_trade, vwap: of the counted trades.
        average, newest_ns: the 1-minute average and the time it is of.
        trade, change: price of the newest trade, and the last change of price (Lee, Ready).
        book_ns: of the newest two-sided quote.
        mid, mid_before, mid_first: of it, of the newest with an earlier stamp, of the day's first.
        bid, ask: of it.
        tightest_bps: tightest spread so far.
        previous_ns, previous: the row above: its stamp, and its columns up to the average.
    """

    day: int
    rows: int = 0
    waiting: list[tuple[int, int, float, float, bool]] = []
    total: bytes = np.longdouble(0.0).tobytes()
    value: bytes = np.longdouble(0.0).tobytes()
    last_trade: float = NAN
    vwap: float = NAN
    average: float = NAN
    newest_ns: int = 0
    trade: float = NAN
    change: float = 1.0
    book_ns: int = FIRST_NUMBER
    mid: float = NAN
    mid_before: float = NAN
    mid_first: float = NAN
    bid: float = NAN
    ask: float = NAN
    tightest_bps: float = math.inf
    previous_ns: int = FIRST_NUMBER
    previous: tuple[float, ...] = ()


class Join:
    """Joins one instrument's messages; take them in the order that `Order` lets through.

    Args:
        band_bps: a trade further off the newest quote, and by more than five tightest spreads, is
            left out; infinity: none is.
    """

    def __init__(self, band_bps: float) -> None:
        self._band_bps = band_bps
        self._begin(Session(day=-1))

    def trade(self, trade: Trade) -> Reason | None:
        """Take a trade; return why it is left out, or None."""
        found = self._turn_to(trade.local_ns)
        if found is None:
            return Reason.LATE
        price, size = trade.price, trade.size
        if not usable(price, size):
            return Reason.TRADE_BAD
        if found.tightest_bps < math.inf and off_band(
            price, found.bid, found.ask, self._band_bps, found.tightest_bps
        ):
            return Reason.TRADE_OFF_QUOTES
        if size == 0:
            return Reason.TRADE_EMPTY
        time, sold = trade.local_ns, trade.buyer_is_maker
        by_price, change = classify(price, self._mid_before(time), found.trade, found.change)
        found.trade, found.change = price, change
        number = LAST_NUMBER if trade.source_sequence is None else trade.source_sequence
        entry = (time, number, price, size, bool(by_price if sold is None else sold))
        if found.waiting and found.waiting[-1] > entry:
            insort(found.waiting, entry, key=lambda one: one[:2])
        else:
            found.waiting.append(entry)
        return None

    def quote(self, quote: Quote) -> Row | Reason:
        """The tick of a quote, or why there is none: late, or it repeats the row above."""
        time = quote.local_ns
        found = self._turn_to(time)
        if found is None:
            return Reason.LATE
        bought, sold, count = self._count(time, quote.source_sequence)
        bid, ask = quote.bid_price, quote.ask_price
        bid_size = NAN if quote.bid_size is None else quote.bid_size
        ask_size = NAN if quote.ask_size is None else quote.ask_size
        if found.rows == 0:
            found.newest_ns = time
            bought, sold, count = 0.0, 0.0, 0  # what was traded before the first row
        found.rows += 1
        found.average, found.newest_ns = decay(
            found.average, found.newest_ns, time, _share(bid_size, ask_size), TAU_NS
        )
        if two_sided(bid, ask):
            self._remember(time, bid, ask)
        row = Row(
            time,
            bid,
            ask,
            bid_size,
            ask_size,
            found.last_trade if quote.last_trade is None else quote.last_trade,
            found.vwap if quote.vwap is None else quote.vwap,
            found.average if quote.feature_ema_1min is None else quote.feature_ema_1min,
            bought,
            sold,
            count,
        )
        above_ns, above = found.previous_ns, found.previous
        found.previous_ns, found.previous = time, row[1:8]
        if time == above_ns and count == 0 and _same(above, found.previous):
            return Reason.REPEAT
        return row

    @property
    def tightest_bps(self) -> float:
        """Tightest spread of the day so far in bps; infinity before one."""
        return self._session.tightest_bps

    def dump(self) -> Session:
        """The state; `load` continues from it."""
        self._session.total, self._session.value = self._total.tobytes(), self._value.tobytes()
        return self._session

    def load(self, session: Session) -> None:
        """Continue from a state."""
        self._begin(session)

    def _begin(self, session: Session) -> None:
        self._session = session
        self._total, self._value = (
            np.frombuffer(sum_, np.longdouble)[0] for sum_ in (session.total, session.value)
        )

    def _turn_to(self, time: int) -> Session | None:
        """The state of the stamp's date; None if a later date has begun."""
        day = time // DAY_NS
        if day > self._session.day:
            self._begin(Session(day=day))
        return self._session if day == self._session.day else None

    def _count(self, time: int, number: int | None) -> tuple[float, float, int]:
        """Count the waiting trades known to be earlier: volume bought, sold, number."""
        found = self._session
        bought, sold, count = 0.0, 0.0, 0
        if not found.waiting:
            return bought, sold, count
        row = (time, FIRST_NUMBER if number is None else number)
        for stamp, rank, price, size, is_sold in found.waiting:
            if (stamp, rank) >= row:
                break
            self._total += size
            self._value += price * size
            found.last_trade = price
            if is_sold:
                sold += size
            else:
                bought += size
            count += 1
        if count:
            del found.waiting[:count]
            found.vwap = float(self._value / self._total)
        return bought, sold, count

    def _remember(self, time: int, bid: float, ask: float) -> None:
        found = self._session
        mid = (bid + ask) / 2
        if time > found.book_ns:
            found.mid_before = found.mid
            if math.isnan(found.mid_first):
                found.mid_first = mid
        found.book_ns, found.mid, found.bid, found.ask = time, mid, bid, ask
        spread_bps = (ask - bid) / (bid / 2 + ask / 2) * 1e4
        if 0.0 < spread_bps < found.tightest_bps:
            found.tightest_bps = spread_bps

    def _mid_before(self, time: int) -> float:
        """Of the newest two-sided quote strictly before a time, else of the first; NaN: none."""
        found = self._session
        before = found.mid if time > found.book_ns else found.mid_before
        return found.mid_first if math.isnan(before) else before


def _share(bid_size: float, ask_size: float) -> float:
    """Share of the bid's size in both, divided as numpy divides."""
    both = bid_size + ask_size
    if both == 0.0:
        return NAN if bid_size == 0.0 else math.copysign(math.inf, bid_size)
    return bid_size / both


def _same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two rows are equal, missing equal to missing."""
    pairs = zip(one, other, strict=True)
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)
