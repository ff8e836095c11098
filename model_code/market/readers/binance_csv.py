"""The CSV inside Binance's public archives, read by column position.

Spot files have one more column at the end. Times are in milliseconds, in spot files from 2025 on in
microseconds. Source: github.com/binance/binance-public-data.
"""

from collections.abc import Mapping

import polars as pl

from model_code.errors import SchemaError
from model_code.market.readers.csv_rows import parse_rows

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
    frame = parse_rows(data, columns, where, AGAIN, skip=header, unused=_UNUSED)
    time = pl.col("time")
    scale = pl.when(time >= _MICROSECONDS).then(1_000).otherwise(1_000_000)
    return frame.with_columns(timestamp=(time * scale).cast(pl.Datetime("ns", "UTC")))
