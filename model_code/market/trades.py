"""Trades made fit to fold: repeats and bad ones counted and left out, the aggressor known.

Shapes: N quote rows, M trades.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from model_code.errors import SchemaError
from model_code.market.notes import NO_SEQUENCE, TradeNotes
from model_code.market.schema import floats, moment, require, stamps
from model_code.market.stream.quotes import EMPTY, Book, QuoteFacts, books, scan_quotes
from model_code.market.stream.rows import CHUNK_ROWS, Rows, TableRows, whole
from model_code.market.trade_check import classify_all, classify_on, off_band, usable

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

    def take(self, chosen: Integers | Booleans | slice) -> "Trades":
        """The chosen trades, in the order given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Trades(**{k: v[chosen] if len(v) else v for k, v in values.items()})

    @classmethod
    def joined(cls, parts: "list[Trades]") -> "Trades":
        """The trades of all parts, one after the other."""
        parts = parts or [NO_TRADES]
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


NO_TRADES = Trades(
    np.empty(0, np.int64), NO_SEQUENCE, np.empty(0), np.empty(0), np.empty(0, np.bool_)
)


def prepare(
    table: pa.Table, quotes: pa.Table, where: str, *, band_bps: float
) -> tuple[Trades, TradeNotes]:
    """Return the usable trades of a table and the count of the others; see `TradeStream`."""
    rows = TableRows(quotes)
    stream = TradeStream(TableRows(table), rows, scan_quotes(rows), where, band_bps=band_bps)
    return Trades.joined(list(stream.pieces())), stream.notes


class TradeStream:
    """The usable trades of a day in pieces, and the count of the others.

    A trade is bad if its price or size is not positive and finite, or if its price lies further
    outside the quotes just before and after it than `band_bps` and five of the day's tightest
    spreads: this judges the feed and sees the whole day, as all validation does. Without
    the column `buyer_is_maker` (true: the aggressor sold) trades are classified by Lee and Ready
    1991, "Inferring Trade Direction from Intraday Data": above the mid of the quote strictly
    before, bought; below, sold; at the mid, as the last change of price (up: bought).

    Trades in time order with integer ids that only grow, or without ids, are read chunk by chunk.
    Others are sorted in memory.

    Args:
        trades: M trades in any order; columns `COLUMNS`, optional `buyer_is_maker`, `trade_id`,
            `sequence`.
        quotes: the day's quotes, with `timestamp`, `bid_price`, `ask_price`.
        facts: of the quotes.
        where: the trades' file, for messages.
        band_bps: largest distance from the quotes.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: a time stamp is null.
    """

    def __init__(
        self, trades: Rows, quotes: Rows, facts: QuoteFacts, where: str, *, band_bps: float
    ) -> None:
        self._quotes, self._facts, self._where, self._band_bps = quotes, facts, where, band_bps
        names = trades.schema.names
        self._has_flag = AGGRESSOR in names
        self._kinds = COLUMNS | ({AGGRESSOR: pa.bool_()} if self._has_flag else {})
        self._kinds |= {SEQUENCE: pa.int64()} if SEQUENCE in names else {}
        self._trades, self._rows, self._repeated = self._ordered(trades)
        self._notes: TradeNotes | None = None

    @property
    def notes(self) -> TradeNotes:
        """The counts; complete once `pieces` has been read to its end."""
        if self._notes is None:
            for _ in self.pieces():
                pass
        assert self._notes is not None  # noqa: S101 (set at the end of the pieces)
        return self._notes

    def pieces(self) -> Iterator[Trades]:
        """The usable trades from the first on."""
        counts = _Counts(self._facts)
        previous, change = np.nan, 1.0
        found = books(self._quotes, self._facts.unusable)
        for raw, book in _paired(map(self._raw, self._trades.chunks()), found):
            trades = self._usable(raw, book, counts)
            if not self._has_flag:
                sell, previous, change = classify_on(
                    trades.price, _mids(trades.time_ns, book), previous, change
                )
                trades = Trades(trades.time_ns, trades.sequence, trades.price, trades.size, sell)
            counts.add(raw, trades)
            yield trades
        self._notes = counts.notes(self._rows, self._repeated, flag=self._has_flag)

    def _usable(self, raw: "_Raw", book: Book, counts: "_Counts") -> Trades:
        empty = raw.size == 0
        with np.errstate(invalid="ignore"):
            sane = usable(raw.price, raw.size) & np.isfinite(raw.flag)
            bad = ~sane | self._off_quotes(raw.time_ns, raw.price, book)
        good = ~bad & ~empty
        counts.bad += int(bad.sum())
        counts.empty += int((empty & ~bad).sum())
        trades = Trades(raw.time_ns, raw.sequence, raw.price, raw.size, raw.flag > 0)
        return trades if good.all() else trades.take(good)

    def _off_quotes(self, time: Integers, price: Floats, book: Book) -> Booleans:
        if not len(book.time_ns) or not len(time):
            return np.zeros(len(time), np.bool_)
        facts = self._facts
        least, greatest = facts.lowest, facts.highest
        if least <= price.min() and price.max() <= greatest <= least * (1 + self._band_bps / 1e4):
            return np.zeros(len(time), np.bool_)  # no quote of the day is further off than the band
        # the quotes around a trade: a feed may send it just before the quote that it moved
        before = book.before(time)
        after = np.minimum(before + 1, len(book.time_ns) - 1)
        low = np.minimum(book.bid[before], book.bid[after])
        high = np.maximum(book.ask[before], book.ask[after])
        outside: Booleans = off_band(price, low, high, self._band_bps, facts.tightest_bps)
        return outside

    def _raw(self, chunk: pa.Table) -> "_Raw":
        table = require(_boolean(chunk), self._kinds, self._where)
        time = stamps(table, self._where)
        # a trade without a number is not known to be earlier than a row of its stamp
        latest = np.iinfo(np.int64).max
        sequence = NO_SEQUENCE
        if SEQUENCE in self._kinds:
            sequence = table[SEQUENCE].fill_null(latest).to_numpy()
        flag = floats(table, AGGRESSOR) if self._has_flag else np.zeros(len(time))
        return _Raw(time, sequence, floats(table, "price"), floats(table, "size"), flag)

    def _ordered(self, trades: Rows) -> tuple[Rows, int, int]:
        """The trades in time order, each id once; how many there were, how many left out."""
        name = next((name for name in IDS if name in trades.schema.names), None)
        if name is not None and not _comparable(trades.schema.field(name).type):
            raise SchemaError(
                f"column {name!r} has the wrong type: expected integers or text, "
                f"found {trades.schema.field(name).type}",
                where=self._where,
                remedy="write trade ids as integers or text, or leave the column out",
            )
        count = self._counted_in_order(trades, name)
        if count is not None:
            return trades, count, 0
        table = whole(trades)
        rows, repeated = table.num_rows, 0
        if name is not None:
            ids = pl.Series(table[name])
            first = ids.is_first_distinct() | ids.is_null()
            table, repeated = table.filter(first.to_arrow()), int((~first).sum())
        raw = self._raw(table)
        keys = (raw.sequence, raw.time_ns) if len(raw.sequence) else (raw.time_ns,)
        return TableRows(table.take(pa.array(np.lexsort(keys))), CHUNK_ROWS), rows, repeated

    def _counted_in_order(self, trades: Rows, name: str | None) -> int | None:
        """Their number if they are in time order and their ids grow, else None."""
        newest: tuple[int, int] | None = None
        newest_id: int | None = None
        rows = 0
        for chunk in trades.chunks():
            raw = self._raw(chunk)
            rows += len(raw.time_ns)
            if not len(raw.time_ns):
                continue
            number = raw.sequence if len(raw.sequence) else np.zeros(len(raw.time_ns), np.int64)
            step = np.diff(raw.time_ns)
            if ((step < 0) | ((step == 0) & (np.diff(number) < 0))).any():
                return None
            if newest is not None and (int(raw.time_ns[0]), int(number[0])) < newest:
                return None
            newest = int(raw.time_ns[-1]), int(number[-1])
            if name is not None:
                if not pa.types.is_integer(chunk[name].type) or chunk[name].null_count:
                    return None
                ids = chunk[name].to_numpy()
                if (ids[1:] <= ids[:-1]).any() or (newest_id is not None and ids[0] <= newest_id):
                    return None
                newest_id = int(ids[-1])
        return rows


class _Raw(NamedTuple):
    """Trades as they are in the source; every array is (M,), `sequence` empty without one."""

    time_ns: Integers
    sequence: Integers
    price: Floats
    size: Floats
    flag: Floats

    def part(self, start: int, stop: int) -> "_Raw":
        part = slice(start, stop)
        return _Raw(
            self.time_ns[part],
            self.sequence[part],
            self.price[part],
            self.size[part],
            self.flag[part],
        )


class _Counts:
    def __init__(self, facts: QuoteFacts) -> None:
        self._facts = facts
        self.bad = self.empty = self.outside = self.bought = self.sold = 0
        self._first: int | None = None
        self._last: int | None = None

    def add(self, raw: _Raw, trades: Trades) -> None:
        self._first = int(raw.time_ns[0]) if self._first is None else self._first
        self._last = int(raw.time_ns[-1])
        sold = int(trades.sell.sum())
        self.sold += sold
        self.bought += len(trades.sell) - sold
        if self._facts.first is None or self._facts.last is None:
            self.outside += len(trades.time_ns)
        else:
            early = trades.time_ns < self._facts.first
            self.outside += int((early | (trades.time_ns > self._facts.last)).sum())

    def notes(self, rows: int, repeated: int, *, flag: bool) -> TradeNotes:
        return TradeNotes(
            rows=rows,
            repeated=repeated,
            empty=self.empty,
            bad=self.bad,
            outside=self.outside,
            first=None if self._first is None else moment(self._first),
            last=None if self._last is None else moment(self._last),
            bought=self.bought,
            sold=self.sold,
            aggressor="flag" if flag else "Lee-Ready",
        )


def _paired(chunks: Iterator[_Raw], found: Iterator[Book]) -> Iterator[tuple[_Raw, Book]]:
    """Pieces of trades, each with the part of the book that holds the quotes around it."""
    book, complete = _more(EMPTY, found)
    for raw in chunks:
        done, count = 0, len(raw.time_ns)
        while done < count:
            stop = count
            if not complete:
                stop = int(np.searchsorted(raw.time_ns, book.time_ns[-1], side="right"))
            if stop > done:
                yield raw.part(done, stop), book
                done = stop
            if done < count:
                book, complete = _more(book.take(slice(-1, None)), found)


def _more(book: Book, found: Iterator[Book]) -> tuple[Book, bool]:
    """The book and its next part: two quotes or more, unless the day has no more of them."""
    start = len(book.time_ns)
    for part in found:
        book = book.followed_by(part)
        if len(book.time_ns) >= max(2, start + 1):
            return book, False
    return book, True


def _mids(time_ns: Integers, book: Book) -> Floats:
    """Mid of the quote strictly before each time, NaN without quotes."""
    if not len(book.time_ns):
        return np.full(len(time_ns), np.nan)
    before = book.before(time_ns)
    return (book.bid[before] + book.ask[before]) / 2


def _boolean(table: pa.Table) -> pa.Table:
    """The table with an aggressor flag of 0 and 1 as false and true."""
    if AGGRESSOR not in table.column_names or not pa.types.is_integer(table[AGGRESSOR].type):
        return table
    if not set(pc.unique(table[AGGRESSOR]).to_pylist()) <= {0, 1, None}:
        return table  # not a flag: the caller names the column
    flag = table[AGGRESSOR].cast(pa.bool_())
    return table.set_column(table.column_names.index(AGGRESSOR), AGGRESSOR, flag)


def _comparable(kind: pa.DataType) -> bool:
    """Whether ids of this type can be compared (Polars has no decimal of 256 bits)."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    known = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null,
    )  # fmt: skip
    return any(test(kind) for test in known)


def lee_ready(time_ns: Integers, price: Floats, book: Book) -> Booleans:
    """True where the aggressor sold, (M,).

    Args:
        time_ns: stamps in time order, (M,).
        price: of the trades, (M,).
        book: the day's usable quotes.
    """
    sold: Booleans = classify_all(price, _mids(time_ns, book))
    return sold


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
