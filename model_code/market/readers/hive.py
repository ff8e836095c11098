"""Hive-partitioned Parquet below `quotes/` and, optionally, `trades/` and `depth/`, by fsspec URI.

`<root>/<quotes|trades|depth>/symbol=<S>/date=<D>.parquet`, or `.../symbol=<S>/date=<D>/*.parquet`
as DuckDB, polars and Spark write it (`year=/month=/day=` too), at any depth. Values in folder names
may be percent-encoded. A day's parts follow each other in time.

quotes: timestamp, bid_price, ask_price and, if the venue provides them, both bid_size and
ask_size; optional symbol, sequence and the desk's own last_trade, vwap, feature_ema_1min, label.
trades: timestamp, price, size; optional buyer_is_maker, trade_id, sequence, symbol.
depth: timestamp, bid_price_0 to _9, bid_size_0 to _9, ask_price_0 to _9, ask_size_0 to _9.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market import join, trades
from model_code.market.level2 import rows as depth_rows
from model_code.market.notes import DayNotes, Loaded
from model_code.market.readers.base import FileStore
from model_code.market.readers.files import (
    PassedOver,
    parse_date,
    partitions,
    refuse_overlap,
    relative,
    require_days,
    spell_dates,
)
from model_code.market.schema import InstrumentDay, require, stamps
from model_code.market.stream.parquet import ParquetRows, read_chunks, read_schema
from model_code.market.stream.rows import Rows, whole

LAYOUT = "<root>/quotes/symbol=<S>/date=<YYYY-MM-DD>.parquet (or date=<D>/*.parquet)"
SIZES = ("bid_size", "ask_size")
KEYS = ("symbol", "date", "year", "month", "day")  # of partitions, repeated by some writers
QUOTE_COLUMNS = frozenset((*join.QUOTES, *join.OWN, trades.SEQUENCE, *KEYS))
TRADE_COLUMNS = frozenset((*trades.COLUMNS, trades.AGGRESSOR, *trades.IDS, trades.SEQUENCE, *KEYS))
KNOWN_COLUMNS = {
    "quotes": QUOTE_COLUMNS,
    "trades": TRADE_COLUMNS,
    "depth": frozenset((*depth_rows.KINDS, *KEYS)),
}
_CODEC = r"\.(?:snappy|zstd|zst|gzip|gz|lz4|brotli|br)"
_SUFFIX = re.compile(rf"\.(parquet|pq)({_CODEC})?$|\.\w+\.parquet$")

Key = tuple[dt.date, str]


class HiveStore(FileStore):
    """A folder of Hive-partitioned quotes and trades."""

    KIND: ClassVar[str] = "hive"

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether `root` has a folder `quotes`."""
        return bool(fs.isdir(f"{root.rstrip('/')}/quotes"))

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day of the quotes, sorted; rows are unknown before reading.

        Raises:
            MarketError: there is none.
        """
        keys = self._files["quotes"]
        require_days(keys, self._paths, self._root, LAYOUT)
        return tuple(InstrumentDay(date, symbol) for date, symbol in sorted(keys))

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files that are not read."""
        return tuple(self._passed)

    def stream(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> join.FoldedDay:
        """One instrument-day, read in chunks; see `load`."""
        where, quotes, warnings = self._rows("quotes", day)
        missing = [name for name in SIZES if name not in quotes.present]
        if len(missing) == 1:
            raise SchemaError(
                f"column {missing[0]!r} is missing, the other size is there: "
                f"found columns {quotes.present}",
                where=where,
                remedy="export both sizes, or neither",
            )
        table: Rows | None = None
        trades_where = ""
        if self._has_trades(day):
            trades_where, table, more = self._rows("trades", day)
            warnings += more
            if not any(map(self._count, self._of("trades", day))) and any(
                map(self._count, self._trade_files(day.symbol))
            ):
                raise DataError(
                    f"the trades of {day.symbol} on {day.date} have no rows, other days have",
                    where=trades_where,
                    remedy="fetch the day's trades again, or exclude the day",
                )
            unused = [name for name in join.FROM_TRADES if name in quotes.schema.names]
            warnings += [f"columns not used, trades give them: {', '.join(unused)}"] * bool(unused)
        kinds = ("quotes", "trades") if table is not None else ("quotes",)
        files = [path for kind in kinds for path in self._files[kind][day.date, day.symbol]]
        notes = DayNotes(
            files=tuple(relative(path, self._root) for path in files), warnings=tuple(warnings)
        )
        return join.FoldedDay(
            quotes,
            table,
            day.symbol,
            notes,
            where=where,
            trades_where=trades_where,
            trade_band_bps=trade_band_bps,
        )

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS, rows in source order, with notes.

        Raises:
            MarketError: a file is missing, truncated or not Parquet; parts overlap; trades are
                absent on this day only.
            SchemaError: a column is missing, there twice or of the wrong type.
            DataError: the file contains another symbol than its folder's name.
        """
        return self.stream(day, trade_band_bps=trade_band_bps).loaded()

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the day's files and what the store states."""
        kinds = ("quotes", "trades") if self._has_trades(day) else ("quotes",)
        return self._digest(path for kind in kinds for path in self._of(kind, day))

    def depth(self, day: InstrumentDay) -> depth_rows.DepthRows | None:
        """The instrument-day's depth rows; None if there is no file of them.

        Raises:
            MarketError: a file is truncated or not Parquet, or parts overlap.
            SchemaError: a column is missing or of the wrong type.
            DataError: the file contains another symbol than its folder's name.
        """
        if not self._depth_paths(day):
            return None
        where, rows, warnings = self._rows("depth", day)
        found = depth_rows.read_rows(whole(rows), where)
        return found._replace(notes=(*warnings, *found.notes))

    def _depth_paths(self, day: InstrumentDay) -> list[str]:
        return self._files["depth"].get((day.date, day.symbol), [])

    @cached_property
    def _found(self) -> tuple[dict[str, dict[Key, list[str]]], list[PassedOver]]:
        files: dict[str, dict[Key, list[str]]] = {kind: {} for kind in KNOWN_COLUMNS}
        passed = []
        for path in self._paths:
            below = relative(path, self._root)
            kind, _, inner = below.partition("/")
            if kind not in files or not inner:
                passed.append(PassedOver(below, "not below quotes/, trades/ or depth/"))
            elif not _SUFFIX.search(below):
                passed.append(PassedOver(below, "not a .parquet file"))
            elif isinstance(key := _key(inner), str):
                passed.append(PassedOver(below, key))
            else:
                files[kind].setdefault(key, []).append(path)
        for kind in ("trades", "depth"):
            for key in sorted(files[kind].keys() - files["quotes"].keys()):
                passed += [
                    PassedOver(relative(path, self._root), f"{kind} of a day without quotes")
                    for path in files[kind].pop(key)
                ]
        return files, passed

    @property
    def _files(self) -> dict[str, dict[Key, list[str]]]:
        return self._found[0]

    @property
    def _passed(self) -> list[PassedOver]:
        return self._found[1]

    def _of(self, kind: str, day: InstrumentDay) -> list[str]:
        try:
            return self._files[kind][day.date, day.symbol]
        except KeyError as error:
            raise MarketError(
                f"no {kind} of {day.symbol} on {day.date}",
                where=self._root,
                remedy="list the store's contents: tickline data describe",
            ) from error

    @cached_property
    def _trade_dates(self) -> dict[str, list[dt.date]]:
        """Dates with trades by symbol, sorted."""
        dates: dict[str, list[dt.date]] = {}
        for date, symbol in sorted(self._files["trades"]):
            dates.setdefault(symbol, []).append(date)
        return dates

    def _trade_files(self, symbol: str) -> list[str]:
        trades = self._files["trades"]
        return [path for date in self._trade_dates[symbol] for path in trades[date, symbol]]

    def _has_trades(self, day: InstrumentDay) -> bool:
        """Whether to fold in trades; an instrument without any trades file has quotes only."""
        if (day.date, day.symbol) in self._files["trades"]:
            return True
        if dates := self._trade_dates.get(day.symbol):
            raise MarketError(
                f"{day.symbol} has no trades on {day.date}, but on {spell_dates(dates)}",
                where=f"{self._root}/trades/symbol={day.symbol}/date={day.date}.parquet",
                remedy="restore the file, or exclude the day",
            )
        return False

    def _count(self, path: str) -> int | None:
        try:
            return read_schema(self._fs, path)[1]
        except MarketError:
            return None  # load() reports the reason

    def _rows(self, kind: str, day: InstrumentDay) -> tuple[str, ParquetRows, list[str]]:
        """Where (the files as text), the rows of all parts in the order of time, and warnings."""
        paths = self._of(kind, day)
        where = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more parts"
        warnings = {path: self._checked(path, kind, day) for path in paths}
        known = [name for name in KNOWN_COLUMNS[kind] if name not in KEYS]
        if len(paths) > 1:
            spans = [span for path in paths if (span := self._span(path, known))]
            ordered = refuse_overlap(spans, f"{day.symbol} {day.date}", self._root)
            paths = [path for path, _, _ in ordered] or paths[:1]
        absent = pa.schema([(name, join.QUOTES[name]) for name in SIZES if kind == "quotes"])
        rows = ParquetRows(self._fs, paths, known, self.statement.with_stamps, where, absent=absent)
        return where, rows, list(dict.fromkeys(text for path in paths for text in warnings[path]))

    def _checked(self, path: str, kind: str, day: InstrumentDay) -> list[str]:
        """Warnings about one part.

        Raises:
            MarketError, SchemaError, DataError: see `load`.
        """
        schema, _ = read_schema(self._fs, path)
        names = schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SchemaError(
                f"column {twice[0]!r} is there {names.count(twice[0])} times",
                where=path,
                remedy="write each column once",
            )
        if "symbol" in names:
            text = [name for name in ("symbol",) if pa.types.is_string(schema.field(name).type)]
            for chunk in read_chunks(self._fs, path, ["symbol"], dictionaries=text):
                _require_symbol(chunk, path, day)
        known = KNOWN_COLUMNS[kind]
        unknown = [name for name in names if name not in known]
        warnings = [f"columns not used ({kind}): {', '.join(unknown)}"] * bool(unknown)
        if kind == "quotes":
            coarse = [
                name
                for name in ("bid_price", "ask_price")
                if name in names and pa.types.is_float32(schema.field(name).type)
            ]
            if coarse:
                warnings += _coarse(coarse, read_chunks(self._fs, path, coarse[:1]))
        return warnings

    def _span(self, path: str, known: list[str]) -> tuple[str, int, int] | None:
        """First and last stamp of a part; None without rows."""
        kinds = {"timestamp": join.QUOTES["timestamp"]}
        ends: list[int] = []
        rows = ParquetRows(self._fs, [path], known, self.statement.with_stamps, path)
        for chunk in rows.chunks(("timestamp",)):
            if len(time := stamps(require(chunk, kinds, path), path)):
                ends = [min([*ends, int(time.min())]), max([*ends, int(time.max())])]
        return (path, ends[0], ends[1]) if ends else None


def _key(inner: str) -> Key | str:
    """The instrument-day of a path below its family's folder, or why it has none."""
    values = {key: _SUFFIX.sub("", value) for key, value in partitions(inner).items()}
    symbol = values.get("symbol", "")
    if not symbol:
        return "no folder symbol=<S> in its path"
    if "date" in values:
        date = parse_date(values["date"])
        return (date, symbol) if date else f"date={values['date']} is not a date (YYYY-MM-DD)"
    try:
        parts = [int(values[name]) for name in ("year", "month", "day")]
        return dt.date(*parts), symbol
    except (KeyError, ValueError):
        return "no date=<YYYY-MM-DD> in its path"


def _require_symbol(table: pa.Table, path: str, day: InstrumentDay) -> None:
    if "symbol" not in table.column_names:
        return
    symbols = require(table, {"symbol": pa.string()}, path)["symbol"]
    others = [text for text in pc.unique(symbols).to_pylist() if text != day.symbol]
    if others:
        found = "a null symbol" if others[0] is None else f"rows of {others[0]!r}"
        raise DataError(
            f"the file contains {found} in the folder of {day.symbol!r}",
            where=path,
            remedy="write each symbol to its own folder symbol=<S>",
        )


def _coarse(names: list[str], chunks: Iterable[pa.Table]) -> list[str]:
    """A warning where float32 prices are so large that their spacing hides ticks.

    Args:
        names: of the columns of prices.
        chunks: the first of them.
    """
    counts: Counter[float] = Counter()
    for chunk in chunks:
        price = np.abs(np.asarray(chunk[names[0]].drop_null().to_numpy(), np.float32))
        values, times = np.unique(price[np.isfinite(price)], return_counts=True)
        counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    if not counts:
        return []
    price = np.array(sorted(counts), np.float32)
    below = np.cumsum([counts[value] for value in sorted(counts)])
    middle = np.searchsorted(below, [(below[-1] - 1) // 2, below[-1] // 2], side="right")
    median = price[middle].mean()
    steps = np.diff(price)
    spacing = float(np.spacing(median))
    if len(steps) and float(np.median(steps)) > 8 * spacing:
        return []
    return [
        f"{' and '.join(names)} are float32: near {median:,.2f} their spacing is "
        f"{spacing:.4f}, most of a tick; write them as float64"
    ]
