"""Recorded WebSocket frames: a gzip an instrument and date, `<receive time in ns> <frame>` a line.

`<spot|usdm|cm>_<symbol>_<YYYYMMDD>.gz`, at any depth: `spot_btcusdt_20240808.gz` is `BTCUSDT.spot`
on 2024-08-08, `cm` is `coinm`. A row's time is the local receive time. Quotes are `bookTicker`
frames, trades `trade` frames; `depthUpdate` frames and the REST book rebuild the order book, which
is carried from one date's file to the next. A line that is no such frame is left out and counted.
"""

import datetime as dt
import gzip
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa

from model_code.errors import MarketError
from model_code.market import join
from model_code.market.level2.book import OrderBook
from model_code.market.level2.frames import (
    BookSnapshot,
    BookUpdate,
    Event,
    FrameError,
    QuoteFrame,
    TradeFrame,
    parse_frame,
)
from model_code.market.level2.rows import LEVELS, PARTS, DepthRows, clean
from model_code.market.notes import DayNotes, Loaded
from model_code.market.readers.base import FileStore
from model_code.market.readers.files import (
    PassedOver,
    parse_date,
    relative,
    require_days,
    walk,
)
from model_code.market.schema import InstrumentDay

LAYOUT = "<spot|usdm|cm>_<symbol>_<YYYYMMDD>.gz"
VENUES = {"spot": "spot", "usdm": "usdm", "cm": "coinm"}
_NAME = re.compile(r"(?:^|/)(?P<venue>spot|usdm|cm)_(?P<symbol>[^/]+)_(?P<date>\d{8})\.gz$")
_LATEST_NS = 2**63

Key = tuple[dt.date, str]


class BinanceFramesStore(FileStore):
    """A folder of recorded frames."""

    KIND: ClassVar[str] = "binance-frames"

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        super().__init__(uri, fs, root)
        self._books: dict[str, tuple[dt.date, OrderBook]] = {}  # after the newest date read

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether a recording is below `root`."""
        return any(_NAME.search(path) for path in walk(fs, root))

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day, sorted; rows are unknown before reading.

        Raises:
            MarketError: there is none, or two files are of one.
        """
        require_days(self._files, self._paths, self._root, LAYOUT)
        return tuple(InstrumentDay(date, symbol) for date, symbol in sorted(self._files))

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files that are not read."""
        read = set(self._files.values())
        return tuple(
            PassedOver(relative(path, self._root), f"not named {LAYOUT}")
            for path in self._paths
            if path not in read
        )

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS, rows in the order of receipt, with notes.

        Raises:
            MarketError: the file is missing, truncated or corrupt.
        """
        path = self._path(day)
        stamps, values = array("q"), array("d")
        traded, ids, amounts, sold = array("q"), array("q"), array("d"), array("b")
        faults: Counter[str] = Counter()
        first_fault = 0
        for line, time, event in self._events(path, day):
            if isinstance(event, QuoteFrame):
                stamps.append(time)
                values.extend(event[1:5])
            elif isinstance(event, TradeFrame):
                traded.append(time)
                ids.append(event.trade_id)
                amounts.extend((event.price, event.size))
                sold.append(event.buyer_is_maker)
            elif isinstance(event, str):
                first_fault = first_fault or line
                faults[event] += 1
        value_N4 = np.frombuffer(values, np.float64).reshape(-1, 4)
        names = ("bid_price", "bid_size", "ask_price", "ask_size")
        quotes = pa.table(
            {"timestamp": _times(stamps)}
            | {name: np.ascontiguousarray(value_N4[:, i]) for i, name in enumerate(names)}
        )
        amount_M2 = np.frombuffer(amounts, np.float64).reshape(-1, 2)
        trades = pa.table(
            {
                "timestamp": _times(traded),
                "trade_id": np.frombuffer(ids, np.int64),
                "price": np.ascontiguousarray(amount_M2[:, 0]),
                "size": np.ascontiguousarray(amount_M2[:, 1]),
                "buyer_is_maker": np.frombuffer(sold, np.bool_),
            }
        )
        return join.load(
            quotes,
            trades,
            day.symbol,
            DayNotes(files=(relative(path, self._root),), warnings=_spelled(faults, first_fault)),
            where=path,
            trades_where=path,
            trade_band_bps=trade_band_bps,
        )

    def depth(self, day: InstrumentDay) -> DepthRows | None:
        """The rebuilt book's ten best levels, a row at each snapshot and event; None without any.

        The book is carried over from the instrument's earlier files. A gap in the update ids
        discards it until the next snapshot; gaps, crossed books and events without a book are
        counted in the notes.

        Raises:
            MarketError: a file is missing, truncated or corrupt.
        """
        path = self._path(day)
        book = self._carried(day)
        before = _counts(book)
        stamps, values = array("q"), array("d")
        for time in self._changes(path, day, book):
            row = book.row(LEVELS)
            if row:
                stamps.append(time)
                values.extend(row)
        self._books[day.symbol] = (day.date, book)
        received, applied, stale, gaps, crossed, one_sided = np.subtract(_counts(book), before)
        if not received and not stamps:
            return None
        counts = (
            (gaps, "gaps in the depth events, the book discarded until the next snapshot"),
            (max(0, received - applied - stale), "depth events left out, no book"),
            (crossed, "crossed books left out"),
            (one_sided, "books without a bid or an ask left out"),
        )
        notes = tuple(f"{text}: {count:,}" for count, text in counts if count)
        value_NPL = np.frombuffer(values, np.float64).reshape(-1, len(PARTS), LEVELS)
        return clean(np.frombuffer(stamps, np.int64), value_NPL, notes)

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the day's file and what the store states."""
        return self._digest([self._path(day)])

    def _depth_paths(self, day: InstrumentDay) -> list[str]:
        """The instrument's files up to the day: the book is carried through all of them."""
        return [path for date, path in self._by_symbol.get(day.symbol, ()) if date <= day.date]

    @cached_property
    def _by_symbol(self) -> dict[str, list[tuple[dt.date, str]]]:
        """Each instrument's files by date."""
        files: dict[str, list[tuple[dt.date, str]]] = {}
        for (date, symbol), path in sorted(self._files.items()):
            files.setdefault(symbol, []).append((date, path))
        return files

    @cached_property
    def _files(self) -> dict[Key, str]:
        files: dict[Key, str] = {}
        for path in self._paths:
            found = _NAME.search(path)
            date = parse_date(found["date"]) if found else None
            if not found or not date:
                continue
            key = (date, f"{found['symbol'].upper()}.{VENUES[found['venue']]}")
            if key in files:
                raise MarketError(
                    f"two recordings hold {key[1]} on {date}",
                    where=f"{relative(files[key], self._root)}, {relative(path, self._root)} in "
                    f"{self._root}",
                    remedy="remove one of them",
                )
            files[key] = path
        return files

    def _path(self, day: InstrumentDay) -> str:
        try:
            return self._files[day.date, day.symbol]
        except KeyError as error:
            raise MarketError(
                f"no recording of {day.symbol} on {day.date}",
                where=self._root,
                remedy="list the store's contents: tickline data describe",
            ) from error

    def _carried(self, day: InstrumentDay) -> OrderBook:
        """The book as the instrument's files before the day leave it."""
        date, book = self._books.pop(day.symbol, (dt.date.min, OrderBook()))
        if date >= day.date:
            date, book = dt.date.min, OrderBook()
        for earlier, path in self._by_symbol.get(day.symbol, ()):
            if date < earlier < day.date:
                for _ in self._changes(path, InstrumentDay(earlier, day.symbol), book):
                    pass
        return book

    def _changes(self, path: str, day: InstrumentDay, book: OrderBook) -> Iterator[int]:
        """Apply a file's depth frames; yield the times at which a complete book has changed."""
        for _, time, event in self._events(path, day):
            if isinstance(event, BookUpdate):
                changed = book.update(event)
            elif isinstance(event, BookSnapshot):
                changed = book.snapshot(event)
            else:
                changed = False
            if changed:
                yield time

    def _events(self, path: str, day: InstrumentDay) -> Iterator[tuple[int, int, Event | str]]:
        """Line number, receive time and event of each line; in place of the event, what is wrong.

        Raises:
            MarketError: the file is missing, truncated or corrupt.
        """
        symbol = day.symbol.rpartition(".")[0]
        try:
            with self._fs.open(path, "rb") as file, gzip.open(file) as lines:
                for number, line in enumerate(lines, 1):
                    stamp, _, frame = line.partition(b" ")
                    if not stamp.isdigit() or int(stamp) >= _LATEST_NS:
                        yield number, 0, "no receive time in ns"
                        continue
                    try:
                        event = parse_frame(frame)
                    except FrameError as error:
                        yield number, int(stamp), str(error)
                        continue
                    if event.symbol not in (symbol, ""):
                        yield number, int(stamp), "of another instrument"
                        continue
                    yield number, int(stamp), event
        except (OSError, EOFError, zlib.error) as error:
            raise MarketError(
                f"cannot decompress the file: {error}",
                where=path,
                remedy="check its permissions; copy the recording again if it is damaged",
            ) from error


def _counts(book: OrderBook) -> tuple[int, ...]:
    return book.received, book.applied, book.stale, book.gaps, book.crossed, book.one_sided


def _times(stamps: "array[int]") -> pa.Array:
    return pa.array(np.frombuffer(stamps, np.int64)).cast(pa.timestamp("ns", "UTC"))


def _spelled(faults: Counter[str], first: int) -> tuple[str, ...]:
    """A sentence on the frames that were left out."""
    if not faults:
        return ()
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in faults.most_common())
    return (f"frames left out: {faults.total():,}, the first in line {first:,} ({reasons})",)
