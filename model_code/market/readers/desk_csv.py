"""The desk's CSV: one file, or a folder of them at any depth, by fsspec URI.

Columns, in any order: `timestamp,bid_price,ask_price,bid_size,ask_size,last_trade,vwap,
feature_ema_1min` and, optionally, `label`; others are named and not used. Plain, `.csv.gz` or
`.csv.zst`; quoted as in RFC 4180 or not.

Symbol: from the file's name, `<SYMBOL>.csv` or `<SYMBOL>_<date>*.csv` (also with `-`, `.` or a
blank; the date as 2025-03-03, 20250303 or 2025-03), or from its folder, `symbol=<SYMBOL>/` or
`<SYMBOL>/<date>.csv`. A file may span several days, and a day several files that follow each other
in time. Rows are split by UTC date.

Time stamps are UTC, to the nanosecond: `2025-01-23T09:30:00.1Z`, `2025-01-23T09:30:00Z`, pandas'
`2025-01-23 09:30:00.1+00:00`, and the desk's short form without seconds, `2025-01-23T09:30Z` and
`2025-01-23T09:30.1Z`. In the short form the fraction is of a SECOND (09:30:00.1, the desk's 100 ms
clock), not of a minute as in ISO 8601.

The CSV has no trades: volumes and trade counts are 0. Empty cells and NaN are kept, for validation
to quarantine. A cell that is not a number is an error.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, NamedTuple
from urllib.parse import unquote

import fsspec
import polars as pl

from model_code.errors import MarketError
from model_code.market.day_parts import DayParts
from model_code.market.join import OWN
from model_code.market.notes import DayNotes, Loaded
from model_code.market.readers.base import FileStore
from model_code.market.readers.desk_cells import HEADER, header, parse, stamps_of
from model_code.market.readers.files import (
    PassedOver,
    lines_of,
    parse_date,
    partitions,
    read_blocks,
    refuse_overlap,
    relative,
    require_days,
    walk,
)
from model_code.market.schema import InstrumentDay, conform
from model_code.market.stream.quotes import resolution

LAYOUT = "<SYMBOL>.csv or <SYMBOL>_<YYYY-MM-DD>.csv (also .csv.gz, .csv.zst)"

_SUFFIX = re.compile(r"\.csv(?:\.gz|\.zst)?$")
_DATED = re.compile(r"(?:^|[_\-. ]|(?<=[A-Za-z]))(\d{4}-\d{2}(?:-\d{2})?|\d{8})(?=$|[_\-. T])")


class _Span(NamedTuple):
    """Rows of one instrument-day in one file; its first and last stamp in ns."""

    path: str
    rows: int
    first: int
    last: int


class DeskCsvStore(FileStore):
    """Instrument-days of the desk's CSV files."""

    KIND: ClassVar[str] = "desk-csv"

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        super().__init__(uri, fs, root)
        self._passed: list[PassedOver] = []
        self._split = DayParts()

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether `root` is a CSV file or a folder with one."""
        return any(_SUFFIX.search(path) for path in walk(fs, root.rstrip("/")))

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day, sorted; reads the time stamps of every file.

        Raises:
            MarketError: there is none.
            SchemaError, DataError: a header or a time stamp cannot be read.
        """
        require_days(self._parts, self._paths, self._root, LAYOUT)
        return tuple(
            InstrumentDay(date, symbol, sum(part.rows for part in parts))
            for (date, symbol), parts in sorted(self._parts.items())
        )

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files that are not read."""
        _ = self._parts
        return tuple(self._passed)

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:  # noqa: ARG002
        """One instrument-day as TICKS, rows in source order, with notes.

        Args:
            day: the instrument-day.
            trade_band_bps: not used: the CSV has no trades.

        Raises:
            MarketError: two files cover the same time.
            SchemaError: a column is missing or there twice, or a cell is not a number.
            DataError: a time stamp cannot be read.
        """
        spans = [(part.path, part.first, part.last) for part in self._of(day)]
        paths = [
            path for path, _, _ in refuse_overlap(spans, f"{day.symbol} {day.date}", self._root)
        ]
        frames, warnings = [], []
        for path in paths:
            frames += self._rows(path, day.date)
            extra = [name for name in self._header(path) if name not in HEADER]
            warnings += [f"columns not used: {', '.join(extra)}"] * bool(extra)
        if not frames:
            raise self._no_rows(day)
        table = pl.concat(frames).with_columns(
            symbol=pl.lit(day.symbol), buy_volume=0.0, sell_volume=0.0, trade_count=0
        )
        notes = DayNotes(
            files=tuple(relative(path, self._root) for path in paths),
            resolution=resolution(table["timestamp"].cast(pl.Int64).to_numpy()),
            warnings=tuple(dict.fromkeys(warnings)),
        )
        return Loaded(conform(table.to_arrow(), self._root), notes, own=tuple(OWN))

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the files that contain the day and what the store states."""
        return self._digest(part.path for part in self._of(day))

    def _of(self, day: InstrumentDay) -> list[_Span]:
        try:
            return self._parts[day.date, day.symbol]
        except KeyError as error:
            raise self._no_rows(day) from error

    def _no_rows(self, day: InstrumentDay) -> MarketError:
        return MarketError(
            f"no rows for {day.symbol} on {day.date}",
            where=self.uri,
            remedy="list the store's contents: tickline data describe",
        )

    def _header(self, path: str) -> tuple[str, ...]:
        return header(next(read_blocks(self._fs, path), b""), path)

    def _rows(self, path: str, date: dt.date) -> list[pl.DataFrame]:
        """A file's rows of one date, in parts; a file of several dates is parsed once for all."""
        if self._dates[path] > 1:
            return self._split.rows(path, date, lambda: self._typed(path))
        return [part.filter(pl.col("timestamp").dt.date() == date) for part in self._typed(path)]

    def _typed(self, path: str) -> Iterator[pl.DataFrame]:
        pieces = lines_of(read_blocks(self._fs, path), trim=True)
        return parse(pieces, path, self.statement.timestamp_unit)

    def _spans(self, path: str) -> dict[dt.date, _Span]:
        """Where each date's rows are."""
        spans: dict[dt.date, _Span] = {}
        pieces = lines_of(read_blocks(self._fs, path), trim=True)
        for times in stamps_of(pieces, path, self.statement.timestamp_unit):
            time = pl.col("timestamp")
            days = times.group_by(time.dt.date().alias("date")).agg(
                rows=pl.len(), first=time.min().cast(pl.Int64), last=time.max().cast(pl.Int64)
            )
            for date, rows, first, last in days.iter_rows():
                known = spans.get(date, _Span(path, 0, first, last))
                spans[date] = _Span(
                    path, known.rows + rows, min(known.first, first), max(known.last, last)
                )
        return spans

    @cached_property
    def _dates(self) -> Counter[str]:
        """How many dates each file has."""
        return Counter(span.path for spans in self._parts.values() for span in spans)

    @cached_property
    def _parts(self) -> dict[tuple[dt.date, str], list[_Span]]:
        """Where the rows of each instrument-day are."""
        parts: dict[tuple[dt.date, str], list[_Span]] = {}
        for path in self._paths:
            below = relative(path, self._root)
            symbol = symbol_of(below)
            if not _SUFFIX.search(path):
                self._passed.append(PassedOver(below, "not a .csv file"))
            elif not symbol:
                self._passed.append(PassedOver(below, "no instrument in its name or folder"))
            else:
                spans = self._spans(path)
                for date, span in spans.items():
                    parts.setdefault((date, symbol), []).append(span)
                if not spans:
                    self._passed.append(PassedOver(below, "a header without rows"))
        return parts


def symbol_of(path: str) -> str:
    """The instrument of a file, from its folder or its name below the root; "" if neither has it.

    `ABC_2025-03-03.csv`, `2025-03-03_ABC.csv`, `ABC/2025-03-03.csv`, `symbol=ABC/part-0.csv` and
    `ABC_2025-03-03.csv/part-0.csv` are all ABC.
    """
    if symbol := partitions(path).get("symbol"):
        return _SUFFIX.sub("", symbol)
    *folders, name = path.split("/")
    while folders and _SUFFIX.search(folders[-1]):  # a folder named like a file, as Spark writes it
        name = folders.pop()
    stem = unquote(_SUFFIX.sub("", name))
    for found in _DATED.finditer(stem):
        if parse_date(found[1]) or parse_date(f"{found[1]}-01"):
            before, after = stem[: found.start()], stem[found.end() :].strip("_-. ")
            return before or after or (unquote(folders[-1]) if folders else "")
    return stem
