"""The CSV inside Binance's public archives, read by column position.

Spot files have one more column at the end. Times are in milliseconds, in spot files from 2025 on in
microseconds. Source: github.com/binance/binance-public-data.
"""

from collections.abc import Mapping

import polars as pl

from model_code.errors import SchemaError

BOOK_TICKER = {
    "update_id": pl.Int64,
    "bid_price": pl.Float64,
    "bid_size": pl.Float64,
    "ask_price": pl.Float64,
    "ask_size": pl.Float64,
    "time": pl.Int64,
    "event_time": pl.Int64,
}
TRADES = {
    "id": pl.Int64,
    "price": pl.Float64,
    "size": pl.Float64,
    "quote_qty": pl.Float64,
    "time": pl.Int64,
    "buyer_is_maker": pl.Boolean,
}
AGGREGATE_TRADES = {
    "id": pl.Int64,
    "price": pl.Float64,
    "size": pl.Float64,
    "first_id": pl.Int64,
    "last_id": pl.Int64,
    "time": pl.Int64,
    "buyer_is_maker": pl.Boolean,
}
KINDS: dict[str, Mapping[str, type[pl.DataType]]] = {
    "bookTicker": BOOK_TICKER,
    "trades": TRADES,
    "aggTrades": AGGREGATE_TRADES,
}
AGAIN = "download the archive again, or check that its content matches its name"
_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_UNUSED = ("event_time", "quote_qty", "first_id", "last_id")
_MICROSECONDS = 10**14  # 1973 in microseconds, 5138 in milliseconds
_BOM = b"\xef\xbb\xbf"


def parse(data: bytes, columns: Mapping[str, type[pl.DataType]], where: str) -> pl.DataFrame:
    """Read one archive's CSV by column position and add `timestamp` (ns UTC).

    Raises:
        SchemaError: too few columns, or a cell of the wrong type; the message has line and text.
    """
    data = data.removeprefix(_BOM)
    first = data[: data.find(b"\n") + 1 or None].decode("utf-8", "replace").strip()
    if first.count(",") + 1 < len(columns):
        raise SchemaError(
            f"expected {len(columns)} columns ({', '.join(columns)}), found {first[:200]!r}",
            where=where,
            remedy=AGAIN,
        )
    header = 0 if first.lstrip('"')[:1].isdigit() else 1
    frame = _read(data, columns, header, typed=True)
    if frame is None:  # something does not fit: read it as text and find out what
        cells = _read(data, columns, header, typed=False)
        if cells is None:
            raise SchemaError("not readable as CSV", where=where, remedy=AGAIN)
        frame = cells.select(_cast(name, columns[name]) for name in cells.columns)
        for name in cells.columns:
            if frame[name].null_count():
                _refuse(cells[name], columns[name], where, header)
    time = pl.col("time")
    scale = pl.when(time >= _MICROSECONDS).then(1_000).otherwise(1_000_000)
    return frame.with_columns(timestamp=(time * scale).cast(pl.Datetime("ns", "UTC")))


def _read(
    data: bytes, columns: Mapping[str, type[pl.DataType]], header: int, *, typed: bool
) -> pl.DataFrame | None:
    """The columns that are used, as their types or as text; None if that fails or leaves a gap."""
    places = {i: name for i, name in enumerate(columns) if name not in _UNUSED}
    kinds = {f"column_{i}": columns[name] for i, name in places.items()}
    try:
        frame = pl.read_csv(
            data,
            has_header=False,
            skip_rows=header,
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


def _refuse(cells: pl.Series, kind: type[pl.DataType], where: str, header: int) -> None:
    """Raise at the first cell that is not of its kind; an empty price or size is only missing."""
    frame = cells.to_frame()
    bad = frame.select(_cast(cells.name, kind)).to_series().is_null()
    if kind is pl.Float64:  # validation quarantines the row
        bad &= cells.fill_null("").str.strip_chars() != ""
    if bad.any():
        row = int(bad.arg_max() or 0)
        raise SchemaError(
            f"column {cells.name!r}: expected {kind.__name__}, found {cells[row] or ''!r}",
            where=f"{where}, line {row + header + 1}",
            remedy=AGAIN,
        )
