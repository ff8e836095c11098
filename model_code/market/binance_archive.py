"""Binance's public daily archives in a folder (or any fsspec URI), as downloaded.

`<SYMBOL>-bookTicker-<YYYY-MM-DD>.zip`: update_id, best_bid_price, best_bid_qty, best_ask_price,
best_ask_qty, transaction_time, event_time. Trades are optional: `<SYMBOL>-trades-<D>.zip` (id,
price, qty, quote_qty, time, is_buyer_maker), otherwise `<SYMBOL>-aggTrades-<D>.zip` (agg_trade_id,
price, quantity, first_trade_id, last_trade_id, transact_time, is_buyer_maker). Spot files have one
more column. Each zip contains one CSV, with or without a header. Times are in milliseconds, in spot
files from 2025 on in microseconds. Source: github.com/binance/binance-public-data.

A row's time is `transaction_time`, the matching engine's clock, which also stamps trades
(`event_time` is when the update was sent). Rows stay in file order, even where the clock goes back.
Symbols include the venue: `BTCUSDT.binance`.
"""

import datetime as dt
import re
import zipfile
from collections.abc import Mapping
from typing import ClassVar

import fsspec
import polars as pl
import pyarrow as pa

from model_code.errors import MarketError, SchemaError
from model_code.market import join
from model_code.market.files import digest_files
from model_code.market.schema import InstrumentDay

VENUE = "binance"
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
_NAME = re.compile(r"(?P<symbol>[A-Z0-9_]+)-bookTicker-(?P<date>\d{4}-\d{2}-\d{2})\.zip$")
_FLAGS = {"true": True, "false": False}
_MICROSECONDS = 10**14  # 1973 in microseconds, 5138 in milliseconds


class BinanceArchiveStore:
    """A folder of daily zips."""

    KIND: ClassVar[str] = "binance-archive"
    simulated = False

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self.uri, self._fs, self._root = uri, fs, root.rstrip("/")

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether `root` is a folder with a bookTicker zip."""
        return bool(fs.glob(f"{root.rstrip('/')}/*-bookTicker-*.zip"))

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day with a bookTicker zip, sorted; rows are unknown before reading."""
        days = [
            InstrumentDay(dt.date.fromisoformat(found["date"]), f"{found['symbol']}.{VENUE}")
            for path in self._fs.glob(f"{self._root}/*-bookTicker-*.zip")
            if (found := _NAME.search(path))
        ]
        return tuple(sorted(days, key=lambda day: (day.date, day.symbol)))

    def read(self, day: InstrumentDay) -> pa.Table:
        """One instrument-day as TICKS, rows in source order.

        Raises:
            MarketError: a zip is missing, truncated or corrupt.
            SchemaError: the CSV inside has other columns or types.
        """
        path = self._path("bookTicker", day)
        quotes = self._csv(path, BOOK_TICKER)
        trades = None
        for kind, columns in (("trades", TRADES), ("aggTrades", AGGREGATE_TRADES)):
            if self._fs.exists(self._path(kind, day)):
                trades = self._csv(self._path(kind, day), columns).to_arrow()
                break
        return join.fold(quotes.to_arrow(), trades, day.symbol, path)

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the day's zips."""
        paths = [self._path(kind, day) for kind in ("bookTicker", "trades", "aggTrades")]
        return digest_files(self._fs, [path for path in paths if self._fs.exists(path)])

    def _path(self, kind: str, day: InstrumentDay) -> str:
        symbol = day.symbol.removesuffix(f".{VENUE}")
        return f"{self._root}/{symbol}-{kind}-{day.date}.zip"

    def _csv(self, path: str, columns: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        try:
            with self._fs.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                data = archive.read(archive.namelist()[0])
        except FileNotFoundError as error:
            raise MarketError(
                "no such archive", where=path, remedy="download it: tickline data download --help"
            ) from error
        except (zipfile.BadZipFile, OSError, EOFError, IndexError) as error:
            raise MarketError(
                f"not readable as zip, truncated or corrupt: {error}",
                where=path,
                remedy="delete the file and download it again",
            ) from error
        return parse(data, columns, path)


def parse(data: bytes, columns: Mapping[str, type[pl.DataType]], where: str) -> pl.DataFrame:
    """Read one archive's CSV by column position and add `timestamp` (ns UTC).

    Raises:
        SchemaError: too few columns, or a cell of the wrong type.
    """
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    if first.count(",") + 1 < len(columns):
        raise SchemaError(
            f"expected {len(columns)} columns ({', '.join(columns)}), found {first[:200]!r}",
            where=where,
            remedy="download the archive again, or check that its content matches its name",
        )
    try:
        cells = pl.read_csv(
            data,
            has_header=False,
            skip_rows=0 if first[:1].isdigit() else 1,
            infer_schema=False,
        )
        frame = cells.select(
            pl.nth(i).str.to_lowercase().replace_strict(_FLAGS, return_dtype=kind).alias(name)
            if kind is pl.Boolean
            else pl.nth(i).cast(kind).alias(name)
            for i, (name, kind) in enumerate(columns.items())
        )
    except pl.exceptions.PolarsError as error:
        raise SchemaError(
            f"the CSV inside has the wrong types: {str(error).splitlines()[0]}; expected "
            + ", ".join(f"{name} {kind.__name__}" for name, kind in columns.items()),
            where=where,
            remedy="download the archive again, or check that its content matches its name",
        ) from error
    time = pl.col("time")
    scale = pl.when(time >= _MICROSECONDS).then(1_000).otherwise(1_000_000)
    return frame.with_columns(timestamp=(time * scale).cast(pl.Datetime("ns", "UTC")))
