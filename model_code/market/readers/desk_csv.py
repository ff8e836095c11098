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

import csv
import datetime as dt
import io
import re
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar, NamedTuple
from urllib.parse import unquote

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.join import resolution
from model_code.market.notes import DayNotes, Loaded
from model_code.market.readers.files import (
    STATEMENT,
    PassedOver,
    digest_files,
    parse_date,
    partitions,
    read_bytes,
    refuse_overlap,
    relative,
    require_days,
    walk,
)
from model_code.market.readers.statement import Statement, Unit, read_statement
from model_code.market.schema import InstrumentDay, conform

NUMBERS = (
    "bid_price",
    "ask_price",
    "bid_size",
    "ask_size",
    "last_trade",
    "vwap",
    "feature_ema_1min",
)
HEADER = ("timestamp", *NUMBERS, "label")
LAYOUT = "<SYMBOL>.csv or <SYMBOL>_<YYYY-MM-DD>.csv (also .csv.gz, .csv.zst)"

_SUFFIX = re.compile(r"\.csv(?:\.gz|\.zst)?$")
_STAMP = (
    r"^(?<date>\d{4}-\d{2}-\d{2})[T ](?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)"
    r"(?::(?<second>[0-5]\d))?(?:\.(?<fraction>\d{1,9}))?(?:Z|\+00:00|\+0000)$"
)
_LINE_END = re.compile(rb"[\r\n]")
_DATED = re.compile(r"(?:^|[_\-. ]|(?<=[A-Za-z]))(\d{4}-\d{2}(?:-\d{2})?|\d{8})(?=$|[_\-. T])")


class _Span(NamedTuple):
    """Rows of one instrument-day in one file; its first and last stamp in ns."""

    path: str
    rows: int
    first: int
    last: int


class DeskCsvStore:
    """Instrument-days of the desk's CSV files."""

    KIND: ClassVar[str] = "desk-csv"
    simulated = False

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self.uri, self._fs, self._root = uri, fs, root.rstrip("/")
        self._passed: list[PassedOver] = []

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether `root` is a CSV file or a folder with one."""
        return any(_SUFFIX.search(path) for path in walk(fs, root.rstrip("/")))

    @cached_property
    def statement(self) -> Statement:
        """What the store's `tickline.yaml` says."""
        return read_statement(self._fs, self._root)

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

    def read(self, day: InstrumentDay) -> pa.Table:
        """One instrument-day as TICKS; see `load`."""
        return self.load(day).ticks

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
        frames, warnings, unit = [], [], self.statement.timestamp_unit
        for path in paths:
            data = read_bytes(self._fs, path)
            frames.append(parse(data, path, unit).filter(pl.col("timestamp").dt.date() == day.date))
            extra = [name for name in _header(data, path) if name not in HEADER]
            warnings += [f"columns not used: {', '.join(extra)}"] * bool(extra)
        table = pl.concat(frames).with_columns(
            symbol=pl.lit(day.symbol), buy_volume=0.0, sell_volume=0.0, trade_count=0
        )
        notes = DayNotes(
            files=tuple(relative(path, self._root) for path in paths),
            resolution=resolution(table["timestamp"].cast(pl.Int64).to_numpy()),
            warnings=tuple(dict.fromkeys(warnings)),
        )
        return Loaded(conform(table.to_arrow(), self._root), notes)

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the files that contain the day and what the store states."""
        paths = [part.path for part in self._of(day)]
        return digest_files(self._fs, [*paths, *self.statement.paths])

    def _of(self, day: InstrumentDay) -> list[_Span]:
        try:
            return self._parts[day.date, day.symbol]
        except KeyError as error:
            raise MarketError(
                f"no rows for {day.symbol} on {day.date}",
                where=self.uri,
                remedy="list the store's contents: tickline data describe",
            ) from error

    @cached_property
    def _paths(self) -> list[str]:
        return walk(self._fs, self._root)

    @cached_property
    def _parts(self) -> dict[tuple[dt.date, str], list[_Span]]:
        """Where the rows of each instrument-day are."""
        parts: dict[tuple[dt.date, str], list[_Span]] = {}
        unit = self.statement.timestamp_unit
        for path in self._paths:
            below = relative(path, self._root)
            symbol = symbol_of(below)
            if not _SUFFIX.search(path):
                self._passed.append(PassedOver(below, "not a .csv file"))
            elif not symbol:
                self._passed.append(PassedOver(below, "no instrument in its name or folder"))
            else:
                cells = _cells(read_bytes(self._fs, path), path, ("timestamp",))
                times = _times(cells["timestamp"], path, unit).to_frame("time")
                days = times.group_by(pl.col("time").dt.date().alias("date")).agg(
                    rows=pl.len(),
                    first=pl.col("time").min().cast(pl.Int64),
                    last=pl.col("time").max().cast(pl.Int64),
                )
                for date, *span in days.iter_rows():
                    parts.setdefault((date, symbol), []).append(_Span(path, *span))
                if days.is_empty():
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


def parse(data: bytes, where: str, unit: Unit | None = None) -> pl.DataFrame:
    """Read one CSV file into typed columns (HEADER); a missing label column becomes nulls.

    Raises:
        SchemaError: a column is missing or there twice, a row has too many or too few cells, or a
            cell is not a number; the message names the line, the column and the text found.
        DataError: a time stamp cannot be read; the message names the line and the text.
    """
    cells = _cells(data, where, HEADER)
    columns = [_times(cells["timestamp"], where, unit)]
    columns += [_numbers(cells[name], pl.Float64, where) for name in NUMBERS]
    if "label" in cells.columns:
        columns.append(_labels(cells["label"], where))
    else:
        columns.append(pl.Series("label", [None] * len(cells), pl.Int8))
    return pl.DataFrame(columns)


def _labels(cells: pl.Series, where: str) -> pl.Series:
    """0, 1, 0.0 or 1.0 as int8; other whole numbers stay for validation to quarantine."""
    labels = cells.cast(pl.Int8, strict=False)
    if labels.null_count() == cells.null_count():
        return labels
    numbers = cells.cast(pl.Float64, strict=False)
    whole = pl.select(pl.when(numbers.is_nan().not_() & (numbers == numbers.round())).then(numbers))
    labels = whole.to_series().cast(pl.Int8, strict=False).alias(cells.name)
    _refuse(cells, labels, "0 or 1", where)
    return labels


def _header(data: bytes, where: str) -> tuple[str, ...]:
    """Column names of the first line.

    Raises:
        SchemaError: a column is missing or there twice.
    """
    end = _LINE_END.search(data)
    first = data[: end.start() if end else None].decode("utf-8-sig", "replace").strip()
    try:
        found = tuple(name.strip() for name in next(csv.reader([first]), []))
    except csv.Error:  # a name longer than the module's limit: this is no header
        found = ()
    missing = [name for name in HEADER[:-1] if name not in found]
    twice = [name for name in found if found.count(name) > 1]
    if missing or twice:
        problem = f"{missing[0]!r} is missing" if missing else f"{twice[0]!r} is there twice"
        raise SchemaError(
            f"column {problem}: expected {','.join(HEADER)}, found {first[:200]!r}",
            where=f"{where}, line 1",
            remedy="export the file again with the desk's header (label is optional)",
        )
    return found


def _cells(data: bytes, where: str, wanted: tuple[str, ...]) -> pl.DataFrame:
    """The wanted columns as text; null where empty."""
    found = _header(data, where)
    names = [name for name in wanted if name in found]
    body = data.rstrip()
    if not _LINE_END.search(body):  # a header without rows
        return pl.DataFrame({name: pl.Series([], dtype=pl.String) for name in names})
    if not body.isascii():  # as fast as memory; few files need the slower check
        _require_utf8(body, where)
    bad: list[pc.InvalidRow] = []

    def stop(row: pc.InvalidRow) -> str:
        bad.append(row)
        return "error"

    try:
        table = pc.read_csv(
            io.BytesIO(body + b"\n"),
            read_options=pc.ReadOptions(use_threads=False, column_names=list(found), skip_rows=1),
            parse_options=pc.ParseOptions(
                quote_char='"' if b'"' in body else False,  # without quotes it is faster
                ignore_empty_lines=False,
                invalid_row_handler=stop,
            ),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(HEADER, pa.string()),
                quoted_strings_can_be_null=True,
                include_columns=names,
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        if not bad:
            raise SchemaError(
                f"not readable as CSV: {error}", where=where, remedy="save it as plain UTF-8 CSV"
            ) from error
        raise SchemaError(
            f"expected {bad[0].expected_columns} cells, found {bad[0].actual_columns}: "
            f"{bad[0].text[:80]!r}",
            where=f"{where}, line {bad[0].number}",
            remedy="export the file again; a short last line means the file is truncated",
        ) from error
    frame = pl.from_arrow(table)
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _require_utf8(data: bytes, where: str) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = data[max(0, error.start - 20) : error.start + 20].decode("utf-8", "replace")
        raise SchemaError(
            f"not readable as CSV: not UTF-8 near {text!r}",
            where=f"{where}, line {line}",
            remedy="save it as plain UTF-8 CSV",
        ) from error


def _times(cells: pl.Series, where: str, unit: Unit | None = None) -> pl.Series:
    """Time stamps, UTC; integers only with the unit that the store states."""
    if unit and len(cells):
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
        numbers = cells.cast(pl.Int64, strict=False)
        limit = np.iinfo(np.int64).max // scale
        if not numbers.null_count() and numbers.is_between(-limit, limit).all():
            return (numbers * scale).cast(pl.Datetime("ns", "UTC")).alias(cells.name)
    part = cells.to_frame("text").select(pl.col("text").str.extract_groups(_STAMP)).unnest("text")
    frame = part.select(
        timestamp=pl.col("date")
        .str.to_date("%Y-%m-%d", strict=False)
        .cast(pl.Datetime("ns"), strict=False)  # null outside the years 1678 to 2261
        + pl.duration(
            hours=pl.col("hour").cast(pl.Int64),
            minutes=pl.col("minute").cast(pl.Int64),
            seconds=pl.col("second").cast(pl.Int64).fill_null(0),
            nanoseconds=pl.col("fraction").str.pad_end(9, "0").cast(pl.Int64).fill_null(0),
            time_unit="ns",
        )
    )
    times = frame["timestamp"].dt.replace_time_zone("UTC")
    for line, text in _faulty(cells, times, also_empty=True):
        raise DataError(
            f"column 'timestamp': {text!r} is not a time stamp",
            where=f"{where}, line {line}",
            remedy="write UTC stamps such as 2025-01-23T09:30:00.1Z, or state the unit of integers "
            f"in {STATEMENT}: timestamp_unit: ms",
        )
    return times


def _numbers(cells: pl.Series, kind: type[pl.DataType], where: str) -> pl.Series:
    numbers = cells.cast(kind, strict=False)
    _refuse(cells, numbers, kind.__name__.lower(), where)
    return numbers


def _refuse(cells: pl.Series, parsed: pl.Series, expected: str, where: str) -> None:
    for line, text in _faulty(cells, parsed):
        raise SchemaError(
            f"column {cells.name!r} has the wrong type: expected {expected}, found {text!r}",
            where=f"{where}, line {line}",
            remedy="correct the cell, or leave it empty to have the row quarantined",
        )


def _faulty(
    cells: pl.Series, parsed: pl.Series, also_empty: bool = False
) -> Iterator[tuple[int, str]]:
    """(line in the file, text) of cells that did not parse."""
    bad = parsed.is_null() if also_empty else parsed.is_null() & cells.is_not_null()
    for row in bad.arg_true():
        yield row + 2, cells[row] or ""
