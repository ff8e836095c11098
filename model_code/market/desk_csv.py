"""The desk's CSV: one file, or a folder of them, by fsspec URI.

Header: `timestamp,bid_price,ask_price,bid_size,ask_size,last_trade,vwap,feature_ema_1min,label`
(`label` is optional). Symbol: from the file's name, `<SYMBOL>.csv` or `<SYMBOL>_<YYYY-MM-DD>*.csv`,
or from its folder, `symbol=<SYMBOL>/`. A file may span several days, and a day several files. Rows
are split by UTC date. Files are read in path order.

Time stamps are UTC, to the nanosecond: `2025-01-23T09:30:00.1Z`, `2025-01-23T09:30:00Z`, and the
desk's short form without seconds, `2025-01-23T09:30Z` and `2025-01-23T09:30.1Z`. In the short form
the fraction is of a SECOND (09:30:00.1, the desk's 100 ms clock), not of a minute as in ISO 8601.

The CSV has no trades: volumes and trade counts are 0. Empty cells and NaN are kept, for validation
to quarantine. A cell that is not a number is an error.
"""

import datetime as dt
import io
import re
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.files import digest_files
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

_STAMP = (
    r"^(?<date>\d{4}-\d{2}-\d{2})T(?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)"
    r"(?::(?<second>[0-5]\d))?(?:\.(?<fraction>\d{1,9}))?Z$"
)
_DATED = re.compile(r"_\d{4}-\d{2}-\d{2}.*$")


class DeskCsvStore:
    """Instrument-days of the desk's CSV files."""

    KIND: ClassVar[str] = "desk-csv"
    simulated = False

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self.uri, self._fs, self._root = uri, fs, root.rstrip("/")

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether `root` is a CSV file or a folder with one."""
        return bool(_csv_paths(fs, root.rstrip("/")))

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day, sorted; reads the time stamps of every file."""
        return tuple(
            InstrumentDay(date, symbol, sum(rows for _, rows in parts))
            for (date, symbol), parts in sorted(self._parts.items())
        )

    def read(self, day: InstrumentDay) -> pa.Table:
        """One instrument-day as TICKS, rows in source order.

        Raises:
            SchemaError: the header differs, or a cell is not a number.
            DataError: a time stamp cannot be read.
        """
        frames = [
            parse(self._bytes(path), path).filter(pl.col("timestamp").dt.date() == day.date)
            for path, _ in self._of(day)
        ]
        table = pl.concat(frames).with_columns(
            symbol=pl.lit(day.symbol), buy_volume=0.0, sell_volume=0.0, trade_count=0
        )
        return conform(table.to_arrow(), self._root)

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the files that contain the day."""
        return digest_files(self._fs, [path for path, _ in self._of(day)])

    def _of(self, day: InstrumentDay) -> list[tuple[str, int]]:
        try:
            return self._parts[day.date, day.symbol]
        except KeyError as error:
            raise MarketError(
                f"no rows for {day.symbol} on {day.date}",
                where=self.uri,
                remedy="list the store's contents: tickline data describe",
            ) from error

    @cached_property
    def _parts(self) -> dict[tuple[dt.date, str], list[tuple[str, int]]]:
        """(path, rows) of each instrument-day."""
        parts: dict[tuple[dt.date, str], list[tuple[str, int]]] = {}
        for path in _csv_paths(self._fs, self._root):
            times = _times(_cells(self._bytes(path), path, ("timestamp",))["timestamp"], path)
            for date, rows in times.dt.date().value_counts().iter_rows():
                parts.setdefault((date, symbol_of(path)), []).append((path, rows))
        return parts

    def _bytes(self, path: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(path))
        except OSError as error:
            raise MarketError(
                f"cannot read the file: {error}", where=path, remedy="check its permissions"
            ) from error


def symbol_of(path: str) -> str:
    """The instrument of a file, from its folder or its name."""
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if folder.startswith("symbol="):
            return folder.removeprefix("symbol=")
    return _DATED.sub("", name.removesuffix(".csv"))


def parse(data: bytes, where: str) -> pl.DataFrame:
    """Read one CSV file into typed columns (HEADER); a missing label column becomes nulls.

    Raises:
        SchemaError: the header differs, a row has too many or too few cells, or a cell is not a
            number; the message names the line, the column and the text found.
        DataError: a time stamp cannot be read; the message names the line and the text.
    """
    cells = _cells(data, where, HEADER)
    columns = [_times(cells["timestamp"], where)]
    columns += [_numbers(cells[name], pl.Float64, where) for name in NUMBERS]
    if "label" in cells.columns:
        columns.append(_numbers(cells["label"], pl.Int8, where))
    else:
        columns.append(pl.Series("label", [None] * len(cells), pl.Int8))
    return pl.DataFrame(columns)


def _csv_paths(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    if fs.isfile(root):
        return [root] if root.endswith(".csv") else []
    return sorted(fs.glob(f"{root}/**/*.csv"))


def _cells(data: bytes, where: str, wanted: tuple[str, ...]) -> pl.DataFrame:
    """The wanted columns as text; null where empty."""
    first = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()
    found = tuple(first.split(","))
    if found not in (HEADER, HEADER[:-1]):
        missing = [name for name in HEADER[:-1] if name not in found]
        raise SchemaError(
            (f"column {missing[0]!r} is missing" if missing else "the header differs")
            + f": expected {','.join(HEADER)}, found {first[:200]!r}",
            where=f"{where}, line 1",
            remedy="export the file again with the desk's header (label is optional)",
        )
    bad: list[pc.InvalidRow] = []

    def stop(row: pc.InvalidRow) -> str:
        bad.append(row)
        return "error"

    try:
        table = pc.read_csv(
            io.BytesIO(data.rstrip() + b"\n"),
            read_options=pc.ReadOptions(use_threads=False),
            parse_options=pc.ParseOptions(
                quote_char=False, ignore_empty_lines=False, invalid_row_handler=stop
            ),
            convert_options=pc.ConvertOptions(
                column_types=dict.fromkeys(HEADER, pa.string()),
                include_columns=[name for name in wanted if name in found],
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


def _times(cells: pl.Series, where: str) -> pl.Series:
    part = cells.to_frame("text").select(pl.col("text").str.extract_groups(_STAMP)).unnest("text")
    frame = part.select(
        timestamp=pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ns"))
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
            remedy="write UTC stamps such as 2025-01-23T09:30:00.1Z",
        )
    return times


def _numbers(cells: pl.Series, kind: type[pl.DataType], where: str) -> pl.Series:
    numbers = cells.cast(kind, strict=False)
    for line, text in _faulty(cells, numbers):
        raise SchemaError(
            f"column {cells.name!r} has the wrong type: expected {kind.__name__.lower()}, "
            f"found {text!r}",
            where=f"{where}, line {line}",
            remedy="correct the cell, or leave it empty to have the row quarantined",
        )
    return numbers


def _faulty(
    cells: pl.Series, parsed: pl.Series, also_empty: bool = False
) -> Iterator[tuple[int, str]]:
    """(line in the file, text) of cells that did not parse."""
    bad = parsed.is_null() if also_empty else parsed.is_null() & cells.is_not_null()
    for row in bad.arg_true():
        yield row + 2, cells[row] or ""
