"""Trades made fit to fold: repeats and bad ones counted and left out, the aggressor known.

Shapes: N quote rows, M trades.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from model_code.errors import SchemaError
from model_code.market.notes import NO_SEQUENCE, Aggressor, TradeNotes
from model_code.market.order import count_before, in_order
from model_code.market.schema import moment, require, stamps
from model_code.market.trade_check import classify_all, off_band, two_sided, usable

COLUMNS: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("ns", "UTC"),
    "price": pa.float64(),
    "size": pa.float64(),
}
AGGRESSOR = "buyer_is_maker"
IDS = ("trade_id", "id")
SEQUENCE = "sequence"
ONE_SIDED = 30  # trades; fewer on one side may be chance
COVERED = 0.5  # share of the quotes' span

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trades:
    """Usable trades of one instrument-day in time order; every array is (M,).

    Attributes:
        time_ns: stamp.
        sequence: position in the source's own order of quotes and trades; empty without one.
        price, size: positive and finite.
        sell: the aggressor sold.
    """

    time_ns: Integers
    sequence: Integers
    price: Floats
    size: Floats
    sell: Booleans

    def take(self, chosen: Integers | Booleans) -> "Trades":
        """The chosen trades, in the order given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Trades(**{k: v[chosen] if len(v) else v for k, v in values.items()})


@dataclass(frozen=True)
class Book:
    """Usable quotes of one instrument-day in time order; every array is (N,)."""

    time_ns: Integers
    bid: Floats
    ask: Floats

    @classmethod
    def of(cls, quotes: pa.Table) -> "Book":
        """Rows with a sane two-sided quote that no neighbour contradicts."""
        time = stamps(quotes)
        bid, ask = (floats(quotes, name) for name in ("bid_price", "ask_price"))
        with np.errstate(invalid="ignore"):
            sane = two_sided(bid, ask)
        time, bid, ask = time[sane], bid[sane], ask[sane]
        kept = in_order(time)
        return cls(time[kept], bid[kept], ask[kept])

    def before(self, time_ns: Integers) -> Integers:
        """Newest row strictly before each time; the first row where there is none."""
        return np.maximum(count_before(self.time_ns, time_ns) - 1, 0)

    @property
    def tightest_bps(self) -> float:
        """Tightest positive spread, in bps of the mid; 0 if there is none."""
        spread = self.ask - self.bid
        positive = spread > 0
        if not positive.any():
            return 0.0
        return float(2e4 * (spread[positive] / (self.ask + self.bid)[positive]).min())


def prepare(
    table: pa.Table, quotes: pa.Table, where: str, *, band_bps: float
) -> tuple[Trades, TradeNotes]:
    """Return the usable trades and the count of the others.

    A trade is bad if its price or size is not positive and finite, or if its price lies further
    outside the quotes just before and after it than `band_bps` and five of the day's tightest
    spreads: this judges the feed and sees the whole day, as all validation does. Without
    the column `buyer_is_maker` (true: the aggressor sold) trades are classified by Lee and Ready
    1991, "Inferring Trade Direction from Intraday Data": above the mid of the quote strictly
    before, bought; below, sold; at the mid, as the last change of price (up: bought).

    Args:
        table: M trades in any order; columns `COLUMNS`, optional `buyer_is_maker`, `trade_id`,
            `sequence`.
        quotes: the day's quotes, with `timestamp`, `bid_price`, `ask_price`.
        where: the trades' file, for messages.
        band_bps: largest distance from the quotes.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: a time stamp is null.
    """
    rows = table.num_rows
    table, repeated = _once(table, where)
    has_flag = AGGRESSOR in table.column_names
    kinds = COLUMNS | ({AGGRESSOR: pa.bool_()} if has_flag else {})
    kinds |= {SEQUENCE: pa.int64()} if SEQUENCE in table.column_names else {}
    table = require(_boolean(table), kinds, where)
    time, price, size = stamps(table, where), floats(table, "price"), floats(table, "size")
    # a trade without a number is not known to be earlier than a row of its stamp
    latest = np.iinfo(np.int64).max
    sequence = table[SEQUENCE].fill_null(latest).to_numpy() if SEQUENCE in kinds else NO_SEQUENCE
    flag = floats(table, AGGRESSOR) if has_flag else np.zeros(len(time))
    book = Book.of(quotes)

    empty = size == 0
    with np.errstate(invalid="ignore"):
        sane = usable(price, size) & np.isfinite(flag)
        bad = ~sane | _off_quotes(time, price, book, band_bps)
    good = ~bad & ~empty
    trades = Trades(time, sequence, price, size, flag > 0)
    if not good.all():
        trades = trades.take(good)
    if len(trades.sequence):
        trades = trades.take(np.lexsort((trades.sequence, trades.time_ns)))
    elif (np.diff(trades.time_ns) < 0).any():
        trades = trades.take(np.argsort(trades.time_ns, kind="stable"))
    if not has_flag:
        sell = lee_ready(trades.time_ns, trades.price, book)
        trades = Trades(trades.time_ns, trades.sequence, trades.price, trades.size, sell)
    aggressor: Aggressor = "flag" if has_flag else "Lee-Ready"
    sold = int(trades.sell.sum())
    return trades, TradeNotes(
        rows=rows,
        repeated=repeated,
        empty=int((empty & ~bad).sum()),
        bad=int(bad.sum()),
        outside=_outside(trades.time_ns, stamps(quotes)),
        first=moment(time.min()) if len(time) else None,
        last=moment(time.max()) if len(time) else None,
        bought=len(trades.time_ns) - sold,
        sold=sold,
        aggressor=aggressor,
    )


def _boolean(table: pa.Table) -> pa.Table:
    """The table with an aggressor flag of 0 and 1 as false and true."""
    if AGGRESSOR not in table.column_names or not pa.types.is_integer(table[AGGRESSOR].type):
        return table
    if not set(pc.unique(table[AGGRESSOR]).to_pylist()) <= {0, 1, None}:
        return table  # not a flag: the caller names the column
    flag = table[AGGRESSOR].cast(pa.bool_())
    return table.set_column(table.column_names.index(AGGRESSOR), AGGRESSOR, flag)


def _once(table: pa.Table, where: str) -> tuple[pa.Table, int]:
    """The first trade of each id, and how many others there were."""
    for name in IDS:
        if name in table.column_names:
            if not _comparable(table[name].type):
                raise SchemaError(
                    f"column {name!r} has the wrong type: expected integers or text, "
                    f"found {table[name].type}",
                    where=where,
                    remedy="write trade ids as integers or text, or leave the column out",
                )
            ids = pl.Series(table[name])
            first = ids.is_first_distinct() | ids.is_null()
            return table.filter(first.to_arrow()), int((~first).sum())
    return table, 0


def _comparable(kind: pa.DataType) -> bool:
    """Whether ids of this type can be compared (Polars has no decimal of 256 bits)."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    known = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null,
    )  # fmt: skip
    return any(test(kind) for test in known)


def _off_quotes(time: Integers, price: Floats, book: Book, band_bps: float) -> Booleans:
    if not len(book.time_ns) or not len(time):
        return np.zeros(len(time), np.bool_)
    lowest, highest = book.bid.min(), book.ask.max()
    if lowest <= price.min() and price.max() <= highest <= lowest * (1 + band_bps / 1e4):
        return np.zeros(len(time), np.bool_)  # no quote of the day is further off than the band
    # the quotes around a trade: a feed may send it just before the quote that it moved
    before = book.before(time)
    after = np.minimum(before + 1, len(book.time_ns) - 1)
    low = np.minimum(book.bid[before], book.bid[after])
    high = np.maximum(book.ask[before], book.ask[after])
    outside: Booleans = off_band(price, low, high, band_bps, book.tightest_bps)
    return outside


def _outside(time: Integers, row_time: Integers) -> int:
    kept = row_time[in_order(row_time)]
    if not len(kept):
        return len(time)
    return int(((time < kept[0]) | (time > kept[-1])).sum())


def lee_ready(time_ns: Integers, price: Floats, book: Book) -> Booleans:
    """True where the aggressor sold, (M,).

    Args:
        time_ns: stamps in time order, (M,).
        price: of the trades, (M,).
        book: the day's usable quotes.
    """
    mid = np.full(len(price), np.nan)
    if len(book.time_ns):
        before = book.before(time_ns)
        mid = (book.bid[before] + book.ask[before]) / 2
    sold: Booleans = classify_all(price, mid)
    return sold


def floats(table: pa.Table, name: str) -> Floats:
    """A numeric or boolean column as float64, NaN where null."""
    column = table[name].cast(pa.float64())
    if column.null_count:
        column = column.fill_null(np.nan)
    found: Floats = column.to_numpy().astype(np.float64, copy=False)
    return found


def warnings(notes: TradeNotes, rows: tuple[dt.datetime, dt.datetime] | None) -> Iterator[str]:
    """Sentences about trades that look incomplete or wrong.

    Args:
        notes: counts of the day's trades.
        rows: first and last stamp of the quotes; None without any.
    """
    usable = notes.bought + notes.sold
    side = "bought" if notes.bought else "sold"
    if usable >= ONE_SIDED and usable in (notes.bought, notes.sold):
        yield f"all {usable:,} trades were {side} by the aggressor: check {AGGRESSOR}"
    if rows and notes.first and notes.last and usable >= ONE_SIDED:
        inside = min(notes.last, rows[1]) - max(notes.first, rows[0])
        share = max(inside, dt.timedelta()) / max(rows[1] - rows[0], dt.timedelta(microseconds=1))
        if share < COVERED:
            yield (
                f"trades from {notes.first:%H:%M:%S} to {notes.last:%H:%M:%S} UTC cover "
                f"{share:.0%} of the quotes' {rows[0]:%H:%M:%S} to {rows[1]:%H:%M:%S}"
            )
