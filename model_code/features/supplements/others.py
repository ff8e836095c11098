"""What an instrument sees of others of its date: states of leaders, crossings of its venues.

Shapes: N rows of an instrument-day, E instants.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.errors import DataError
from model_code.features import pairs
from model_code.features.batch import CHUNK_ROWS, FeatureStream, reset_gap_ns
from model_code.features.definition import look_at
from model_code.features.venues import Quotes, crossings, siblings
from model_code.market.schema import conform
from model_code.settings import FeatureSpec

BUFFER_BYTES = 1 << 20  # read ahead of each column


def needed(
    symbol: str, present: Collection[str], spec: FeatureSpec, leaders: Sequence[str]
) -> tuple[str, ...]:
    """Other instruments of a date whose ticks the features or the label need, sorted.

    Args:
        symbol: the instrument.
        present: instruments with ticks on that date.
        spec: feature set and label.
        leaders: whom the instrument looks at, the strongest first.
    """
    wanted = set(leaders[: look_at(spec.chosen_set)])
    if spec.chosen_label == "cross-venue":
        wanted.update(siblings([symbol, *present])[symbol])
    return tuple(sorted(wanted & set(present) - {symbol}))


class LeaderStates:
    """A leader's states, computed along with the receiver's rows; no more is kept than they see.

    In memory are one chunk and the last `pairs.FAR_NS`, 104 bytes a row.

    Args:
        path: its clean TICKS.
        spec: feature set.
        chunk_rows: rows read at a time.
    """

    def __init__(self, path: Path, spec: FeatureSpec, chunk_rows: int = CHUNK_ROWS) -> None:
        stream = FeatureStream(spec.with_set("solo"))
        self._chunks = (stream.update(batch).states_N for batch in read(path, chunk_rows))
        self._kept_M = pairs.EMPTY
        self._over = False

    def look_all(
        self,
        own_N: npt.NDArray[np.void],
        basis_1: npt.NDArray[np.float64],
        reset_gap_ns: int,
        seen_NP: npt.NDArray[np.float32],
    ) -> None:
        """Write what the receiver's next rows see, bit for bit as `pairs.look_all` on all states.

        Raises:
            DataError: the leader's file cannot be read.
        """
        time_N, start = own_N["timestamp"], 0
        while start < len(own_N):
            stop = self._complete_for(time_N)
            if stop > start:
                rows, kept_M = slice(start, stop), self._kept_M
                pairs.look_all(
                    own_N[rows], basis_1, kept_M, len(kept_M), reset_gap_ns, seen_NP[rows]
                )
                start = stop
            if start < len(own_N):
                self._read(time_N[start])

    def _complete_for(self, time_N: npt.NDArray[np.int64]) -> int:
        """How many of the rows see nothing that has not been read: only earlier rows are seen."""
        if self._over:
            return len(time_N)
        if not len(self._kept_M):
            return 0
        return int(np.searchsorted(time_N, self._kept_M["timestamp"][-1], "right"))

    def _read(self, time_ns: np.int64) -> None:
        """Add a chunk; drop what rows from `time_ns` on do not see, but for one row before."""
        old = int(np.searchsorted(self._kept_M["timestamp"], time_ns - pairs.FAR_NS))
        chunk_M = next(self._chunks, None)
        self._over = chunk_M is None
        parts = [self._kept_M[max(0, old - 1) :], *([] if chunk_M is None else [chunk_M])]
        self._kept_M = np.concatenate(parts)


def leaders_of(
    paths: Mapping[str, Path],
    leaders: Sequence[str],
    spec: FeatureSpec,
    chunk_rows: int = CHUNK_ROWS,
) -> list[LeaderStates | npt.NDArray[np.void]]:
    """The leaders that the set looks at; no states for an absent one.

    Args:
        paths: clean TICKS by instrument.
        leaders: the strongest first.
        spec: feature set.
        chunk_rows: rows read at a time.
    """
    return [
        LeaderStates(paths[name], spec, chunk_rows) if name in paths else pairs.EMPTY
        for name in leaders[: look_at(spec.chosen_set)]
    ]


def crossings_of(
    paths: Mapping[str, Path], symbol: str, spec: FeatureSpec, chunk_rows: int = CHUNK_ROWS
) -> npt.NDArray[np.int64] | None:
    """Instants (E,) at which a crossing of the instrument's venues begins; None for other labels.

    Args:
        paths: clean TICKS by instrument, those of `symbol` included.
        symbol: the instrument.
        spec: label.
        chunk_rows: rows read at a time.

    Raises:
        DataError: the label is `cross-venue` and the instrument has one venue on this date.
    """
    if spec.chosen_label != "cross-venue":
        return None
    venues = sorted((symbol, *siblings(list(paths))[symbol]))
    quotes = {name: _quotes(paths[name], chunk_rows) for name in venues}
    return crossings(quotes, spec.cost_bps, reset_gap_ns(spec))


def read(path: Path, chunk_rows: int) -> Iterator[pa.RecordBatch]:
    """Non-empty batches of `path`, with exactly the columns of TICKS.

    Raises:
        DataError: it cannot be read.
    """
    for batch in batches(path, chunk_rows):
        yield from conform(pa.Table.from_batches([batch]), str(path)).to_batches()


def batches(
    path: Path, chunk_rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of `path`, read in this thread; in memory are one batch and a MiB a column.

    Args:
        path: a Parquet file.
        chunk_rows: rows of a batch.
        columns: to read; None: all.

    Raises:
        DataError: it cannot be read.
    """
    try:
        # pre_buffer would keep the bytes of the whole file
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            yield from file.iter_batches(chunk_rows, columns=columns, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a clean file that cannot be read."""
    return DataError(
        f"unreadable Parquet: {error}",
        where=str(path),
        remedy="delete it and run the stage again: tickline nightly --refresh",
    )


def _quotes(path: Path, chunk_rows: int) -> Quotes:
    time, bid, ask = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0)]
    for batch in read(path, chunk_rows):
        time.append(batch.column("timestamp").cast(pa.int64()).to_numpy())
        bid.append(batch.column("bid_price").to_numpy())
        ask.append(batch.column("ask_price").to_numpy())
    return Quotes(np.concatenate(time), np.concatenate(bid), np.concatenate(ask))
