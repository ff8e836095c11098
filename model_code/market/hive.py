"""Hive-partitioned Parquet: `<root>/<quotes|trades>/symbol=<S>/date=<D>.parquet`, by fsspec URI.

quotes: timestamp (ns UTC), symbol, bid_price, ask_price and, if the venue provides them, bid_size,
ask_size. trades (optional): timestamp, symbol, price, size, buyer_is_maker.
"""

import datetime as dt
import re
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model_code.errors import DataError, MarketError
from model_code.market import join
from model_code.market.files import digest_files
from model_code.market.schema import InstrumentDay

_PARTITION = re.compile(r"symbol=(?P<symbol>[^/]+)/date=(?P<date>\d{4}-\d{2}-\d{2})\.parquet$")


class HiveStore:
    """A folder of Hive-partitioned quotes and trades."""

    KIND: ClassVar[str] = "hive"
    simulated = False

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self.uri, self._fs, self._root = uri, fs, root.rstrip("/")

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day of the quotes, sorted; rows is None if the footer is unreadable."""
        days = []
        for path in self._fs.glob(f"{self._root}/quotes/symbol=*/date=*.parquet"):
            if found := _PARTITION.search(path):
                try:
                    date = dt.date.fromisoformat(found["date"])
                except ValueError as error:
                    raise MarketError(
                        f"{found['date']} is not a date",
                        where=path,
                        remedy="name the file date=<YYYY-MM-DD>.parquet",
                    ) from error
                days.append(InstrumentDay(date, found["symbol"], self._rows(path)))
        return tuple(sorted(days, key=lambda day: (day.date, day.symbol)))

    def read(self, day: InstrumentDay) -> pa.Table:
        """One instrument-day as TICKS, rows in source order.

        Raises:
            MarketError: a file is missing, truncated or not Parquet.
            SchemaError: a column is missing or of the wrong type (sizes may be absent).
            DataError: the file contains another symbol than its folder's name.
        """
        path = self._path("quotes", day)
        quotes = self._table(path, day)
        for name in {"bid_size", "ask_size"} - set(quotes.column_names):
            quotes = quotes.append_column(name, pa.nulls(quotes.num_rows, pa.float64()))
        trades = None
        if self._has_trades(day):
            trades = self._table(self._path("trades", day), day)
        return join.fold(quotes, trades, day.symbol, path)

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the day's files."""
        kinds = ("quotes", "trades") if self._has_trades(day) else ("quotes",)
        return digest_files(self._fs, [self._path(kind, day) for kind in kinds])

    def _path(self, kind: str, day: InstrumentDay) -> str:
        return f"{self._root}/{kind}/symbol={day.symbol}/date={day.date}.parquet"

    def _has_trades(self, day: InstrumentDay) -> bool:
        """Whether to fold in trades; an instrument without any trades file has quotes only."""
        path = self._path("trades", day)
        if self._fs.exists(path):
            return True
        if self._fs.exists(path.rsplit("/", 1)[0]):
            raise MarketError(
                f"{day.symbol} has trades on other days, but none on {day.date}",
                where=path,
                remedy="restore the file, or exclude the day",
            )
        return False

    def _rows(self, path: str) -> int | None:
        try:
            with self._fs.open(path, "rb") as file:
                return int(pq.ParquetFile(file).metadata.num_rows)
        except (pa.ArrowException, OSError):
            return None  # read() reports the reason

    def _table(self, path: str, day: InstrumentDay) -> pa.Table:
        try:
            with self._fs.open(path, "rb") as file:
                table = pq.ParquetFile(file).read()
        except FileNotFoundError as error:
            raise MarketError(
                f"no file for {day.symbol} on {day.date}",
                where=path,
                remedy="list the store's contents: tickline data describe",
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise MarketError(
                f"not readable as Parquet, truncated or corrupt: {error}",
                where=path,
                remedy="copy or download this file again; it is incomplete",
            ) from error
        if "symbol" in table.column_names:
            others = [s for s in pc.unique(table["symbol"]).to_pylist() if s != day.symbol]
            if others:
                raise DataError(
                    f"the file contains rows of {others[0]!r} in the folder of {day.symbol!r}",
                    where=path,
                    remedy="write each symbol to its own folder symbol=<S>",
                )
        return table
