"""The CSV inside Binance's public archives, read by column position.

Spot files have one more column at the end. Times are in milliseconds, in spot files from 2025 on in
microseconds. Source: github.com/binance/binance-public-data.
"""

from collections.abc import Iterator, Mapping

import polars as pl

from model_code.errors import SchemaError
from model_code.market.readers.csv_rows import parse_rows
from model_code.market.readers.files import Lines, parsed

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


def parse(
    pieces: Iterator[Lines], columns: Mapping[str, type[pl.DataType]], where: str
) -> Iterator[pl.DataFrame]:
    """Read one archive's CSV by column position and add `timestamp` (ns UTC).

    Args:
        pieces: the file's lines, as `lines_of` gives them; each piece becomes a frame.
        columns: names and types by position.
        where: the file, for messages.

    Raises:
        SchemaError: too few columns, or a cell of the wrong type; the message has line and text.
    """
    lead = b""  # the first row: polars takes the number of columns from it

    def read(piece: Lines) -> pl.DataFrame:
        nonlocal lead
        line, data = piece
        if line > 1:
            before = bool(lead)
            frame = _stamped(lead + data, columns, where, skip=0, line=line - before)
            lead = lead or data[: data.find(b"\n") + 1]
            return frame.slice(int(before))
        data = data.removeprefix(_BOM)
        end = data.find(b"\n") + 1
        first = data[: end or None].decode("utf-8", "replace").strip()
        if first.count(",") + 1 < len(columns):
            raise SchemaError(
                f"expected {len(columns)} columns ({', '.join(columns)}), found {first[:200]!r}",
                where=where,
                remedy=AGAIN,
            )
        skip = 0 if first.lstrip('"')[:1].isdigit() else 1
        lead = data[end : data.find(b"\n", end) + 1] if skip else data[:end]
        return _stamped(data, columns, where, skip, line)

    return parsed(pieces, read)


def _stamped(
    data: bytes, columns: Mapping[str, type[pl.DataType]], where: str, skip: int, line: int
) -> pl.DataFrame:
    frame = parse_rows(data, columns, where, AGAIN, line=line, skip=skip, unused=_UNUSED)
    time = pl.col("time")
    scale = pl.when(time >= _MICROSECONDS).then(1_000).otherwise(1_000_000)
    return frame.with_columns(timestamp=(time * scale).cast(pl.Datetime("ns", "UTC")))
