"""What every file-backed store shares: where it is, what it states, which files it has."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.errors import MarketError
from model_code.market import supplements
from model_code.market.level2.rows import DepthRows
from model_code.market.notes import Loaded
from model_code.market.readers.files import HashFile, digest_files, hash_file, relative, walk
from model_code.market.readers.statement import Statement, read_statement
from model_code.market.schema import InstrumentDay
from model_code.market.stream.ticks import TableTicks, TickStream


class FileStore(ABC):
    """A store of files below a root; see `model_code.market.store.MarketStore`.

    Attributes:
        uri: what was opened.
        hash_file: gives the sha256 of a file's bytes for the digests.
    """

    KIND: ClassVar[str]
    simulated = False

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self.uri, self._fs, self._root = uri, fs, root.rstrip("/")
        self.hash_file: HashFile = hash_file

    @cached_property
    def statement(self) -> Statement:
        """What the store's `tickline.yaml` says."""
        return read_statement(self._fs, self._root)

    @cached_property
    def _paths(self) -> list[str]:
        """Every file but the exogenous tables."""
        tables = set(self._tables.values())
        return [path for path in self._walked if path not in tables]

    @cached_property
    def _walked(self) -> list[str]:
        return walk(self._fs, self._root)

    @cached_property
    def _tables(self) -> dict[str, str]:
        """The exogenous tables: path by name."""
        named = (
            (supplements.table_name(relative(path, self._root)), path) for path in self._walked
        )
        return {name: path for name, path in named if name}

    @abstractmethod
    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS, with notes on how it was read."""

    def stream(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> TickStream:
        """One instrument-day for validation; in memory, unless the layout is read in chunks."""
        return TableTicks.of(self.load(day, trade_band_bps=trade_band_bps))

    def read(self, day: InstrumentDay) -> pa.Table:
        """The ticks of `load` alone."""
        return self.load(day).ticks

    def depth(self, day: InstrumentDay) -> DepthRows | None:  # noqa: ARG002  most have none
        """The instrument-day's depth rows; None if the store has none."""
        return None

    def _depth_paths(self, day: InstrumentDay) -> list[str]:  # noqa: ARG002
        """The files that `depth` depends on."""
        return []

    def exogenous(self, name: str) -> supplements.Series:
        """The exogenous series `<table>.<column>`.

        Raises:
            MarketError: there is no such table, or it is not readable.
            SchemaError: there is no such column, or it is not of numbers.
            DataError: a time stamp or a value is unfit.
        """
        table, _, column = name.partition(".")
        path = self._tables.get(table)
        if path is None:
            there = ", ".join(sorted(self._tables)) or "none"
            raise MarketError(
                f"no exogenous table {table}: the store has {there}",
                where=f"{self._root}/{supplements.FOLDER}/{table}.parquet",
                remedy="add the file, correct features.exogenous, or choose another set, e.g. "
                "--set features.feature_set=paired --set 'features.exogenous=[]'",
            )
        try:
            with self._fs.open(path, "rb") as file:
                rows = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise MarketError(
                f"not readable as Parquet, truncated or corrupt: {error}",
                where=path,
                remedy="write this file again; it is incomplete",
            ) from error
        return supplements.read_series(self.statement.with_stamps(rows, path), column, path)

    def supplements(self, day: InstrumentDay) -> dict[str, str]:
        """sha256 of what the store has beside ticks: `depth` and `exogenous/<table>`."""
        found = dict(self._table_digests)
        if depth := self._depth_paths(day):
            found["depth"] = self._digest(depth)
        return found

    @cached_property
    def _table_digests(self) -> dict[str, str]:
        return {
            f"{supplements.FOLDER}/{name}": self._digest([path])
            for name, path in sorted(self._tables.items())
        }

    def _digest(self, paths: Iterable[str]) -> str:
        """sha256 over the files' names and bytes and what the store states."""
        return digest_files(self._fs, [*paths, *self.statement.paths], self.hash_file)
