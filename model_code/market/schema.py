"""The tidy tick schema: one row per best-quote update of one instrument, trades folded in.

Every reader returns exactly these columns, in this order, sorted as the source delivered them
(validation, not reading, decides what happens to rows whose clock goes back).
"""

import datetime as dt
from dataclasses import dataclass

import pyarrow as pa

from model_code.errors import SchemaError


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
        rows: quote rows as the source's own metadata counts them; None if unknown before reading.
    """

    date: dt.date
    symbol: str
    rows: int | None = None


def conform(table: pa.Table, where: str) -> pa.Table:
    """Return `table` with exactly the columns, order and types of `TICKS`.

    Raises:
        SchemaError: a column is missing or its type cannot be cast without loss.
    """
    columns = []
    for field in TICKS:
        if field.name not in table.column_names:
            raise SchemaError(
                f"column {field.name!r} is missing: expected {field.type}, found columns "
                f"{table.column_names}",
                where=where,
                remedy="export the file again with every column of the schema",
            )
        column = table.column(field.name)
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"column {field.name!r} has the wrong type: expected {field.type}, "
                f"found {column.type} ({error})",
                where=where,
                remedy="export the file again with the schema's types",
            ) from error
    return pa.table(columns, schema=TICKS)
