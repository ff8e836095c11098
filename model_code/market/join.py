"""Fold trades into quotes: one row per quote, every trade value known before the row's own time.

Shapes: N quote rows, M trades. There is no look-ahead: a row's values come from earlier rows and
from trades that are known to be earlier. A trade is known to be earlier if its stamp is or, if both
files have a column `sequence`, if it has the same stamp and a smaller number. With stamps of 1 ms a
trade of the same stamp may come after the quote, most often in bursts, where labels are 1.

Only which rows and trades are usable at all (a clock contradicts its neighbours, a price is far off
the quotes) is decided with the whole day in view, as all validation is.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.compiled import compiled
from model_code.market import trades as trade_rules
from model_code.market.measures import DayFacts, DayScan
from model_code.market.notes import DayNotes, Loaded
from model_code.market.order import Disorder
from model_code.market.schema import InstrumentDay, conform, floats, moment, require, stamps
from model_code.market.stream.merge import Traded, TradeMerge
from model_code.market.stream.quotes import COLUMNS as QUOTE_COLUMNS
from model_code.market.stream.quotes import QuoteFacts, QuoteScan, scan_quotes
from model_code.market.stream.rows import Rows, TableRows
from model_code.market.trades import SEQUENCE, Trades, TradeStream

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
_LOOK_UPS = 1 << 16  # rows out of order whose trades are looked up at once

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]
Pieces = Callable[[], Iterator[Trades]]


class FoldedDay:
    """One instrument-day, read in chunks: quotes with usable trades folded in.

    Memory holds a chunk, the trades around it, and the rows and trades out of order. The quotes are
    read twice or, where the clock goes back, up to six times.

    Args:
        quotes: the columns of `QUOTES`, optionally of `OWN` and `sequence`; N rows in source order.
        trades: see `model_code.market.trades.TradeStream`; None if the source has none.
        symbol: written to every row.
        notes: what the reader knows: files, moved and repeated rows, warnings.
        where: the quotes' file, for messages.
        trades_where: the trades' file, for messages.
        trade_band_bps: a trade further off the quotes is bad.
    """

    def __init__(
        self,
        quotes: Rows,
        trades: Rows | None,
        symbol: str,
        notes: DayNotes,
        *,
        where: str,
        trades_where: str,
        trade_band_bps: float,
    ) -> None:
        names = quotes.schema.names
        own = {name: kind for name, kind in OWN.items() if name in names}
        if trades is not None:
            own = {name: kind for name, kind in own.items() if name not in FROM_TRADES}
        kinds = QUOTES | own
        if SEQUENCE in names:
            kinds = kinds | {SEQUENCE: pa.int64()}
        self.own = tuple(own)
        self._quotes = _Required(quotes, kinds, where)
        self._trades, self._symbol, self._notes = trades, symbol, notes
        self._where, self._trades_where, self._band_bps = where, trades_where, trade_band_bps
        self._facts: QuoteFacts | None = None
        self._stream: TradeStream | None = None

    @property
    def traded(self) -> bool:
        """Whether the source has trades."""
        return self._trades is not None

    @property
    def sized(self) -> bool:
        """Whether a quote has a size."""
        names = ("bid_size", "ask_size")
        return any(
            chunk[name].null_count < chunk.num_rows
            for chunk in self._quotes.chunks(names)
            for name in names
        )

    def measure(self, day: InstrumentDay) -> tuple[int, DayFacts]:
        """How many rows the day has, and the figures that their measures refer to.

        Raises:
            SchemaError: a column is missing or has the wrong type.
            DataError: a time stamp is null.
        """
        scan = DayScan(day)
        facts = self._scan(scan.add)
        return facts.rows, scan.facts(self._quotes)

    def _scan(self, also: Callable[[pa.Table], None] | None = None) -> QuoteFacts:
        scan = QuoteScan(self._where)
        for chunk in self._quotes.chunks(QUOTE_COLUMNS):
            scan.add(chunk)
            if also:
                also(chunk)
        self._facts = scan.facts(self._quotes)
        if self._trades is not None:
            self._stream = TradeStream(
                self._trades,
                self._quotes,
                self._facts,
                self._trades_where,
                band_bps=self._band_bps,
            )
        return self._facts

    def chunks(self, seen: Callable[[Trades], None] | None = None) -> Iterator[pa.Table]:
        """TICKS rows, one per quote in source order.

        Args:
            seen: called with the usable trades, piece by piece.

        Raises:
            SchemaError: a column is missing or has the wrong type.
            DataError: a time stamp is null.
        """
        facts = self._facts or self._scan()
        pieces: Pieces | None = None
        if self._stream is not None:
            pieces = self._stream.pieces
        return fold_chunks(
            self._quotes, pieces, facts.disorder, self._symbol, self._where, seen=seen
        )

    @property
    def notes(self) -> DayNotes:
        """What was read; complete once `chunks` has been read to its end."""
        facts = self._facts or self._scan()
        warnings = list(self._notes.warnings)
        update: dict[str, Any] = {"resolution": facts.resolution}
        if self._stream is not None:
            counts = update["trades"] = self._stream.notes
            span = None
            if facts.earliest is not None and facts.latest is not None:
                span = moment(facts.earliest), moment(facts.latest)
            warnings += trade_rules.warnings(counts, span)
        return self._notes.model_copy(update=update | {"warnings": tuple(warnings)})

    def loaded(self) -> Loaded:
        """The whole day in memory."""
        used: list[Trades] = []
        self._scan()
        ticks = pa.concat_tables(self.chunks(used.append))
        numbers = [_sequence(chunk) for chunk in self._quotes.chunks((SEQUENCE, "timestamp"))]
        return Loaded(
            ticks,
            self.notes,
            trades=Trades.joined(used) if self.traded else None,
            sequence=np.concatenate(numbers),
            own=self.own,
        )


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
    """One instrument-day in memory, from tables; arguments and errors as `FoldedDay`."""
    return FoldedDay(
        TableRows(quotes),
        None if trades is None else TableRows(trades),
        symbol,
        notes,
        where=where,
        trades_where=trades_where,
        trade_band_bps=trade_band_bps,
    ).loaded()


def fold(quotes: pa.Table, trades: Trades | None, symbol: str, where: str) -> pa.Table:
    """`fold_chunks` of a table and its usable trades."""
    rows = TableRows(quotes)
    pieces = None if trades is None else lambda: iter([trades])
    disorder = scan_quotes(rows, where).disorder
    return pa.concat_tables(fold_chunks(rows, pieces, disorder, symbol, where))


def fold_chunks(
    quotes: Rows,
    pieces: Pieces | None,
    disorder: Disorder,
    symbol: str,
    where: str,
    *,
    seen: Callable[[Trades], None] | None = None,
) -> Iterator[pa.Table]:
    """TICKS rows, one per quote in source order, with the trades folded in.

    A row counts the trades since the previous row that are known to be earlier than itself. The
    first row counts none: `last_trade` and `vwap` alone remember what was traded before it. A row
    that its neighbours contradict (its clock is ahead or behind) counts none either.

    Args:
        quotes: the columns of `QUOTES`, optionally of `OWN` and `sequence`; N rows in any order.
        pieces: gives usable trades in time order from the first on; None when the source has none.
        disorder: the rows that their neighbours contradict.
        symbol: written to every row.
        where: the file, for messages.
        seen: called with each piece of the trades, all of them by the end.

    Raises:
        SchemaError: a column has the wrong type.
        DataError: a time stamp is null.
    """
    merge, looked_up = None, Traded.empty(0)
    if pieces is not None:
        if len(disorder.row_K):
            looked_up = _looked_up(quotes, pieces, disorder)
        merge = TradeMerge(_seen(pieces(), seen))
    average, start = _Average(), 0
    for chunk in quotes.chunks():
        time, n = stamps(chunk, where), chunk.num_rows
        columns: dict[str, Any] = {name: chunk[name] for name in QUOTES}
        columns["symbol"] = pa.repeat(symbol, n)
        columns["label"] = pa.nulls(n, pa.int8())
        odd = disorder.within(start, n).row_K
        traded = None
        if merge is not None:
            first = int(np.searchsorted(disorder.row_K, start))
            known = looked_up.take(slice(first, first + len(odd)))
            traded = _traded(merge, time, _sequence(chunk), odd, known)
        columns |= _trade_columns(traded, n)
        columns |= {name: chunk[name] for name in OWN if name in chunk.column_names}
        if "feature_ema_1min" not in columns:
            columns["feature_ema_1min"] = average.of(chunk, time)
        start += n
        yield conform(pa.table(columns), where)
    if merge is not None:
        merge.finish()


def _seen(pieces: Iterator[Trades], seen: Callable[[Trades], None] | None) -> Iterator[Trades]:
    for piece in pieces:
        if seen:
            seen(piece)
        yield piece


def _traded(
    merge: TradeMerge, time: Stamps, sequence: Stamps, odd: Stamps, known: Traded
) -> Traded:
    """What was traded before each row of a chunk; rows out of order were looked up before."""
    if not len(odd):
        return merge.traded(time, sequence)
    kept = np.ones(len(time), np.bool_)
    kept[odd] = False
    found = Traded.empty(len(time))
    found.put(kept, merge.traded(time[kept], sequence[kept] if len(sequence) else sequence))
    found.put(odd, known)
    return found


def _looked_up(quotes: Rows, pieces: Pieces, disorder: Disorder) -> Traded:
    """What was traded before each row out of order, wherever its stamp lies in the day."""
    times, numbers, start = [], [], 0
    for chunk in quotes.chunks(("timestamp", SEQUENCE)):
        odd = disorder.within(start, chunk.num_rows).row_K
        times.append(stamps(chunk)[odd])
        sequence = _sequence(chunk)
        numbers.append(sequence[odd] if len(sequence) else sequence)
        start += chunk.num_rows
    time, number = np.concatenate(times), np.concatenate(numbers)
    order = np.argsort(time, kind="stable")
    time, number = time[order], number[order] if len(number) else number
    merge = TradeMerge(pieces(), volumes=False)
    parts = [
        merge.traded(time[at : at + _LOOK_UPS], number[at : at + _LOOK_UPS])
        for at in range(0, len(time), _LOOK_UPS)
    ]
    merge.finish()
    found = Traded.empty(len(time))
    found.put(order, Traded.joined(parts))
    return found


class _Required:
    """Rows in the types of the schema."""

    def __init__(self, rows: Rows, kinds: dict[str, pa.DataType], where: str) -> None:
        self._rows, self._kinds, self._where = rows, kinds, where

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(self._kinds)

    def chunks(self, names: Any = None) -> Iterator[pa.Table]:
        kinds = self._kinds
        if names is not None:
            kinds = {name: kind for name, kind in kinds.items() if name in names}
        for chunk in self._rows.chunks(list(kinds)):
            yield require(chunk, kinds, self._where)


def _sequence(quotes: pa.Table) -> Stamps:
    if SEQUENCE not in quotes.column_names:
        return np.empty(0, np.int64)
    found: Stamps = quotes[SEQUENCE].fill_null(np.iinfo(np.int64).min).to_numpy()
    return found


def _trade_columns(traded: Traded | None, rows: int) -> dict[str, Any]:
    if traded is None:
        return {
            "last_trade": pa.nulls(rows, pa.float64()),
            "vwap": pa.nulls(rows, pa.float64()),
            "buy_volume": np.zeros(rows),
            "sell_volume": np.zeros(rows),
            "trade_count": np.zeros(rows, np.int32),
        }
    none = traded.before == 0
    mask = none if none.any() else None
    return {
        "last_trade": pa.array(traded.price, mask=mask),
        "vwap": pa.array(traded.vwap, mask=mask),
        "buy_volume": traded.bought,
        "sell_volume": traded.sold,
        "trade_count": traded.count,
    }


class _Average:
    """The 1-minute average of the imbalance, carried from chunk to chunk."""

    def __init__(self) -> None:
        self._average, self._newest = np.nan, None

    def of(self, chunk: pa.Table, time: Stamps) -> pa.Array:
        bid, ask = (floats(chunk, name) for name in ("bid_size", "ask_size"))
        with np.errstate(invalid="ignore", divide="ignore"):
            share = bid / (bid + ask)
        if self._newest is None and len(time):
            self._newest = time[0]
        averages, self._average, self._newest = decay_on(
            time, share, EMA_TAU_S * 1e9, self._average, self._newest or 0
        )
        absent = np.isnan(averages)
        return pa.array(averages, mask=absent if absent.any() else None)


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
    newest = row_time[0] if len(row_time) else 0
    return decay_on(row_time, values, tau_ns, np.nan, newest)[0]  # type: ignore[no-any-return]


@compiled
def decay_on(row_time, values, tau_ns, average, newest):  # type: ignore[no-untyped-def]
    """`decayed_average` after other values: (N,), and what the values that follow begin with."""
    averages = np.empty(len(values))
    for i in range(len(values)):
        average, newest = decay(average, newest, row_time[i], values[i], tau_ns)
        averages[i] = average
    return averages, average, newest
