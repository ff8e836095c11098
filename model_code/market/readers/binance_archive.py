"""Binance's public archives, as downloaded, at any depth below a folder (or any fsspec URI).

`<SYMBOL>-bookTicker-<YYYY-MM-DD>.zip`: update_id, best_bid_price, best_bid_qty, best_ask_price,
best_ask_qty, transaction_time, event_time. Trades are optional: `<SYMBOL>-trades-<D>.zip` (id,
price, qty, quote_qty, time, is_buyer_maker), otherwise `<SYMBOL>-aggTrades-<D>.zip` (agg_trade_id,
price, quantity, first_trade_id, last_trade_id, transact_time, is_buyer_maker). Spot files have one
more column. Monthly files (`<YYYY-MM>`) are their days. A zip may be unpacked (`.csv`). Each has
CSV with or without a header. Times are in milliseconds, in spot files from 2025 on in
microseconds. Source: github.com/binance/binance-public-data.

A row's time is `transaction_time`, the matching engine's clock, which also stamps trades
(`event_time` is when the update was sent). Rows are put in the order of (time, update id); a row
with an update id seen before is left out; both are counted. Symbols include the venue:
`BTCUSDT.binance`. A percent-encoded symbol in a file name is decoded.
"""

import calendar
import datetime as dt
import errno
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property, partial
from typing import ClassVar
from urllib.parse import unquote

import fsspec
import polars as pl

from model_code.errors import DataError, MarketError
from model_code.market import join
from model_code.market.day_parts import DayParts
from model_code.market.notes import DayNotes, Loaded
from model_code.market.order import in_order
from model_code.market.readers.base import FileStore
from model_code.market.readers.binance_csv import AGAIN, KINDS, parse
from model_code.market.readers.files import (
    BLOCK,
    PassedOver,
    lines_of,
    natural,
    read_blocks,
    readable,
    relative,
    require_days,
    spell_dates,
    walk,
)
from model_code.market.schema import InstrumentDay
from model_code.market.stream.rows import CHUNK_ROWS, Rows, TableRows, whole
from model_code.market.stream.spill import SpilledRows

VENUE = "binance"
LAYOUT = "<SYMBOL>-bookTicker-<YYYY-MM-DD>.zip (and -trades- or -aggTrades-)"
_NAME = re.compile(
    r"(?P<symbol>[^/]+)-(?P<kind>bookTicker|trades|aggTrades)-"
    r"(?P<date>\d{4}-\d{2}(?:-\d{2})?)\.(?:zip|csv|csv\.gz)$"
)
_SIDE_FILES = (".CHECKSUM", ".part")
# what zipfile raises on damaged headers and data
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,  # a password; NotImplementedError: another compression
    ValueError,  # an offset outside the file, a name that is not text
)

Key = tuple[dt.date, str]


class BinanceArchiveStore(FileStore):
    """A folder of daily or monthly archives."""

    KIND: ClassVar[str] = "binance-archive"

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        super().__init__(uri, fs, root)
        self._split = DayParts()
        self._found_dates: dict[str, set[dt.date]] = {}  # of files that were read for them

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether a bookTicker archive is below `root`."""
        return any("-bookTicker-" in path and _NAME.search(path) for path in walk(fs, root))

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day with a bookTicker archive, sorted; rows are unknown before reading.

        A monthly archive is read to find its days.

        Raises:
            MarketError: there is none, or an archive cannot be read.
            SchemaError: an archive has other columns or types.
        """
        days = [
            InstrumentDay(date, f"{symbol}.{VENUE}") for date, symbol in self._days["bookTicker"]
        ]
        require_days(days, self._paths, self._root, LAYOUT)
        return tuple(sorted(days, key=lambda day: (day.date, day.symbol)))

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files that are not read."""
        passed = [
            PassedOver(relative(path, self._root), "not a bookTicker, trades or aggTrades archive")
            for path in self._paths
            if not _NAME.search(path) and not path.endswith(_SIDE_FILES)
        ]
        passed += [
            PassedOver(relative(path, self._root), "unpacked copy of an archive beside it")
            for path in sorted(self._copies)
        ]
        days = self._days
        used = {
            days[kind][key]
            for key in days["bookTicker"]
            for kind in ("trades", "aggTrades")
            if key in days[kind] and (kind == "trades" or key not in days["trades"])
        }
        for kind in ("trades", "aggTrades"):
            for key, path in days[kind].items():
                if path not in used:
                    with_quotes = key in days["bookTicker"]
                    reason = "trades are used instead" if with_quotes else "trades without quotes"
                    passed.append(PassedOver(relative(path, self._root), reason))
        return tuple(dict.fromkeys(passed))

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS in the order of (time, update id), with notes.

        Raises:
            MarketError: an archive is missing, truncated or corrupt; trades are absent on this day
                only.
            SchemaError: the CSV inside has other columns or types.
            DataError: the day's trades have no rows.
        """
        return self.stream(day, trade_band_bps=trade_band_bps).loaded()

    def stream(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> join.FoldedDay:
        """One instrument-day, read in chunks; see `load`.

        The day's rows wait in a temporary file. Rows that must be put in order are held in memory.
        """
        path = self._path("bookTicker", day)
        quotes, is_ordered = self._spilled(path, "bookTicker", day, "update_id")
        rows: Rows = quotes
        moved = repeated = 0
        if not is_ordered:
            frame, moved, repeated = _ordered(_whole(quotes))
            rows = TableRows(frame.drop("time", "update_id").to_arrow(), CHUNK_ROWS)
        trades: Rows | None = None
        trades_where = ""
        kind = self._trades_kind(day)
        if kind:
            trades_where = self._path(kind, day)
            trades, is_ordered = self._spilled(trades_where, kind, day, "id")
            if not trades.rows:
                raise DataError(
                    f"the trades of {day.symbol} on {day.date} have no rows",
                    where=trades_where,
                    remedy="download them again, or exclude the day",
                )
            if not is_ordered:
                frame = _whole(trades).sort("timestamp", "id")
                trades = TableRows(frame.to_arrow(), CHUNK_ROWS)
        notes = DayNotes(
            files=tuple(relative(name, self._root) for name in (path, trades_where) if name),
            moved=moved,
            repeated=repeated,
        )
        return join.FoldedDay(
            rows,
            trades,
            day.symbol,
            notes,
            where=path,
            trades_where=trades_where,
            trade_band_bps=trade_band_bps,
        )

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the day's archives and what the store states."""
        kinds = ["bookTicker", *filter(None, [self._trades_kind(day)])]
        return self._digest(self._path(kind, day) for kind in kinds)

    @cached_property
    def _named(self) -> dict[tuple[str, str, str], list[str]]:
        """Files by (kind, symbol, date or month as text)."""
        named: dict[tuple[str, str, str], list[str]] = {}
        for path in self._paths:
            if found := _NAME.search(path.rsplit("/", 1)[-1]):
                key = (found["kind"], unquote(found["symbol"]), found["date"])
                named.setdefault(key, []).append(path)
        return named

    @cached_property
    def _copies(self) -> frozenset[str]:
        return frozenset(
            path
            for paths in self._named.values()
            for path in paths
            if not path.endswith(".zip") and any(other.endswith(".zip") for other in paths)
        )

    @cached_property
    def _days(self) -> dict[str, dict[Key, str]]:
        """The file of each instrument-day, by kind."""
        days: dict[str, dict[Key, str]] = {kind: {} for kind in KINDS}
        for (kind, symbol, text), paths in sorted(self._named.items()):
            path = next(path for path in paths if path not in self._copies)
            for date in self._dates(kind, text, path):
                days[kind][date, symbol] = self._only(kind, symbol, date) or path
        return days

    def _only(self, kind: str, symbol: str, date: dt.date) -> str | None:
        """The daily or monthly file of an instrument-day, found by name; None if there is none.

        Raises:
            MarketError: two files hold it.
        """
        found = [
            path
            for text in (str(date), f"{date:%Y-%m}")
            for path in self._named.get((kind, symbol, text), [])
            if path not in self._copies
        ]
        if len(found) < 2:
            return found[0] if found else None
        with_rows = [path for path in found if self._has_rows(path, kind, date)]
        if len(with_rows) > 1:
            raise MarketError(
                f"two archives hold the {kind} of {symbol} on {date}",
                where=f"{relative(with_rows[0], self._root)}, "
                f"{relative(with_rows[1], self._root)} in {self._root}",
                remedy="remove one of them, or name a folder with one market",
            )
        return (with_rows or found)[0]

    def _has_rows(self, path: str, kind: str, date: dt.date) -> bool:
        return date in self._dates_in(path, kind)

    def _dates(self, kind: str, text: str, path: str) -> list[dt.date]:
        try:
            if len(text) > len("2025-03"):
                return [dt.date.fromisoformat(text)]
            first = dt.date.fromisoformat(f"{text}-01")
        except ValueError as error:
            raise MarketError(
                f"{text} is not a date", where=path, remedy=f"name the file {LAYOUT}"
            ) from error
        if kind == "bookTicker":
            found = sorted(self._dates_in(path, kind))
            return [date for date in found if (date.year, date.month) == (first.year, first.month)]
        days = calendar.monthrange(first.year, first.month)[1]
        return [first + dt.timedelta(days=i) for i in range(days)]

    def _path(self, kind: str, day: InstrumentDay) -> str:
        # by name: the catalogue reads monthly archives, one day must not
        path = self._only(kind, day.symbol.removesuffix(f".{VENUE}"), day.date)
        if path is None:
            raise MarketError(
                f"no {kind} archive of {day.symbol} on {day.date}",
                where=self._root,
                remedy="download it: tickline data download --help",
            )
        return path

    def _trades_kind(self, day: InstrumentDay) -> str | None:
        """Which trades to fold in; an instrument without any trades archive has quotes only."""
        symbol = day.symbol.removesuffix(f".{VENUE}")
        for kind in ("trades", "aggTrades"):
            if self._only(kind, symbol, day.date):
                return kind
        if dates := self._trade_dates.get(symbol):
            raise MarketError(
                f"{day.symbol} has no trades on {day.date}, but on {spell_dates(dates)}",
                where=f"{self._root}/{symbol}-trades-{day.date}.zip",
                remedy="download them: tickline data download --help; or exclude the day",
            )
        return None

    @cached_property
    def _trade_dates(self) -> dict[str, list[dt.date]]:
        """Dates with trades of any kind by symbol, sorted."""
        dates: dict[str, list[dt.date]] = {}
        for date, symbol in sorted(self._days["trades"].keys() | self._days["aggTrades"].keys()):
            dates.setdefault(symbol, []).append(date)
        return dates

    def _spilled(
        self, path: str, kind: str, day: InstrumentDay, number: str
    ) -> tuple[SpilledRows, bool]:
        """The day's rows, and whether their times never go back and their numbers always grow."""
        found, newest, is_ordered = SpilledRows(), None, True
        for frame in self._frames(path, kind, day):
            found.add(frame)
            if frame.is_empty():
                continue
            first, last = frame.select("timestamp", number)[[0, -1]].rows()
            is_ordered &= frame["timestamp"].is_sorted()
            is_ordered &= bool((frame[number].diff().drop_nulls() > 0).all())
            if newest is not None:
                is_ordered &= first[0] >= newest[0] and first[1] > newest[1]
            newest = last
        return found, is_ordered

    def _frames(self, path: str, kind: str, day: InstrumentDay) -> Iterator[pl.DataFrame]:
        if str(day.date) in path.rsplit("/", 1)[-1]:
            yield from self._parsed(path, kind)
            return
        # of a monthly file, which is parsed once for all its days
        parts = self._split.rows(path, day.date, lambda: self._parsed(path, kind))
        yield from parts or [next(self._parsed(path, kind)).clear()]

    def _dates_in(self, path: str, kind: str) -> set[dt.date]:
        if path not in self._found_dates:
            self._found_dates[path] = {
                date
                for part in self._parsed(path, kind)
                for date in part["timestamp"].dt.date().unique()
            }
        return self._found_dates[path]

    def _parsed(self, path: str, kind: str) -> Iterator[pl.DataFrame]:
        """The rows of a file in parts; the CSV files of an archive in natural order."""
        if not path.endswith(".zip"):
            yield from parse(lines_of(read_blocks(self._fs, path)), KINDS[kind], path)
            return
        inner = ""
        with readable(path), self._fs.open(path, "rb") as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    names = [name for name in archive.namelist() if _is_csv(name)]
                    if not names:
                        found = ", ".join(archive.namelist()) or "empty"
                        raise MarketError(
                            f"no CSV file in the archive: {found}", where=path, remedy=AGAIN
                        )
                    for name in sorted(names, key=natural):
                        inner = f" ({name})"
                        where = f"{path}: {name}" if len(names) > 1 else path
                        with archive.open(name) as member:
                            blocks = iter(partial(member.read, BLOCK), b"")
                            yield from parse(lines_of(blocks), KINDS[kind], where)
            except _UNREADABLE as error:
                if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                    raise  # of the disk or the network
                raise MarketError(
                    f"not readable as zip, truncated or corrupt{inner}: {error}",
                    where=path,
                    remedy="delete the file and download it again; archives need no password and "
                    "are compressed with deflate",
                ) from error


def _is_csv(name: str) -> bool:
    return name.endswith(".csv") and not any(
        part.startswith((".", "__")) for part in name.split("/")
    )


def _whole(rows: SpilledRows) -> pl.DataFrame:
    found = pl.from_arrow(whole(rows))
    assert isinstance(found, pl.DataFrame)  # noqa: S101 (a table never becomes a Series)
    return found


def _ordered(quotes: pl.DataFrame) -> tuple[pl.DataFrame, int, int]:
    """Rows by (time, update id), each id once; how many were moved, and how many left out."""
    once = quotes
    if not (quotes["update_id"].diff().drop_nulls() > 0).all():
        once = quotes.filter(pl.col("update_id").is_first_distinct())
    moved = int((~in_order(once["timestamp"].cast(pl.Int64).to_numpy())).sum())
    ordered = once if once is quotes and not moved else once.sort("timestamp", "update_id")
    return ordered, moved, len(quotes) - len(once)
