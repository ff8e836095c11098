"""The cells of the desk's CSV: header, time stamps, numbers, labels; each error names its line."""

import csv
import io
import re
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pc

from model_code.errors import DataError, SchemaError
from model_code.market.readers.files import STATEMENT, Lines, parsed
from model_code.market.readers.statement import Unit

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
    r"^(?<date>\d{4}-\d{2}-\d{2})[T ](?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d)"
    r"(?::(?<second>[0-5]\d))?(?:\.(?<fraction>\d{1,9}))?(?:Z|\+00:00|\+0000)$"
)
_LINE_END = re.compile(rb"[\r\n]")


def parse(pieces: Iterator[Lines], where: str, unit: Unit | None = None) -> Iterator[pl.DataFrame]:
    """Read one CSV file into typed columns (HEADER); a missing label column becomes nulls.

    Args:
        pieces: the file's lines, as `lines_of` gives them, trimmed; each piece becomes a frame.
        where: the file, for messages.
        unit: of integer time stamps.

    Raises:
        SchemaError: a column is missing or there twice, a row has too many or too few cells, or a
            cell is not a number; the message names the line, the column and the text found.
        DataError: a time stamp cannot be read; the message names the line and the text.
    """

    def typed(cells: pl.DataFrame, times: pl.Series, line: int) -> pl.DataFrame:
        columns = [times, *(_numbers(cells[name], pl.Float64, where, line) for name in NUMBERS)]
        if "label" in cells.columns:
            columns.append(_labels(cells["label"], where, line))
        else:
            columns.append(pl.Series("label", [None] * len(cells), pl.Int8))
        return pl.DataFrame(columns)

    return _read(pieces, where, unit, HEADER, typed)


def stamps_of(
    pieces: Iterator[Lines], where: str, unit: Unit | None = None
) -> Iterator[pl.DataFrame]:
    """The time stamps of one CSV file (`timestamp`, UTC), without reading its other columns.

    Raises:
        SchemaError: the header differs, or a row has too many or too few cells.
        DataError: a time stamp cannot be read; the message names the line and the text.
    """
    return _read(pieces, where, unit, ("timestamp",), lambda _, times, __: times.to_frame())


def _read(
    pieces: Iterator[Lines],
    where: str,
    unit: Unit | None,
    wanted: tuple[str, ...],
    typed: Callable[[pl.DataFrame, pl.Series, int], pl.DataFrame],
) -> Iterator[pl.DataFrame]:
    head, integers = b"", None

    def read(piece: Lines) -> pl.DataFrame:
        nonlocal head, integers
        line, data = piece
        if line == 1:
            head, line = data[: data.find(b"\n") + 1], 2
        else:
            data = head + data
        cells = _cells(data, where, wanted, line)
        stamps = cells["timestamp"]
        if integers is None and len(stamps):
            integers = bool(unit) and not stamps.cast(pl.Int64, strict=False).null_count()
        return typed(cells, _times(stamps, where, unit if integers else None, line), line)

    return parsed(pieces, read)


def _labels(cells: pl.Series, where: str, first: int) -> pl.Series:
    """0, 1, 0.0 or 1.0 as int8; other whole numbers stay for validation to quarantine."""
    labels = cells.cast(pl.Int8, strict=False)
    if labels.null_count() == cells.null_count():
        return labels
    numbers = cells.cast(pl.Float64, strict=False)
    whole = pl.select(pl.when(numbers.is_nan().not_() & (numbers == numbers.round())).then(numbers))
    labels = whole.to_series().cast(pl.Int8, strict=False).alias(cells.name)
    _refuse(cells, labels, "0 or 1", where, first)
    return labels


def header(data: bytes, where: str) -> tuple[str, ...]:
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


def _cells(data: bytes, where: str, wanted: tuple[str, ...], first: int) -> pl.DataFrame:
    """The wanted columns as text, null where empty; line `first` of the file follows the header."""
    found = header(data, where)
    names = [name for name in wanted if name in found]
    body = data.removesuffix(b"\n")
    if not _LINE_END.search(body):  # a header without rows
        return pl.DataFrame({name: pl.Series([], dtype=pl.String) for name in names})
    if not body.isascii():  # as fast as memory; few files need the slower check
        _require_utf8(body, where, first)
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
            where=f"{where}, line {bad[0].number + first - 2}",
            remedy="export the file again; a short last line means the file is truncated",
        ) from error
    frame = pl.from_arrow(table)
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _require_utf8(data: bytes, where: str, first: int) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + first - 1
        text = data[max(0, error.start - 20) : error.start + 20].decode("utf-8", "replace")
        raise SchemaError(
            f"not readable as CSV: not UTF-8 near {text!r}",
            where=f"{where}, line {line}",
            remedy="save it as plain UTF-8 CSV",
        ) from error


def _times(cells: pl.Series, where: str, unit: Unit | None, first: int) -> pl.Series:
    """Time stamps, UTC; with a unit all must be integers of it."""
    if unit:
        scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
        numbers = cells.cast(pl.Int64, strict=False)
        limit = np.iinfo(np.int64).max // scale
        if not numbers.null_count() and numbers.is_between(-limit, limit).all():
            return (numbers * scale).cast(pl.Datetime("ns", "UTC")).alias(cells.name)
        fits = pl.when(numbers.is_between(-limit, limit)).then(numbers)
        _refuse_stamps(cells, pl.select(fits).to_series(), where, first)
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
    _refuse_stamps(cells, times, where, first)
    return times


def _refuse_stamps(cells: pl.Series, times: pl.Series, where: str, first: int) -> None:
    for line, text in _faulty(cells, times, first, also_empty=True):
        raise DataError(
            f"column 'timestamp': {text!r} is not a time stamp",
            where=f"{where}, line {line}",
            remedy="write UTC stamps such as 2025-01-23T09:30:00.1Z, or state the unit of integers "
            f"in {STATEMENT}: timestamp_unit: ms",
        )


def _numbers(cells: pl.Series, kind: type[pl.DataType], where: str, first: int) -> pl.Series:
    numbers = cells.cast(kind, strict=False)
    _refuse(cells, numbers, kind.__name__.lower(), where, first)
    return numbers


def _refuse(cells: pl.Series, found: pl.Series, expected: str, where: str, first: int) -> None:
    for line, text in _faulty(cells, found, first):
        raise SchemaError(
            f"column {cells.name!r} has the wrong type: expected {expected}, found {text!r}",
            where=f"{where}, line {line}",
            remedy="correct the cell, or leave it empty to have the row quarantined",
        )


def _faulty(
    cells: pl.Series, found: pl.Series, first: int, also_empty: bool = False
) -> Iterator[tuple[int, str]]:
    """(line in the file, text) of cells that did not parse."""
    bad = found.is_null() if also_empty else found.is_null() & cells.is_not_null()
    for row in bad.arg_true():
        yield row + first, cells[row] or ""
