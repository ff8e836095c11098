"""CSV without quotes, read by column position in blocks of whole lines; each error names its line.

Shapes: N rows.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import fsspec
import polars as pl

from model_code.errors import SchemaError
from model_code.market.readers.files import lines_of, read_blocks

Columns = Mapping[str, type[pl.DataType]]
_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Some lines of a file.

    Attributes:
        data: lines; each ends with a line feed.
        line: number of the first line in the file.
        cut: the last line of the file if it has no line feed; it is not in `data`.
    """

    data: bytes
    line: int
    cut: bytes = b""


def blocks(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[Block]:
    """The whole lines of a file, decompressed if its name ends with .gz or .zst.

    Raises:
        MarketError: the file cannot be read, or is truncated or damaged.
    """
    for line, data in lines_of(read_blocks(fs, path)):
        end = data.rfind(b"\n") + 1
        if end:
            yield Block(data[:end].removeprefix(_BOM if line == 1 else b""), line)
        if end < len(data):
            yield Block(b"", line + data.count(b"\n"), data[end:])


def parse_rows(
    data: bytes,
    columns: Columns,
    where: str,
    remedy: str,
    *,
    line: int = 1,
    skip: int = 0,
    unused: Collection[str] = (),
    exact: bool = False,
) -> pl.DataFrame:
    """Read CSV lines by column position; an empty number stays null.

    Args:
        data: lines.
        columns: names and types by position; without `exact`, a file may have more.
        where: the file, for messages.
        remedy: what to do about a wrong cell.
        line: number of the first line, for messages.
        skip: lines to skip (a header).
        unused: columns that are not returned.
        exact: each line must have as many cells as there are columns, none of them quoted.

    Raises:
        SchemaError: a line has too many or too few cells, or a cell is of the wrong type; the
            message has line and text.
    """
    if exact and data.count(b",") != data.count(b"\n") * (len(columns) - 1):
        _refuse_lines(data, columns, where, remedy, line)
    frame = _read(data, columns, skip, unused, typed=True)
    if frame is not None:
        return frame
    # something does not fit: read it as text and find out what
    cells = _read(data, columns, skip, unused, typed=False)
    if cells is None:
        if exact:
            _refuse_lines(data, columns, where, remedy, line)
        raise SchemaError("not readable as CSV", where=where, remedy=remedy)
    for name in cells.columns:
        _refuse(cells[name], columns[name], where, remedy, line + skip)
    return cells.select(_cast(name, columns[name]) for name in cells.columns)


def _refuse_lines(data: bytes, columns: Columns, where: str, remedy: str, line: int) -> None:
    """Raise at the first line without exactly the columns."""
    for place, text in enumerate(data.splitlines()):
        if text.count(b",") + 1 != len(columns):
            raise SchemaError(
                f"expected {len(columns)} cells ({', '.join(columns)}), "
                f"found {text.count(b',') + 1}: {text[:80].decode('utf-8', 'replace')!r}",
                where=f"{where}, line {line + place:,}",
                remedy=remedy,
            )


def _read(
    data: bytes, columns: Columns, skip: int, unused: Collection[str], *, typed: bool
) -> pl.DataFrame | None:
    """The columns that are used, as their types or as text; None if that fails or leaves a gap."""
    places = {i: name for i, name in enumerate(columns) if name not in unused}
    kinds = {f"column_{i}": columns[name] for i, name in places.items()}
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            skip_rows=skip,
            infer_schema=False,
            columns=list(places),
            schema_overrides=kinds if typed else None,
        )
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame({name: pl.Series([], dtype=kind) for name, kind in kinds.items()})
    except pl.exceptions.PolarsError:
        return None
    frame.columns = list(places.values())
    return None if typed and any(column.null_count() for column in frame) else frame


def _cast(name: str, kind: type[pl.DataType]) -> pl.Expr:
    """The cells as `kind`; null where they are not."""
    cells = pl.col(name)
    if kind is pl.Boolean:
        return cells.str.to_lowercase().replace_strict(_FLAGS, default=None, return_dtype=kind)
    return cells.cast(kind, strict=False)


def _refuse(
    cells: pl.Series, kind: type[pl.DataType], where: str, remedy: str, first_line: int
) -> None:
    """Raise at the first cell that is not of its kind; an empty price or size is only missing."""
    frame = cells.to_frame()
    bad = frame.select(_cast(cells.name, kind)).to_series().is_null()
    if kind in (pl.Float64, pl.String):  # validation quarantines the row
        bad &= cells.fill_null("").str.strip_chars() != ""
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise SchemaError(
            f"column {cells.name!r}: expected {kind.__name__}, found {cells[row] or ''!r}",
            where=f"{where}, line {row + first_line}",
            remedy=remedy,
        )
