"""Tardis' downloadable CSV of `quotes` and `trades` (`.csv`, `.csv.gz`), at any depth or one file.

quotes: exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount
trades: exchange,symbol,timestamp,local_timestamp,id,side,price,amount

Both stamps are in microseconds since 1970, UTC. A row's time is `local_timestamp`, when the
recorder received the message: a receiver could know it then, and files are sorted and cut into days
by it. `side` is the aggressor's: buy, sell or unknown. Symbols include the exchange:
`BTCUSDT.binance-futures`. Source: docs.tardis.dev/downloadable-csv-files.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

import fsspec
import numpy as np
import polars as pl

from model_code.errors import DataError, SchemaError
from model_code.market.readers.chunked import Chunk, ChunkedStore, Kind
from model_code.market.readers.clocks import from_epoch
from model_code.market.readers.csv_rows import Block, Columns, blocks, parse_rows
from model_code.market.readers.files import walk

COLUMNS: dict[Kind, Columns] = {
    "quotes": {
        "exchange": pl.String,
        "symbol": pl.String,
        "timestamp": pl.Int64,
        "local_timestamp": pl.Int64,
        "ask_amount": pl.Float64,
        "ask_price": pl.Float64,
        "bid_price": pl.Float64,
        "bid_amount": pl.Float64,
    },
    "trades": {
        "exchange": pl.String,
        "symbol": pl.String,
        "timestamp": pl.Int64,
        "local_timestamp": pl.Int64,
        "id": pl.String,
        "side": pl.String,
        "price": pl.Float64,
        "amount": pl.Float64,
    },
}
AGAIN = "download the file again; it must be of the data type quotes or trades"
CUT = "the last line has no line end, the file may be truncated"
_SIDES = {"sell": True, "buy": False, "unknown": None, "": None}
_CSV = re.compile(r"\.csv(?:\.gz|\.zst)?$")
_NAME = re.compile(r"(?:^|/)[^/]+_(?:quotes|trades)_\d{4}-\d{2}-\d{2}_[^/]+\.csv(?:\.gz|\.zst)?$")


class TardisStore(ChunkedStore):
    """A folder of Tardis' CSV files; the header decides what a file is."""

    KIND: ClassVar[str] = "tardis"
    LAYOUT = "<exchange>_<quotes or trades>_<YYYY-MM-DD>_<SYMBOL>.csv.gz"

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether a file with a name of Tardis' quotes or trades is below `root`."""
        return any(_NAME.search(path) for path in walk(fs, root))

    def _refusal(self, path: str) -> str | None:
        if not _CSV.search(path):
            return "not a .csv or .csv.gz file"
        first = next(blocks(self._fs, path), None)
        if first is None:
            return "the file is empty"
        if _kind(_header(first)) is None and not _NAME.search(path):
            return "its header is not of quotes or trades"
        return None

    def _chunks(self, path: str) -> Iterator[Chunk]:
        kind: Kind | None = None
        for block in blocks(self._fs, path):
            if kind is None:
                kind = _require_kind(_header(block), path)
            skip = int(block.line == 1)
            frame = parse_rows(
                block.data, COLUMNS[kind], path, AGAIN, line=block.line, skip=skip, exact=True
            )
            yield Chunk(kind, _rows(frame, kind, path, block.line + skip))
            if block.cut:
                yield Chunk(kind, _cut_row(block, path), CUT)


def _header(block: Block) -> str:
    line = block.data[: block.data.find(b"\n") + 1] or block.cut
    return line.decode("utf-8", "replace").strip()


def _kind(header: str) -> Kind | None:
    return next((kind for kind in COLUMNS if header == ",".join(COLUMNS[kind])), None)


def _require_kind(header: str, path: str) -> Kind:
    kind = _kind(header)
    if kind is None:
        expected = " or ".join(",".join(columns) for columns in COLUMNS.values())
        raise SchemaError(
            f"the header is {header[:200]!r}, expected {expected}",
            where=f"{path}, line 1",
            remedy=AGAIN,
        )
    return kind


def _rows(frame: pl.DataFrame, kind: Kind, path: str, line: int) -> pl.DataFrame:
    nameless = frame["exchange"].is_null() | frame["symbol"].is_null()
    if nameless.any():
        raise DataError(
            "the row has no exchange or no symbol",
            where=f"{path}, line {line + int(nameless.arg_max() or 0):,}",
            remedy=AGAIN,
        )
    stamps = frame["local_timestamp"].to_numpy().astype(np.int64)
    frame = frame.with_columns(
        symbol=pl.concat_str("symbol", pl.lit("."), "exchange"),
        timestamp=pl.Series(from_epoch(stamps, "us", f"{path}, local_timestamp", line)),
    )
    if kind == "quotes":
        names = ("symbol", "timestamp", "bid_price", "ask_price")
        return frame.select(*names, bid_size="bid_amount", ask_size="ask_amount")
    _require_sides(frame["side"], path, line)
    side = pl.col("side").fill_null("").replace_strict(_SIDES, return_dtype=pl.Boolean)
    names = ("symbol", "timestamp", "id", "price")
    return frame.select(*names, size="amount", buyer_is_maker=side)


def _require_sides(side: pl.Series, path: str, line: int) -> None:
    known = side.fill_null("").is_in(list(_SIDES))
    if not known.all():
        place = int((~known).arg_max() or 0)
        raise DataError(
            f"the side {side[place]!r} is none of buy, sell, unknown",
            where=f"{path}, line {line + place:,}",
            remedy=AGAIN,
        )


def _cut_row(block: Block, path: str) -> pl.DataFrame:
    """Symbol and time of the last line, as far as they are there."""
    cells = block.cut.decode("utf-8", "replace").strip().split(",")
    if len(cells) < 5 or not cells[3].isdigit():
        raise DataError(
            f"truncated: the last line is {block.cut[:80].decode('utf-8', 'replace')!r}",
            where=f"{path}, line {block.line:,}",
            remedy=AGAIN,
        )
    stamp = from_epoch(np.array([cells[3]], np.int64), "us", f"{path}, local_timestamp", block.line)
    return pl.DataFrame({"symbol": [f"{cells[1]}.{cells[0]}"], "timestamp": stamp})
