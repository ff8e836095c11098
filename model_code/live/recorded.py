"""Recorded days as the messages that a feed handler would have sent.

Rows that validation sets aside with the day in view are not played: the clock contradicts their
neighbours, a price jumps, a vwap leaves the day's range. Rows that break a rule of
`row_check.LOCAL` are played, and the live path must find them itself.

Shapes: N rows of an instrument-day, M messages.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import polars as pl
import pyarrow as pa
from msgspec.structs import replace
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.live.messages import Quote, Tick, Trade
from model_code.market import join
from model_code.market.measures import derive
from model_code.market.notes import Loaded
from model_code.market.profiles import Limits, limits, presumed
from model_code.market.quality import count_faults, divide, find_faults, row_rules
from model_code.market.row_check import LOCAL, local_rules
from model_code.market.schema import InstrumentDay, stamps
from model_code.market.store import MarketStore
from model_code.market.trades import SEQUENCE, Trades
from model_code.settings import ValidationSpec

DAY_NS = 86_400_000_000_000
FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class PlayedDay:
    """One instrument-day as it is played, and as the batch pipeline sees the same rows.

    Attributes:
        day: which.
        quotes: N rows to play: the columns of `join.QUOTES`, and what the source gives itself.
        trades: usable trades; None without any in the source.
        ticks: rows of the batch pipeline, validated.
        left_out: rows that are not played, by rule.
    """

    day: InstrumentDay
    quotes: pa.Table
    trades: Trades | None
    ticks: pa.Table
    left_out: dict[str, int]

    @property
    def messages(self) -> int:
        """How many messages the day is."""
        return int(self.quotes.num_rows) + (0 if self.trades is None else len(self.trades.time_ns))


def bounds_of(store: MarketStore, loaded: Loaded) -> Limits:
    """The thresholds of validation for a store's day."""
    sized = bool(loaded.ticks["bid_size"].null_count < loaded.ticks.num_rows)
    profile = store.statement.profile or presumed(sized=sized, traded=loaded.trades is not None)
    return limits(ValidationSpec(), profile)


def played(store: MarketStore, day: InstrumentDay) -> tuple[PlayedDay, Limits]:
    """Read an instrument-day and divide it into what is played and what is not.

    Raises:
        MarketError: it cannot be read.
        DataError: no row is left.
    """
    loaded = store.load(day)
    bounds = bounds_of(store, loaded)
    measures = derive(loaded.ticks, day)
    rules = tuple(rule for rule in row_rules(bounds) if rule.name not in LOCAL)
    faults = find_faults(measures, rules)
    kept = ~faults.select(pl.any_horizontal(pl.all())).to_series().to_numpy()
    if not kept.any():
        raise DataError(
            f"validation leaves no row of {day.symbol} on {day.date}",
            where=store.uri,
            remedy="see why: tickline data describe",
        )
    names = [*join.QUOTES, *(name for name in join.OWN if name in loaded.own)]
    quotes = loaded.ticks.select(names)
    if len(loaded.sequence):
        quotes = quotes.append_column(SEQUENCE, pa.array(loaded.sequence))
    quotes = quotes.filter(pa.array(kept))
    joined = join.fold(quotes, loaded.trades, day.symbol, store.uri)
    again = derive(joined, day)
    ticks, _ = divide(joined, find_faults(again, local_rules(bounds)), again["repeat"])
    return PlayedDay(day, quotes, loaded.trades, ticks, count_faults(faults)), bounds


class Feed:
    """Recorded days as messages in the order of their stamps, with gapless sequence numbers.

    Args:
        session: of the messages; a feed that starts again needs a larger one.
    """

    def __init__(self, session: int = 0) -> None:
        self._session = session
        self._next: dict[str, int] = {}

    def messages(self, days: Sequence[PlayedDay]) -> Iterator[Tick]:
        """The messages of one date; days of different instruments are merged.

        Of one stamp, the source's own numbers decide within an instrument; without them a trade
        follows the quote.
        """
        time, number, place, kind, row = (
            np.concatenate(columns)
            for columns in zip(*map(_keys, range(len(days)), days), strict=True)
        )
        order = np.lexsort((row, kind, number, place, time))
        makers = [_Maker(day, self._session) for day in days]
        for where, is_trade, index in zip(
            place[order].tolist(), kind[order].tolist(), row[order].tolist(), strict=True
        ):
            symbol = days[where].day.symbol
            sequence = self._next[symbol] = self._next.get(symbol, 0) + 1
            make = makers[where].trade if is_trade else makers[where].quote
            yield make(index, sequence)


def endless(
    store: MarketStore, catalog: Sequence[InstrumentDay], session: int = 0
) -> Iterator[Tick]:
    """All days, again and again; each pass is later by whole days, sequence numbers go on."""
    days = sorted(catalog, key=lambda day: day.date)
    span_ns = ((days[-1].date - days[0].date).days + 1) * DAY_NS
    feed, later_ns = Feed(session), 0
    while True:
        for _, group in groupby(days, key=lambda day: day.date):
            for tick in feed.messages([played(store, one)[0] for one in group]):
                yield replace(tick, local_ns=tick.local_ns + later_ns) if later_ns else tick
        later_ns += span_ns


def _keys(place: int, day: PlayedDay) -> tuple[NDArray[np.int64], ...]:
    """Of each message: stamp, number, place of its day, whether a trade, row; all (M,)."""
    time, n = stamps(day.quotes), day.quotes.num_rows
    number = np.full(n, FIRST)
    if SEQUENCE in day.quotes.column_names:
        number = day.quotes[SEQUENCE].to_numpy()
    kind, row = np.zeros(n, np.int64), np.arange(n)
    if day.trades is not None:
        m = len(day.trades.time_ns)
        own = day.trades.sequence if len(day.trades.sequence) else np.full(m, LAST)
        time, number = np.append(time, day.trades.time_ns), np.append(number, own)
        kind, row = np.append(kind, np.ones(m, np.int64)), np.append(row, np.arange(m))
    return time, number, np.full(len(time), place), kind, row


class _Maker:
    """Makes the messages of one instrument-day."""

    def __init__(self, day: PlayedDay, session: int) -> None:
        self._symbol, self._session = day.day.symbol, session
        self._time = stamps(day.quotes).tolist()
        table = day.quotes
        names = [name for name in table.column_names if name not in ("timestamp", "label")]
        self._names = ["source_sequence" if name == SEQUENCE else name for name in names]
        self._values = list(zip(*(_cells(table, name) for name in names), strict=True))
        trades = day.trades
        if trades is not None:
            sequence = trades.sequence.tolist() or [None] * len(trades.time_ns)
            columns = (trades.time_ns, trades.price, trades.size, trades.sell)
            self._trades = list(
                zip(*(column.tolist() for column in columns), sequence, strict=True)
            )

    def quote(self, row: int, sequence: int) -> Quote:
        values = dict(zip(self._names, self._values[row], strict=True))
        return Quote(
            symbol=self._symbol, sequence=sequence, session=self._session,
            local_ns=self._time[row], **values,
        )  # fmt: skip

    def trade(self, row: int, sequence: int) -> Trade:
        time, price, size, sell, number = self._trades[row]
        return Trade(
            symbol=self._symbol, sequence=sequence, session=self._session, local_ns=time,
            price=price, size=size, buyer_is_maker=sell, source_sequence=number,
        )  # fmt: skip


def _cells(table: pa.Table, name: str) -> list[float | None]:
    """A column's values; what the source gives itself is NaN, not None, where it is missing."""
    cells: list[float | None] = table[name].to_pylist()
    if name in ("bid_size", "ask_size"):
        return cells
    if name == SEQUENCE:
        return [None if cell == FIRST else cell for cell in cells]
    return [np.nan if cell is None else cell for cell in cells]
