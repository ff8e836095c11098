"""Stores whose files are read in chunks: any file may hold several instruments and dates.

A first pass counts the rows of each instrument-day; reading one keeps only its own rows. So memory
holds one chunk and one instrument-day. Dates are UTC.
"""

import datetime as dt
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa

from model_code.errors import MarketError
from model_code.market import join
from model_code.market.notes import DayNotes, Loaded
from model_code.market.readers.base import FileStore
from model_code.market.readers.clocks import day_bounds
from model_code.market.readers.files import (
    PassedOver,
    refuse_overlap,
    relative,
    spell_dates,
    summarize,
)
from model_code.market.schema import InstrumentDay, floats
from model_code.market.stream.quotes import books, scan_quotes
from model_code.market.stream.rows import CHUNK_ROWS, Rows, TableRows
from model_code.market.stream.spill import SpilledRows
from model_code.market.trades import AGGRESSOR, SEQUENCE, lee_ready

Kind = Literal["quotes", "trades"]
KINDS: tuple[Kind, ...] = ("quotes", "trades")
POSITION = "position"
_DAY_NS = 86_400 * 10**9
_PARTS_APART = 1 << 40  # more rows than a file has

Key = tuple[dt.date, str]


class Chunk(NamedTuple):
    """Rows of one kind of one file.

    Attributes:
        kind: of the rows.
        rows: `symbol`, `timestamp` (ns since 1970, int64) and the columns of `join.QUOTES` or of
            `trades.prepare`. `position` is the place in the file's own order of quotes and trades;
            `sequence` is the source's own number.
        reason: why the rows are left out; they are only counted. "": they are used.
        rank: of several files that hold a day, only those of the lowest rank are used.
    """

    kind: Kind
    rows: pl.DataFrame
    reason: str = ""
    rank: int = 0


class Tables(NamedTuple):
    """One instrument-day before quotes and trades are joined.

    Attributes:
        quotes: the columns of `join.QUOTES`, optionally `sequence`; N rows in source order.
        trades: as `trades.prepare` takes them; None if the source has none.
        notes: the files and what was left out.
        where, trades_where: the files, for messages.
        left_out: rows by reason.
    """

    quotes: pa.Table
    trades: pa.Table | None
    notes: DayNotes
    where: str
    trades_where: str
    left_out: Counter[str]

    def joined(self, symbol: str, trade_band_bps: float) -> Loaded:
        """As TICKS, rows in source order, with notes; arguments and errors as `join.load`."""
        return self.folded(symbol, trade_band_bps).loaded()

    def folded(
        self,
        symbol: str,
        trade_band_bps: float,
        quotes: Rows | None = None,
        trades: Rows | None = None,
    ) -> join.FoldedDay:
        """As TICKS in chunks; other rows may take the tables' place."""
        if quotes is None:
            quotes = TableRows(self.quotes, CHUNK_ROWS)
            trades = None if self.trades is None else TableRows(self.trades, CHUNK_ROWS)
        return join.FoldedDay(
            quotes,
            trades,
            symbol,
            self.notes,
            where=self.where,
            trades_where=self.trades_where,
            trade_band_bps=trade_band_bps,
        )


class _Span(NamedTuple):
    """Rows of one kind and instrument-day in one file; first and last stamp in ns."""

    path: str
    rank: int
    rows: int
    first: int
    last: int


class ChunkedStore(FileStore):
    """A store that reads its files in chunks."""

    LAYOUT: str

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        super().__init__(uri, fs, root)
        self._passed: list[PassedOver] = []

    @abstractmethod
    def _refusal(self, path: str) -> str | None:
        """Why a file is not read; None if it is."""

    @abstractmethod
    def _chunks(self, path: str) -> Iterator[Chunk]:
        """The rows of a file, in its own order."""

    def _sources(self, path: str) -> list[str]:
        """The files that the rows of `path` come from."""
        return [path]

    def contains(self, folder: Path) -> bool:
        """Whether a folder of this machine is the store's root or below it."""
        local = "file" in (self._fs.protocol, *self._fs.protocol)
        return local and folder.absolute().is_relative_to(self._root)

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day with quotes, sorted; reads every file.

        Raises:
            MarketError: there is none, or a file is truncated or damaged.
            SchemaError, DataError: a file is not in its format.
        """
        days = self._days["quotes"]
        if not days:
            reasons = "; ".join(summarize(self.passed_over())) or "no file is in its format"
            raise MarketError(
                f"no instrument-day found: {reasons}",
                where=self._root,
                remedy=f"expected: {self.LAYOUT}",
            )
        return tuple(
            InstrumentDay(date, symbol, sum(span.rows for span in spans))
            for (date, symbol), spans in sorted(days.items())
        )

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files that are not read."""
        days = self._days
        passed = list(self._passed)
        for date, symbol in sorted(days["trades"].keys() - days["quotes"].keys()):
            passed += [
                PassedOver(relative(span.path, self._root), f"trades of {symbol} without quotes")
                for span in days["trades"][date, symbol]
            ]
        return tuple(dict.fromkeys(passed))

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS, rows in source order, with notes.

        Raises:
            MarketError: a file is truncated or damaged, two files cover the same time, or trades
                are absent on this day only.
            SchemaError, DataError: a file is not in its format.
        """
        return self.tables(day).joined(day.symbol, trade_band_bps)

    def tables(self, day: InstrumentDay) -> Tables:
        """One instrument-day's quotes and trades before they are joined.

        Raises:
            MarketError: see `load`.
            SchemaError, DataError: see `load`.
        """
        parts: dict[Kind, list[pl.DataFrame]] = {kind: [] for kind in KINDS}
        read = self._gather(day, lambda kind, rows: parts[kind].append(rows))
        quotes = pl.concat(parts["quotes"], how="vertical_relaxed").to_arrow()
        if not read.trades_where:
            return read._replace(quotes=quotes)
        trades = pl.concat(parts["trades"], how="vertical_relaxed").to_arrow()
        trades, more = _sides(quotes, trades)
        warnings = (*read.notes.warnings, *more)
        notes = read.notes.model_copy(update={"warnings": warnings})
        return read._replace(quotes=quotes, trades=trades, notes=notes)

    def stream(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> join.FoldedDay:
        """One instrument-day, read in chunks; see `load`.

        The day's rows wait in a temporary file. A day on which some trades name a side and others
        do not is held in memory.
        """
        parts = {kind: SpilledRows() for kind in KINDS}
        unknown = 0

        def add(kind: Kind, rows: pl.DataFrame) -> None:
            nonlocal unknown
            parts[kind].add(rows)
            if AGGRESSOR in rows.columns:
                unknown += rows[AGGRESSOR].null_count()

        read = self._gather(day, add)
        if not read.trades_where:
            return read.folded(day.symbol, trade_band_bps, parts["quotes"])
        if 0 < unknown < parts["trades"].rows:
            return self.tables(day).folded(day.symbol, trade_band_bps)
        if unknown:
            parts["trades"].leave_out(AGGRESSOR)
        return read.folded(day.symbol, trade_band_bps, parts["quotes"], parts["trades"])

    def _gather(self, day: InstrumentDay, add: Callable[[Kind, pl.DataFrame], None]) -> Tables:
        """Read the day's rows, each part given to `add`; the tables of the result are empty."""
        paths = {kind: self._paths_of(kind, day) for kind in KINDS}
        self._require_trades(day, paths["trades"])
        left_out: Counter[str] = Counter()
        together = paths["quotes"] == paths["trades"]
        start, end = day_bounds(day.date)
        own = (pl.col("symbol") == day.symbol) & pl.col("timestamp").is_between(
            start, end, closed="left"
        )
        for number, path in enumerate(dict.fromkeys([*paths["quotes"], *paths["trades"]])):
            for chunk in self._chunks(path):
                rows = chunk.rows.filter(own)
                if chunk.reason:
                    left_out[f"{chunk.kind} left out, {chunk.reason}"] += len(rows)
                elif path in paths[chunk.kind] and chunk.rank == self._rank(chunk.kind, day):
                    add(chunk.kind, _timed(_placed(rows, number, together=together)))
        warnings = [f"{reason}: {count:,}" for reason, count in left_out.items() if count]
        used = dict.fromkeys([*paths["quotes"], *paths["trades"]])
        files = dict.fromkeys(source for path in used for source in self._sources(path))
        notes = DayNotes(
            files=tuple(relative(path, self._root) for path in files),
            warnings=(*warnings, *self._remarks(day, paths["quotes"])),
        )
        return Tables(
            pa.table({}), None, notes, _where(paths["quotes"]), _where(paths["trades"]), left_out
        )

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the files that hold the day and what the store states."""
        used = dict.fromkeys(path for kind in KINDS for path in self._paths_of(kind, day))
        files = dict.fromkeys(source for path in used for source in self._sources(path))
        return self._digest(files)

    def _remarks(self, day: InstrumentDay, paths: list[str]) -> Iterator[str]:  # noqa: ARG002
        """What else the reader of the notes should know about the day's quotes."""
        yield from ()

    def _rank(self, kind: Kind, day: InstrumentDay) -> int:
        return self._days[kind][day.date, day.symbol][0].rank

    def _paths_of(self, kind: Kind, day: InstrumentDay) -> list[str]:
        """The files with the day's rows, in the order of time."""
        spans = self._days[kind].get((day.date, day.symbol), [])
        if kind == "quotes" and not spans:
            raise MarketError(
                f"no quotes of {day.symbol} on {day.date}",
                where=self.uri,
                remedy="list the store's contents: tickline data describe",
            )
        ordered = refuse_overlap(
            [(span.path, span.first, span.last) for span in spans],
            f"the {kind} of {day.symbol} {day.date}",
            self._root,
        )
        return [path for path, _, _ in ordered]

    def _require_trades(self, day: InstrumentDay, paths: list[str]) -> None:
        dates = sorted(date for date, symbol in self._days["trades"] if symbol == day.symbol)
        if dates and not paths:
            raise MarketError(
                f"{day.symbol} has no trades on {day.date}, but on {spell_dates(dates)}",
                where=self._root,
                remedy="fetch the day's trades, or exclude the day",
            )

    @cached_property
    def _days(self) -> dict[Kind, dict[Key, list[_Span]]]:
        """Where the rows of each instrument-day are."""
        found: dict[Kind, dict[Key, list[_Span]]] = {kind: {} for kind in KINDS}
        for path in self._paths:
            if reason := self._refusal(path):
                self._passed.append(PassedOver(relative(path, self._root), reason))
                continue
            spans = list(self._spans(path))
            if not spans:
                self._passed.append(PassedOver(relative(path, self._root), "no usable rows"))
            for kind, key, span in spans:
                found[kind].setdefault(key, []).append(span)
        return {kind: self._best(kind, found[kind]) for kind in KINDS}

    def _spans(self, path: str) -> Iterator[tuple[Kind, Key, _Span]]:
        sums: dict[tuple[Kind, int, int, str], list[int]] = {}
        for chunk in self._chunks(path):
            if chunk.reason:
                continue
            by_day = chunk.rows.group_by(
                pl.col("timestamp").floordiv(_DAY_NS).alias("date"), "symbol"
            ).agg(
                rows=pl.len(),
                first=pl.col("timestamp").min(),
                last=pl.col("timestamp").max(),
            )
            for date, symbol, rows, first, last in by_day.iter_rows():
                had = sums.setdefault((chunk.kind, chunk.rank, date, symbol), [0, first, last])
                had[:] = [had[0] + rows, min(had[1], first), max(had[2], last)]
        for (kind, rank, days, symbol), (rows, first, last) in sums.items():
            date = dt.date(1970, 1, 1) + dt.timedelta(days=days)
            yield kind, (date, symbol), _Span(path, rank, rows, first, last)

    def _best(self, kind: Kind, days: dict[Key, list[_Span]]) -> dict[Key, list[_Span]]:
        """Only the spans of the lowest rank of each instrument-day."""
        best = {}
        for key, spans in days.items():
            lowest = min(span.rank for span in spans)
            best[key] = [span for span in spans if span.rank == lowest]
            read = {span.path for span in best[key]}
            self._passed += [
                PassedOver(
                    relative(span.path, self._root), f"a finer file holds the {kind} of its days"
                )
                for span in spans
                if span.path not in read
            ]
        return best


def _placed(rows: pl.DataFrame, number: int, *, together: bool) -> pl.DataFrame:
    """`position` as a sequence number where quotes and trades are in the same files."""
    if POSITION not in rows.columns:
        return rows
    if not together:
        return rows.drop(POSITION)
    place = pl.col(POSITION) + number * _PARTS_APART
    return rows.with_columns(place.alias(SEQUENCE)).drop(POSITION)


def _timed(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop("symbol").with_columns(pl.col("timestamp").cast(pl.Datetime("ns", "UTC")))


def _where(paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    return f"{paths[0]}{more}" if paths else ""


def _sides(quotes: pa.Table, trades: pa.Table) -> tuple[pa.Table, list[str]]:
    """Trades with a side each where the source names some; without the flag where it names none."""
    if AGGRESSOR not in trades.column_names:
        return trades, []
    unknown = trades[AGGRESSOR].null_count
    if unknown == trades.num_rows:
        return trades.drop_columns([AGGRESSOR]), []
    if not unknown:
        return trades, []
    time = trades["timestamp"].cast(pa.int64()).to_numpy()
    order = np.argsort(time, kind="stable")
    sold = np.empty(len(time), np.bool_)
    rows = TableRows(quotes)
    (book,) = books(rows, scan_quotes(rows).unusable)
    sold[order] = lee_ready(time[order], floats(trades, "price")[order], book)
    flag = trades[AGGRESSOR].combine_chunks()
    filled = pa.array(np.where(flag.is_null(), sold, flag.fill_null(False)))
    place = trades.column_names.index(AGGRESSOR)
    return trades.set_column(place, AGGRESSOR, filled), [
        f"{unknown:,} of {trades.num_rows:,} trades have no side: classified by Lee and Ready"
    ]
