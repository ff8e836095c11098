"""What instruments of one date share: states of leaders, crossings of venues, exogenous series.

Shapes: N rows of an instrument-day, E instants.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.errors import DataError
from model_code.features import pairs
from model_code.features.batch import CHUNK_ROWS, FeatureStream, reset_gap_ns
from model_code.features.definition import look_at, looks_at_depth
from model_code.features.supplements import depth
from model_code.features.supplements.exogenous import read_series
from model_code.features.venues import Quotes, crossings, siblings
from model_code.market.schema import InstrumentDay, conform
from model_code.market.supplements import SupplementStore
from model_code.settings import FeatureSpec


class SharedDays:
    """Computed once for a date and kept until another date is asked for.

    A leader's states need 104 bytes a row of one date, in memory.

    Args:
        inputs: clean TICKS, one file for each instrument-day.
        spec: feature set and label.
        leaders: whom each instrument looks at.
        chunk_rows: rows read at a time.
        market: has the depth rows and series that the set needs; None if it needs none.

    Raises:
        MarketError, DataError: the store lacks a series, or it is unfit.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[InstrumentDay, Path]],
        spec: FeatureSpec,
        leaders: Mapping[str, tuple[str, ...]],
        chunk_rows: int = CHUNK_ROWS,
        market: SupplementStore | None = None,
    ) -> None:
        self._paths = {(day.date, day.symbol): path for day, path in inputs}
        self._spec, self._leaders, self._chunk_rows = spec, leaders, chunk_rows
        self._market = market
        self.series = read_series(market, spec.exogenous)
        self.notes: list[str] = []
        self._date: dt.date | None = None
        self._states: dict[str, npt.NDArray[np.void]] = {}
        self._begins: dict[str, npt.NDArray[np.int64]] = {}

    def others(self, date: dt.date, symbol: str) -> list[npt.NDArray[np.void]]:
        """States (N,) of the instruments that `symbol` looks at; empty for an absent one."""
        self._turn_to(date)
        wanted = self._leaders.get(symbol, ())[: look_at(self._spec.chosen_set)]
        for name in wanted:
            if name not in self._states:
                path = self._paths.get((date, name))
                self._states[name] = self._read_states(path) if path else pairs.EMPTY
        return [self._states[name] for name in wanted]

    def book(self, date: dt.date, symbol: str) -> npt.NDArray[np.void]:
        """Summaries (S,) of the instrument-day's depth rows; empty if the set needs none.

        Raises:
            DataError: the store has none.
        """
        if not looks_at_depth(self._spec.chosen_set):
            return depth.EMPTY
        rows_S, notes = depth.read_depth(self._market, InstrumentDay(date, symbol))
        self.notes += [f"{symbol} {date}: {note}" for note in notes]
        return rows_S

    def crossings(self, date: dt.date, symbol: str) -> npt.NDArray[np.int64] | None:
        """Instants (E,) at which a crossing of the instrument's venues begins; else None.

        Raises:
            DataError: the label is `cross-venue` and the instrument has one venue on this date.
        """
        if self._spec.chosen_label != "cross-venue":
            return None
        self._turn_to(date)
        if symbol not in self._begins:
            present = [name for day, name in self._paths if day == date]
            venues = sorted((symbol, *siblings(present)[symbol]))
            quotes = {name: self._read_quotes(self._paths[date, name]) for name in venues}
            found = crossings(quotes, self._spec.cost_bps, reset_gap_ns(self._spec))
            self._begins |= dict.fromkeys(venues, found)
        return self._begins[symbol]

    def _turn_to(self, date: dt.date) -> None:
        if date != self._date:
            self._date = date
            self._states.clear()
            self._begins.clear()

    def _read_states(self, path: Path) -> npt.NDArray[np.void]:
        stream = FeatureStream(self._spec.with_set("solo"))
        parts = [stream.update(batch).states_N for batch in read(path, self._chunk_rows)]
        return np.concatenate([pairs.EMPTY, *parts])

    def _read_quotes(self, path: Path) -> Quotes:
        time, bid, ask = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0)]
        for batch in read(path, self._chunk_rows):
            time.append(batch.column("timestamp").cast(pa.int64()).to_numpy())
            bid.append(batch.column("bid_price").to_numpy())
            ask.append(batch.column("ask_price").to_numpy())
        return Quotes(np.concatenate(time), np.concatenate(bid), np.concatenate(ask))


def count(path: Path) -> int:
    """Rows of a Parquet file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def given_labels(path: Path) -> int:
    """Rows of a Parquet file that have a label of the source's own.

    Raises:
        DataError: it cannot be read.
    """
    try:
        column = pq.read_table(path, columns=["label"]).column("label")
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error
    return len(column) - int(column.null_count)


def read(path: Path, chunk_rows: int) -> Iterator[pa.RecordBatch]:
    """Non-empty batches of `path`, with exactly the columns of TICKS.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=chunk_rows):
                yield from conform(pa.Table.from_batches([batch]), str(path)).to_batches()
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"unreadable Parquet: {error}",
        where=str(path),
        remedy="delete it and run the stage again: tickline nightly --refresh",
    )
