"""A desk's own Parquet (kdb+ exports, TAQ), read with a mapping of its columns.

Quotes and trades are in files of their own, or in one table: `where` says which rows are which.
Without `where`, a row of one table may have both; it has no trade where price and size are null,
and no quote where both prices are. Files are read in batches of rows.
"""

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from typing import ClassVar

import fsspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.artifacts import hash_bytes
from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.readers.chunked import Chunk, ChunkedStore
from model_code.market.readers.clocks import FIRST, LAST, Stamps, from_epoch, from_local
from model_code.market.readers.files import parse_date, partitions, relative
from model_code.market.readers.mapping import (
    FILE,
    Mapping,
    QuoteSection,
    Section,
    TradeSection,
    Value,
    read_mapping,
)
from model_code.market.schema import InstrumentDay, require
from model_code.market.trades import AGGRESSOR, SEQUENCE

BATCH_ROWS = 1 << 18
_LABELS = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
NEITHER = "`where` excludes them"


class MappedParquetStore(ChunkedStore):
    """A folder of Parquet files, or one file, and a mapping."""

    KIND: ClassVar[str] = "parquet"
    LAYOUT = f"*.parquet as {FILE} names them"

    def __init__(
        self, uri: str, fs: fsspec.AbstractFileSystem, root: str, mapping: str | None = None
    ) -> None:
        super().__init__(uri, fs, root)
        self._mapping_fs, self._mapping_path = fs, f"{self._root}/{FILE}"
        if mapping is not None:
            self._mapping_fs, self._mapping_path = fsspec.core.url_to_fs(mapping)

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether `root` has a mapping."""
        return bool(fs.isfile(f"{root.rstrip('/')}/{FILE}"))

    @cached_property
    def _read(self) -> tuple[Mapping, bytes]:
        return read_mapping(self._mapping_fs, self._mapping_path)

    @property
    def mapping(self) -> Mapping:
        """The columns' meaning.

        Raises:
            ConfigError: the mapping is missing or wrong.
        """
        return self._read[0]

    @cached_property
    def _paths(self) -> list[str]:
        return [path for path in super()._paths if path != self._mapping_path]

    def digest(self, day: InstrumentDay) -> str:
        """sha256 over the bytes of the files that hold the day, and of the mapping."""
        return hash_bytes(super().digest(day).encode() + self._read[1])

    def _sections(self, path: str) -> tuple[Section, ...]:
        below = relative(path, self._root)
        return tuple(part for part in self.mapping.sections if fnmatchcase(below, part.files))

    def _refusal(self, path: str) -> str | None:
        return None if self._sections(path) else f"no `files` of {FILE} matches it"

    def _chunks(self, path: str) -> Iterator[Chunk]:
        sections = self._sections(path)
        keys = partitions(relative(path, self._root))
        row = 1
        for table in self._batches(path, lambda names: _wanted(sections, names, keys, path)):
            yield from self._split(table, sections, keys, path, row)
            row += table.num_rows

    def _batches(self, path: str, wanted: Callable[[list[str]], list[str]]) -> Iterator[pa.Table]:
        try:
            with self._fs.open(path, "rb") as file:
                source = pq.ParquetFile(file)
                columns = wanted(source.schema_arrow.names)
                for batch in source.iter_batches(BATCH_ROWS, columns=columns):
                    yield pa.table(batch)
        except (pa.ArrowException, OSError, ValueError) as error:  # as of a damaged footer
            raise MarketError(
                f"not readable as Parquet, truncated or corrupt: {error}",
                where=path,
                remedy="copy or download this file again; it is incomplete",
            ) from error

    def _split(
        self,
        table: pa.Table,
        sections: tuple[Section, ...],
        keys: dict[str, str],
        path: str,
        row: int,
    ) -> Iterator[Chunk]:
        """Quotes and trades of a batch, and the rows that are neither."""
        chosen = [_chosen(table, part, path) for part in sections]
        shared = len(sections) > 1 and not any(part.where for part in sections)
        for part, rows in zip(sections, chosen, strict=True):
            frame = self._frame(table, part, keys, path, row, rows)
            if shared:
                frame = frame.filter(~pl.all_horizontal(pl.col(list(_values(part))).is_null()))
            yield Chunk(part.kind, frame)
        neither = ~pl.DataFrame(chosen).select(pl.any_horizontal(pl.all())).to_series()
        if neither.any():
            rest = self._frame(table, sections[0], keys, path, row, neither)
            yield Chunk(sections[0].kind, rest.select("symbol", "timestamp"), NEITHER)

    def _frame(
        self,
        table: pa.Table,
        part: Section,
        keys: dict[str, str],
        path: str,
        row: int,
        rows: pl.Series,
    ) -> pl.DataFrame:
        """The chosen rows of a section in Tickline's columns."""
        where = f"{path}, rows {row:,} to {row + table.num_rows - 1:,}"
        table = table.filter(rows.to_arrow())
        columns = [
            self._symbols(table, part, keys, where).alias("symbol"),
            pl.Series("timestamp", self._times(table, part, keys, where), pl.Int64),
        ]
        for names, unit in ((part.prices, part.price_unit), (part.sizes, part.size_unit)):
            for name, column in names.items():
                columns.append(_numbers(table, column, unit, where).alias(name))
        if isinstance(part, QuoteSection) and part.bid_size is None:
            empty = pl.Series([None] * table.num_rows, dtype=pl.Float64)
            columns += [empty.alias("bid_size"), empty.alias("ask_size")]
        if part.sequence:
            numbers = require(table, {part.sequence: pa.int64()}, where)
            columns.append(pl.Series(SEQUENCE, numbers[part.sequence]))
        if isinstance(part, TradeSection):
            columns += _trade_columns(table, part, where)
        return pl.DataFrame(columns)

    def _symbols(
        self, table: pa.Table, part: Section, keys: dict[str, str], where: str
    ) -> pl.Series:
        if part.symbol in table.column_names:
            names = pl.Series(require(table, {part.symbol: pa.string()}, where)[part.symbol])
            if names.null_count():
                raise DataError(
                    f"column {part.symbol!r} has {names.null_count()} nulls",
                    where=where,
                    remedy="write a symbol on every row",
                )
        else:
            names = pl.Series([keys[part.symbol]] * table.num_rows, dtype=pl.String)
        return names + f".{self.mapping.venue}" if self.mapping.venue else names

    def _times(self, table: pa.Table, part: Section, keys: dict[str, str], where: str) -> Stamps:
        """The rows' times in ns since 1970, UTC."""
        column, place = table[part.timestamp], f"{where}, column {part.timestamp!r}"
        if column.null_count:
            raise DataError(
                f"column {part.timestamp!r} has {column.null_count} nulls",
                where=where,
                remedy="write a time stamp on every row",
            )
        kind = column.type
        if part.date is None and pa.types.is_timestamp(kind):
            if part.unit:
                raise _unfit(part, f"{kind}: it has its own unit", place, "remove `unit`")
            times = from_epoch(column.cast(pa.int64()).to_numpy(), kind.unit, place)
            if kind.tz is not None:
                return times
            naive = pl.Series(times).cast(pl.Datetime("ns"))
            return from_local(naive, self._zone(part, place), place)
        if pa.types.is_integer(kind):
            if part.unit is None:
                raise _unfit(part, f"{kind}: its unit is not stated", place, "state `unit`")
            if part.date is None:
                return from_epoch(pl.Series(column).cast(pl.Int64).to_numpy(), part.unit, place)
            column = column.cast(pa.int64()).cast(pa.duration(part.unit))
        elif not pa.types.is_time(kind) and not pa.types.is_duration(kind):
            raise _unfit(part, f"{kind}: it is no time", place, "write times or integers")
        elif part.date is None:
            raise _unfit(part, f"{kind}: a time of day without a date", place, "state `date`")
        after = pl.Series(column)
        after = after.cast(pl.Int64) if pa.types.is_time(kind) else after.dt.total_nanoseconds()
        if len(after) and not after.is_between(0, 86_400 * 10**9, closed="left").all():
            raise _unfit(part, "a value that is no time of day", place, "correct `unit`")
        dates = _dates(table, part.date or "", keys, where)
        naive = dates.cast(pl.Datetime("ns")) + after.cast(pl.Duration("ns"))
        return from_local(naive, self._zone(part, place), place)

    def _zone(self, part: Section, place: str) -> str:
        if self.mapping.time_zone is None:
            raise _unfit(
                part, "times without a zone", place, "state `time_zone`, e.g. America/New_York"
            )
        return self.mapping.time_zone


def _wanted(
    sections: tuple[Section, ...], names: list[str], keys: dict[str, str], path: str
) -> list[str]:
    """The columns to read.

    Raises:
        SchemaError: one is missing, or there twice.
    """
    wanted: dict[str, None] = {}
    for part in sections:
        fields = {
            "timestamp": part.timestamp,
            "date": part.date,
            "symbol": part.symbol,
            **part.prices,
            **part.sizes,
            "sequence": part.sequence,
            "where.column": part.where.column if part.where else None,
        }
        if isinstance(part, TradeSection):
            fields["trade_id"] = part.trade_id
            fields["aggressor.column"] = part.aggressor.column if part.aggressor else None
        for field, column in fields.items():
            if column is None or (field in ("date", "symbol") and column in keys):
                continue
            if names.count(column) != 1:
                close = get_close_matches(column, names, n=1)
                found = f"there {names.count(column)} times" if column in names else "missing"
                raise SchemaError(
                    f"column {column!r} ({part.kind}.{field}) is {found}: found columns {names}",
                    where=path,
                    remedy=f"correct {FILE}" + (f"; did you mean {close[0]!r}?" if close else ""),
                )
            wanted[column] = None
    return list(wanted)


def _values(part: Section) -> dict[str, str]:
    return part.prices if part.kind == "quotes" else part.prices | part.sizes


def _chosen(table: pa.Table, part: Section, where: str) -> pl.Series:
    """Which rows belong to a section."""
    if part.where is None:
        return pl.Series(part.kind, [True] * table.num_rows, pl.Boolean)
    cells = _labels(table, part.where.column, where)
    return (cells == _text(part.where.equals)).fill_null(value=False).alias(part.kind)


def _labels(table: pa.Table, column: str, where: str) -> pl.Series:
    """A column of text, integers or booleans as text."""
    kind = table[column].type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (_is_text(kind) or any(is_kind(kind) for is_kind in _LABELS)):
        raise SchemaError(
            f"column {column!r} has the wrong type: expected text, integers or booleans, "
            f"found {kind}",
            where=where,
            remedy=f"correct {FILE}, or the export",
        )
    return pl.Series(table[column]).cast(pl.String)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)) or (
        str(kind) == "string_view"
    )


def _text(value: Value) -> str:
    """A value as polars writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _numbers(table: pa.Table, column: str, unit: float, where: str) -> pl.Series:
    """A column in units of 1; 1/10000 divides, which rounds once, as 0.0001 times would not."""
    cells = pl.Series(require(table, {column: pa.float64()}, where)[column])
    divisor = round(1 / unit)
    values = cells.to_numpy()
    scaled = values / divisor if divisor and np.isclose(1 / divisor, unit, 1e-12) else values * unit
    return pl.Series(scaled, nan_to_null=True)


def _trade_columns(table: pa.Table, part: TradeSection, where: str) -> list[pl.Series]:
    columns = []
    if part.trade_id:
        columns.append(_labels(table, part.trade_id, where).alias("trade_id"))
    if part.aggressor:
        cells = _labels(table, part.aggressor.column, where)
        known = {_text(value): True for value in part.aggressor.sold}
        known |= {_text(value): False for value in part.aggressor.bought}
        flag = cells.replace_strict(known, default=None, return_dtype=pl.Boolean)
        columns.append(flag.alias(AGGRESSOR))
    return columns


def _dates(table: pa.Table, name: str, keys: dict[str, str], where: str) -> pl.Series:
    if name in table.column_names:
        kind = table[name].type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if _is_text(kind):
            cells = pl.Series(table[name]).cast(pl.String)
            dates = {text: parse_date(text) for text in cells.drop_nulls().unique()}
            cells = cells.replace_strict(dates, default=None, return_dtype=pl.Date)
        elif pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None):
            cells = pl.Series(table[name])
        else:
            raise SchemaError(
                f"column {name!r} has the wrong type: expected dates, found {kind}",
                where=where,
                remedy="write dates, or text such as 2024-01-02",
            )
        cells = cells.cast(pl.Date)
        if cells.null_count():
            raise DataError(
                f"column {name!r} has {cells.null_count()} values that are no dates",
                where=where,
                remedy="write a date such as 2024-01-02 on every row",
            )
        return _plausible(cells, name, where)
    date = parse_date(keys[name])
    if date is None:
        raise DataError(
            f"{name}={keys[name]} is not a date", where=where, remedy="name it YYYY-MM-DD"
        )
    return _plausible(pl.Series([date] * table.num_rows, dtype=pl.Date), name, where)


def _plausible(dates: pl.Series, name: str, where: str) -> pl.Series:
    if not dates.is_between(FIRST, LAST, closed="left").all():
        raise DataError(
            f"{name!r} has dates from {dates.sort()[0]} to {dates.sort()[-1]}",
            where=where,
            remedy=f"write dates from {FIRST} on, before {LAST}",
        )
    return dates


def _unfit(part: Section, what: str, where: str, remedy: str) -> SchemaError:
    return SchemaError(
        f"{part.kind}.timestamp has {what}", where=where, remedy=f"{remedy} in {FILE}"
    )
