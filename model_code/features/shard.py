"""Features and labels of one instrument-day, built by streaming Parquet.

A shard is a folder of plain `.npy` columns. It depends on the ticks of its own date alone, so a new
day leaves the shards of earlier days as they are. Building needs memory for one chunk of rows and
one label horizon, not for a whole file; the label `cross-venue` needs the date's quotes, 24 bytes
a row and venue.

Shapes: N rows of the instrument-day, F features (16).
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import ArtifactRef, storage_error
from model_code.errors import DataError
from model_code.features.batch import CHUNK_ROWS, FeatureStream
from model_code.features.definition import looks_at_depth
from model_code.features.labels import UNOBSERVED, LabelStream
from model_code.features.supplements import depth
from model_code.features.supplements.exogenous import read_series
from model_code.features.supplements.others import (
    batches,
    crossings_of,
    leaders_of,
    read,
    unreadable,
)
from model_code.market.schema import InstrumentDay
from model_code.market.supplements import SupplementStore
from model_code.settings import FEATURE_COUNT, FeatureSpec

LABEL_ROWS = 1 << 20  # in memory at a time while labels are counted: one byte each

# name: (type, shape of one row)
COLUMNS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "features": (np.float32, (FEATURE_COUNT,)),
    "timestamp": (np.int64, ()),
    "label": (np.int8, ()),
    "segment": (np.int32, ()),  # counted from 0 within the shard
    "spread_bps": (np.float32, ()),
    "bid": (np.float64, ()),
    "ask": (np.float64, ()),
}


class ShardMeta(BaseModel):
    """What a table needs to know of one instrument-day.

    Attributes:
        segments: number of segments.
        given_labels: rows that keep the source's own label.
        notes: what was left out of depth rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    symbol: str
    rows: int
    segments: int
    given_labels: int = 0
    notes: tuple[str, ...] = ()


class Shard(BaseModel):
    """A stored shard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meta: ShardMeta
    folder: ArtifactRef


def build(
    day: InstrumentDay,
    path: Path,
    spec: FeatureSpec,
    out: Path,
    *,
    leaders: Sequence[str] = (),
    others: Mapping[str, Path] | None = None,
    market: SupplementStore | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> ShardMeta:
    """Write the columns of one instrument-day into the new folder `out`.

    The source's own label is used where it is not null.

    Args:
        day: the instrument-day.
        path: its clean TICKS.
        spec: feature set and label.
        out: new folder.
        leaders: whom the instrument looks at, the strongest first; features of one that is absent
            from `others` are 0.
        others: clean TICKS of the same date by instrument, of those that `others.needed` names.
        market: has the depth rows or exogenous series that the set needs; None if it needs none.
        chunk_rows: rows in memory at a time.

    Raises:
        DataError: an unreadable file, a file of another instrument, rows that validation should
            have quarantined, or the store lacks what the set needs.
        MarketError: the store lacks an exogenous table.
        StorageError: the disk is full or the folder not writable.
    """
    rows, given = _counted(path)
    paths = {**(others or {}), day.symbol: path}
    book_S, notes = depth.EMPTY, tuple[str, ...]()
    if looks_at_depth(spec.chosen_set):
        book_S, notes = depth.read_depth(market, day)
    features = FeatureStream(
        spec,
        leaders_of(paths, leaders, spec, chunk_rows),
        book_S,
        read_series(market, spec.exogenous),
    )
    labels = LabelStream(spec, crossings_of(paths, day.symbol, spec, chunk_rows))
    segments = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            files = {
                name: stack.enter_context((out / f"{name}.npy").open("wb")) for name in COLUMNS
            }
            for name, (dtype, shape) in COLUMNS.items():
                _write_header(files[name], dtype, (rows, *shape))
            for columns in _chunks(day.symbol, path, features, labels, chunk_rows):
                for name, column in columns.items():
                    files[name].write(np.ascontiguousarray(column, COLUMNS[name][0]).data)
                if "segment" in columns:
                    segments = int(columns["segment"][-1]) + 1
    except OSError as error:
        raise storage_error(error, out) from error
    return ShardMeta(
        date=day.date,
        symbol=day.symbol,
        rows=rows,
        segments=segments,
        given_labels=given,
        notes=tuple(f"{day.symbol} {day.date}: {note}" for note in notes),
    )


def _counted(path: Path) -> tuple[int, int]:
    """Rows of a Parquet file, and those that have a label of the source's own."""
    rows = nulls = 0
    try:
        for batch in batches(path, LABEL_ROWS, ["label"]):
            rows += batch.num_rows
            nulls += batch.column("label").null_count
    except KeyError as error:
        raise unreadable(path, error) from error
    return rows, rows - nulls


def _write_header(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _chunks(
    symbol: str, path: Path, features: FeatureStream, labels: LabelStream, chunk_rows: int
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The columns, chunk by chunk; labels follow once they are known."""
    for ticks in read(path, chunk_rows):
        rows = features.update(ticks)
        if features.symbol != symbol:
            raise DataError(f"expected ticks of {symbol}, found {features.symbol}", where=str(path))
        bid, ask = (ticks.column(name).to_numpy() for name in ("bid_price", "ask_price"))
        own = ticks.column("label").fill_null(UNOBSERVED).to_numpy(zero_copy_only=False)
        yield {
            "features": rows.features_NF,
            "timestamp": rows.timestamp_N,
            "segment": rows.segment_N,
            "spread_bps": 2e4 * (ask - bid) / (ask + bid),
            "bid": bid,
            "ask": ask,
            "label": labels.update(rows.timestamp_N, bid, ask, rows.segment_N, own),
        }
    yield {"label": labels.finish()}
