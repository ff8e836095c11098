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


def leader_states(
    paths: Mapping[str, Path],
    leaders: Sequence[str],
    spec: FeatureSpec,
    chunk_rows: int = CHUNK_ROWS,
) -> list[npt.NDArray[np.void]]:
    """States (N,) of the leaders that the set looks at; empty for an absent one.

    They need 104 bytes a row, in memory.

    Args:
        paths: clean TICKS by instrument.
        leaders: the strongest first.
        spec: feature set.
        chunk_rows: rows read at a time.
    """
    stated = []
    for name in leaders[: look_at(spec.chosen_set)]:
        stream = FeatureStream(spec.with_set("solo"))
        batches = read(paths[name], chunk_rows) if name in paths else ()
        parts = [stream.update(batch).states_N for batch in batches]
        stated.append(np.concatenate([pairs.EMPTY, *parts]))
    return stated


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
