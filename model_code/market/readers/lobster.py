"""LOBSTER's message and order book files of NASDAQ, at any depth below a folder.

`<TICKER>_<YYYY-MM-DD>_<start>_<end>_message_<levels>.csv` and `..._orderbook_<levels>.csv` (also
.gz, .zst), without headers; start and end in ms after midnight. Row k of the order book is the book
after row k of the messages; only its best level is read.

message: seconds after midnight (New York), type, order id, size, price in 1e-4 dollars, direction.
orderbook: ask price, ask size, bid price, bid size, and so on. The ask price of an empty side is
9999999999, the bid price -9999999999: both become null.

Types 1 (new order), 2 (partly cancelled), 3 (deleted) and 4 (execution) change the book: a quote
each. Types 4 and 5 (hidden) are trades, known with their own row. The direction is that of the
resting order: 1, a buy order, was hit by a seller. Left out and counted: type 6, a cross, whose
executions are listed one by one; type 7, the start (price -1) and the end (1) of a trading halt;
and the quotes of a halt. Symbols are `<TICKER>.XNAS`.

Source: lobsterdata.com/info/DataStructure.php; help.lobsterdata.com, "Event type 6".
"""

import datetime as dt
import re
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import fsspec
import numpy as np
import numpy.typing as npt
import polars as pl

from model_code.errors import DataError, MarketError
from model_code.market.readers.chunked import POSITION, Chunk, ChunkedStore
from model_code.market.readers.clocks import FIRST, LAST, Stamps, from_local
from model_code.market.readers.csv_rows import Columns, blocks, parse_rows
from model_code.market.readers.files import PassedOver, parse_date, relative, walk
from model_code.market.readers.statement import Statement
from model_code.market.schema import InstrumentDay, moment

ZONE = "America/New_York"
VENUE = "XNAS"
EMPTY_SIDE = 9_999_999_999
PRICE_SCALE = 10_000
EARLY_S = 300.0  # a day that ends so long before its name says is remarked
MESSAGES: Columns = {
    "seconds": pl.Float64,
    "type": pl.Int64,
    "order_id": pl.Int64,
    "size": pl.Int64,
    "price": pl.Int64,
    "direction": pl.Int64,
}
BOOK: Columns = {
    "ask_price": pl.Int64,
    "ask_size": pl.Int64,
    "bid_price": pl.Int64,
    "bid_size": pl.Int64,
}
TRUNCATED = "fetch both files again; they have one line for each event"
CROSS, HALT, HALTED = (
    "crosses (type 6), their executions are listed one by one",
    "halt messages (type 7)",
    "quotes of a trading halt",
)
_NAME = re.compile(
    r"(?:^|/)(?P<symbol>[^/]+)_(?P<date>\d{4}-\d{2}-\d{2})_(?P<start>\d+)_(?P<end>\d+)_"
    r"(?P<kind>message|orderbook)_(?P<levels>\d+)\.csv(?:\.gz|\.zst)?$"
)


class LobsterStore(ChunkedStore):
    """A folder of pairs of message and order book files."""

    KIND: ClassVar[str] = "lobster"
    LAYOUT = "<TICKER>_<YYYY-MM-DD>_<start>_<end>_message_<levels>.csv and ..._orderbook_..."

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether a message or order book file is below `root`."""
        return any(_NAME.search(path) for path in walk(fs, root))

    @cached_property
    def statement(self) -> Statement:
        """What the store's `tickline.yaml` says; the profile is us-equities without it."""
        stated = super().statement
        return stated if stated.profile else stated.model_copy(update={"profile": "us-equities"})

    def _refusal(self, path: str) -> str | None:
        found = _NAME.search(path)
        date = parse_date(found["date"]) if found else None
        if not found or not date or not FIRST <= date < LAST:
            return f"not named {self.LAYOUT}"
        if found["kind"] == "orderbook":
            beside = path.replace("_orderbook_", "_message_") in self._paths
            return "read with its message file" if beside else "its message file is missing"
        return None

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files that are not read, beside the order books of message files."""
        return tuple(
            item for item in super().passed_over() if item.reason != "read with its message file"
        )

    def _sources(self, path: str) -> list[str]:
        return [path, path.replace("_message_", "_orderbook_")]

    def _chunks(self, path: str) -> Iterator[Chunk]:
        book_path = self._sources(path)[1]
        if book_path not in self._paths:
            raise MarketError(
                "the order book file is missing", where=book_path, remedy="fetch it too"
            )
        found = _NAME.search(path)
        if not found:  # `_refusal` passed over such a file
            raise MarketError(f"not named {self.LAYOUT}", where=path, remedy="rename it")
        date, symbol = dt.date.fromisoformat(found["date"]), f"{found['symbol']}.{VENUE}"
        row, halted = 0, False
        for frame in self._rows(path, book_path):
            rows = _with_times(frame, date, path, row).with_columns(
                pl.lit(symbol).alias("symbol"),
                (2 * pl.int_range(pl.len()) + 2 * row).alias(POSITION),
            )
            _require_types(frame["type"], path, row)
            during, halted = _halts(frame, halted=halted)
            row += len(frame)
            yield from _split(rows, during)

    def _rows(self, path: str, book_path: str) -> Iterator[pl.DataFrame]:
        """Messages and their books side by side.

        Raises:
            MarketError: one file has more lines than the other, or ends within a line.
        """
        books, ahead = self._lines(book_path, BOOK), pl.DataFrame(schema=BOOK)
        row = 0
        for messages in self._lines(path, MESSAGES):
            while len(ahead) < len(messages):
                more = next(books, None)
                if more is None:
                    raise _unequal(path, "more", row + len(ahead))
                ahead = pl.concat([ahead, more])
            yield messages.rename({"size": "traded", "price": "at"}).hstack(
                ahead.head(len(messages))
            )
            ahead = ahead.slice(len(messages))
            row += len(messages)
        if len(ahead) or next(books, None) is not None:
            raise _unequal(path, "fewer", row)

    def _lines(self, path: str, columns: Columns) -> Iterator[pl.DataFrame]:
        exact = columns is MESSAGES
        for block in blocks(self._fs, path):
            if block.cut:
                raise MarketError(
                    "truncated: the last line has no line end",
                    where=f"{path}, line {block.line:,}",
                    remedy=TRUNCATED,
                )
            frame = parse_rows(block.data, columns, path, TRUNCATED, line=block.line, exact=exact)
            if frame.null_count().sum_horizontal()[0]:
                bad = frame.select(pl.any_horizontal(pl.all().is_null())).to_series()
                raise DataError(
                    "a cell is empty",
                    where=f"{path}, line {block.line + int(bad.arg_max() or 0):,}",
                    remedy=TRUNCATED,
                )
            yield frame

    def _remarks(self, day: InstrumentDay, paths: list[str]) -> Iterator[str]:
        """A day that ends long before its file's name says."""
        for span in self._days["quotes"][day.date, day.symbol]:
            found = _NAME.search(span.path)
            if found and span.path in paths:
                date = dt.date.fromisoformat(found["date"])
                named = _utc(date, np.array([int(found["end"]) * 10**6]), span.path)[0]
                if (named - span.last) / 1e9 > EARLY_S:
                    yield (
                        f"{relative(span.path, self._root)} ends at {moment(span.last):%H:%M:%S} "
                        f"UTC, its name says {moment(int(named)):%H:%M:%S}"
                    )


def _split(rows: pl.DataFrame, during: npt.NDArray[np.bool_]) -> Iterator[Chunk]:
    kind = pl.col("type")
    rows = rows.with_columns(
        pl.Series("halted", during),
        *(_prices(rows[name]).alias(name) for name in ("bid_price", "ask_price", "at")),
        *(pl.col(name).cast(pl.Float64) for name in ("bid_size", "ask_size", "traded")),
    )
    quotes = rows.filter(kind <= 4).select(
        "symbol",
        "timestamp",
        "halted",
        pl.col(POSITION) + 1,  # the book after the execution of its own row
        "bid_price",
        "ask_price",
        "bid_size",
        "ask_size",
    )
    yield Chunk("quotes", quotes.filter(~pl.col("halted")).drop("halted"))
    yield Chunk("quotes", quotes.filter("halted").drop("halted"), HALTED)
    direction = pl.col("direction")
    trades = rows.filter(kind.is_in([4, 5])).select(
        "symbol",
        "timestamp",
        POSITION,
        price="at",
        size="traded",
        buyer_is_maker=pl.when(direction.abs() == 1).then(direction == 1),
    )
    yield Chunk("trades", trades)
    yield Chunk("trades", rows.filter(kind == 6).select("symbol", "timestamp"), CROSS)
    yield Chunk("quotes", rows.filter(kind == 7).select("symbol", "timestamp"), HALT)


def _prices(cells: pl.Series) -> pl.Series:
    """Dollars; null for an empty side."""
    dollars = cells.to_numpy() / PRICE_SCALE  # polars' own division rounds twice
    return (
        pl.Series(dollars).to_frame("x").select(pl.when(cells.abs() != EMPTY_SIDE).then("x"))["x"]
    )


def _halts(frame: pl.DataFrame, *, halted: bool) -> tuple[npt.NDArray[np.bool_], bool]:
    """Whether trading is halted at each row, and after the last."""
    change = pl.when((pl.col("type") == 7) & (pl.col("at") != 0)).then(pl.col("at") < 0)
    state = frame.select(change.forward_fill().fill_null(value=halted)).to_series().to_numpy()
    return state, bool(state[-1]) if len(state) else halted


def _with_times(frame: pl.DataFrame, date: dt.date, path: str, row: int) -> pl.DataFrame:
    seconds = frame["seconds"]
    outside = ~seconds.is_between(0, 86_400, closed="left")
    if outside.any():
        place = int(outside.arg_max() or 0)
        raise DataError(
            f"{seconds[place]} is not a time in seconds after midnight",
            where=f"{path}, line {row + place + 1:,}",
            remedy="fetch the file again; the first column must be in seconds",
        )
    nanoseconds = np.rint(seconds.to_numpy() * 1e9).astype(np.int64)  # exact: below 2^53
    return frame.with_columns(pl.Series("timestamp", _utc(date, nanoseconds, path)))


def _utc(date: dt.date, after_midnight_ns: Stamps, path: str) -> Stamps:
    """Times after midnight in New York as ns since 1970 in UTC."""
    midnight = pl.lit(date).cast(pl.Datetime("ns"))
    naive = pl.select(midnight + pl.Series(after_midnight_ns).cast(pl.Duration("ns"))).to_series()
    return from_local(naive, ZONE, path)


def _require_types(kinds: pl.Series, path: str, row: int) -> None:
    known = kinds.is_between(1, 7)
    if not known.all():
        place = int((~known).arg_max() or 0)
        raise DataError(
            f"{kinds[place]} is no event type; expected 1 to 7",
            where=f"{path}, line {row + place + 1:,}",
            remedy="fetch the file again; the second column must be the event type",
        )


def _unequal(path: str, how: str, rows: int) -> MarketError:
    return MarketError(
        f"truncated: the message file has {how} lines than its order book file, which differ from "
        f"line {rows + 1:,}",
        where=path,
        remedy=TRUNCATED,
    )
