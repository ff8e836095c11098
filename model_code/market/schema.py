"""The tidy tick schema: one row per best-quote update of one instrument, trades folded in.

Every reader returns exactly these columns, in this order. Rows stay in source order: validation,
not the reader, handles rows whose clock goes back.
"""

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.errors import DataError, SchemaError


def _field(name: str, kind: pa.DataType, nullable: bool, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable, metadata={"unit": unit, "meaning": meaning})


TICKS: pa.Schema = pa.schema(
    [
        _field("timestamp", pa.timestamp("ns", "UTC"), False, "ns UTC", "receive time of the row"),
        _field("symbol", pa.string(), False, "", "instrument and venue, e.g. BTCUSDT.spot"),
        _field("bid_price", pa.float64(), False, "quote currency", "best bid"),
        _field("ask_price", pa.float64(), False, "quote currency", "best ask"),
        _field("bid_size", pa.float64(), True, "venue's size unit", "size at the best bid"),
        _field("ask_size", pa.float64(), True, "venue's size unit", "size at the best ask"),
        _field("last_trade", pa.float64(), True, "quote currency", "newest trade price so far"),
        _field(
            "vwap", pa.float64(), True, "quote currency", "session volume-weighted price so far"
        ),
        _field(
            "feature_ema_1min",
            pa.float64(),
            True,
            "fraction",
            "1-minute exponential average of bid_size / (bid_size + ask_size), or the desk's own",
        ),
        _field("buy_volume", pa.float64(), False, "venue's size unit", "bought since last row"),
        _field("sell_volume", pa.float64(), False, "venue's size unit", "sold since last row"),
        _field("trade_count", pa.int32(), False, "trades", "trades since last row"),
        _field("label", pa.int8(), True, "0 or 1", "the source's own label; null: computed later"),
    ]
)


@dataclass(frozen=True, order=True)
class InstrumentDay:
    """One instrument's ticks of one UTC session date.

    Attributes:
        date: UTC date of the session.
        symbol: instrument and venue.
        rows: quote rows according to the source's metadata; None if unknown before reading.
    """

    date: dt.date
    symbol: str
    rows: int | None = None


def stamps(table: pa.Table, where: str = "") -> npt.NDArray[np.int64]:
    """The column `timestamp` in ns since the epoch, (N,).

    Raises:
        DataError: a time stamp is null.
    """
    column = table["timestamp"]
    if column.null_count:
        raise DataError(
            f"column 'timestamp' has {column.null_count} nulls",
            where=where,
            remedy="export the file again with a time stamp on every row",
        )
    found: npt.NDArray[np.int64] = (
        column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_numpy()
    )
    return found


def floats(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A numeric or boolean column as float64, NaN where null."""
    column = table[name].cast(pa.float64())
    if column.null_count:
        column = column.fill_null(np.nan)
    found: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64, copy=False)
    return found


def moment(time_ns: int) -> dt.datetime:
    """A stamp in ns since the epoch as a UTC time, to the microsecond."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=int(time_ns) // 1000)


def conform(table: pa.Table, where: str) -> pa.Table:
    """Return `table` with exactly the columns, order and types of `TICKS`.

    Null prices and volumes become NaN, so that validation can count them as faulty rows.

    Raises:
        SchemaError: a column is missing or its type cannot be cast without loss.
        DataError: a time stamp, symbol or trade count is null.
    """
    table = require(table, {field.name: field.type for field in TICKS}, where)
    columns = []
    for field in TICKS:
        column = table.column(field.name)
        if column.null_count and not field.nullable:
            if not pa.types.is_floating(field.type):
                raise DataError(
                    f"column {field.name!r} has {column.null_count} nulls",
                    where=where,
                    remedy="export the file again with a value on every row",
                )
            column = column.fill_null(math.nan)
        columns.append(column)
    return pa.table(columns, schema=TICKS)


def require(table: pa.Table, kinds: Mapping[str, pa.DataType], where: str) -> pa.Table:
    """Return the columns named in `kinds`, in that order, cast without loss to their types.

    Raises:
        SchemaError: a column is missing or of another kind (text is not a number, a time stamp
            needs a time zone), or a value does not fit.
    """
    columns = {}
    for name, kind in kinds.items():
        if name not in table.column_names:
            raise SchemaError(
                f"column {name!r} is missing: expected {kind}, found columns {table.column_names}",
                where=where,
                remedy="export the file again with every column of the schema",
            )
        column = table.column(name)
        try:
            if not _same_kind(column.type, kind):
                raise pa.ArrowInvalid("different kind of value")
            columns[name] = column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"column {name!r} has the wrong type: expected {kind}, "
                f"found {column.type} ({error})",
                where=where,
                remedy="export the file again with the schema's types",
            ) from error
    return pa.table(columns)


def _same_kind(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a cast keeps the meaning (Arrow would also read numbers from text)."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(found) and found.tz is not None
    if pa.types.is_string(expected):
        return (
            pa.types.is_string(found)
            or pa.types.is_large_string(found)
            or str(found) == "string_view"
        )
    if pa.types.is_boolean(expected):
        return bool(pa.types.is_boolean(found))
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(kind(found) for kind in numeric)
