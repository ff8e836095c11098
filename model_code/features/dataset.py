"""One table of features and labels over many instrument-days, built by streaming Parquet.

A folder of plain `.npy` columns, opened as memory maps, and `meta.json`. Building needs memory for
one chunk of rows and one label horizon, not for a whole file.

Shapes: N rows of all instrument-days, concatenated, F features (16).
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import storage_error
from model_code.errors import DataError
from model_code.features.batch import CHUNK_ROWS, FeatureStream
from model_code.features.definition import FEATURES_VERSION
from model_code.features.labels import UNOBSERVED, LabelStream
from model_code.market.schema import InstrumentDay, conform
from model_code.settings import FEATURE_COUNT, FeatureSpec

# name: (type, shape of one row)
COLUMNS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "features": (np.float32, (FEATURE_COUNT,)),
    "timestamp": (np.int64, ()),
    "label": (np.int8, ()),
    "segment": (np.int32, ()),
    "symbol": (np.int16, ()),
    "spread_bps": (np.float32, ()),
}


class TableDay(BaseModel):
    """One instrument's session: rows `first .. first + rows - 1` of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    symbol: str
    first: int
    rows: int


class TableMeta(BaseModel):
    """Inputs of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: tuple[str, ...]
    dates: tuple[dt.date, ...]
    days: tuple[TableDay, ...]
    spec: FeatureSpec
    features_version: str
    simulated: bool


@dataclass(frozen=True)
class FeatureTable:
    """The built table, columns memory-mapped.

    Attributes:
        features_NF: float32, columns as in `definition.FEATURES`, not standardised.
        timestamp_N: int64, ns UTC.
        label_N: int8, 1, 0 or -1 (not observed).
        segment_N: int32, non-decreasing over the whole table; a window stays within one segment.
        symbol_N: int16, index into `meta.symbols`.
        spread_bps_N: float32, spread over mid.
        meta: inputs of the table.
    """

    features_NF: npt.NDArray[np.float32]
    timestamp_N: npt.NDArray[np.int64]
    label_N: npt.NDArray[np.int8]
    segment_N: npt.NDArray[np.int32]
    symbol_N: npt.NDArray[np.int16]
    spread_bps_N: npt.NDArray[np.float32]
    meta: TableMeta

    @classmethod
    def load(cls, path: Path) -> "FeatureTable":
        """Open a folder written by `build`.

        Raises:
            DataError: a file is missing or unreadable.
        """
        try:
            columns = {
                f"{name}_{'NF' if shape else 'N'}": np.load(path / f"{name}.npy", mmap_mode="r")
                for name, (_, shape) in COLUMNS.items()
            }
            meta = TableMeta.model_validate_json((path / "meta.json").read_text())
        except (OSError, ValueError) as error:
            raise DataError(
                f"not a feature table: {error}",
                where=str(path),
                remedy="delete it and run the stage again: tickline nightly --refresh",
            ) from error
        return cls(**columns, meta=meta)


def build(
    parquet_paths: Sequence[tuple[InstrumentDay, Path]],
    spec: FeatureSpec,
    out: Path,
    *,
    simulated: bool,
    chunk_rows: int = CHUNK_ROWS,
) -> TableMeta:
    """Write the table of `parquet_paths` (clean TICKS, one file each) into the new folder `out`.

    Days are sorted by (date, symbol). The source's own label is used where it is not null.

    Raises:
        DataError: no rows, an unreadable file, a file of another instrument, or rows that
            validation should have quarantined.
        StorageError: the disk is full or the folder not writable.
    """
    inputs = sorted(parquet_paths, key=lambda entry: (entry[0].date, entry[0].symbol))
    days: list[TableDay] = []
    first = 0
    for day, path in inputs:
        if days and (days[-1].date, days[-1].symbol) == (day.date, day.symbol):
            raise DataError(f"{day.symbol} on {day.date} is given twice", where=str(path))
        rows = _count(path)
        days.append(TableDay(date=day.date, symbol=day.symbol, first=first, rows=rows))
        first += rows
    if first == 0:
        raise DataError(
            f"no rows to compute features from ({len(inputs)} files)",
            where=", ".join(str(path) for _, path in inputs[:3]),
            remedy="check dates and instruments with: tickline data describe",
        )
    meta = TableMeta(
        symbols=tuple(sorted({day.symbol for day in days})),
        dates=tuple(sorted({day.date for day in days})),
        days=tuple(days),
        spec=spec,
        features_version=FEATURES_VERSION,
        simulated=simulated,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            files = {
                name: stack.enter_context((out / f"{name}.npy").open("wb")) for name in COLUMNS
            }
            for name, (dtype, shape) in COLUMNS.items():
                _write_header(files[name], dtype, (first, *shape))
            segments = 0
            for table_day, (_, path) in zip(days, inputs, strict=True):
                symbol = meta.symbols.index(table_day.symbol)
                for columns in _day_columns(table_day, path, spec, symbol, segments, chunk_rows):
                    for name, column in columns.items():
                        files[name].write(np.ascontiguousarray(column, COLUMNS[name][0]).data)
                    if "segment" in columns:
                        segments = int(columns["segment"][-1]) + 1
        (out / "meta.json").write_text(meta.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise storage_error(error, out) from error
    return meta


def _write_header(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _day_columns(
    day: TableDay,
    path: Path,
    spec: FeatureSpec,
    symbol: int,
    first_segment: int,
    chunk_rows: int,
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The columns of one instrument-day, chunk by chunk; labels follow once they are known."""
    features, labels = FeatureStream(spec), LabelStream(spec)
    for ticks in _read(path, chunk_rows):
        rows = features.update(ticks)
        if features.symbol != day.symbol:
            raise DataError(
                f"expected ticks of {day.symbol}, found {features.symbol}", where=str(path)
            )
        bid, ask = (ticks.column(name).to_numpy() for name in ("bid_price", "ask_price"))
        own = ticks.column("label").fill_null(UNOBSERVED).to_numpy(zero_copy_only=False)
        yield {
            "features": rows.features_NF,
            "timestamp": rows.timestamp_N,
            "segment": rows.segment_N + first_segment,
            "symbol": np.full(len(bid), symbol),
            "spread_bps": 2e4 * (ask - bid) / (ask + bid),
            "label": labels.update(rows.timestamp_N, bid, ask, rows.segment_N, own),
        }
    yield {"label": labels.finish()}


def _count(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _read(path: Path, chunk_rows: int) -> Iterator[pa.RecordBatch]:
    """Non-empty batches of `path`, with exactly the columns of TICKS."""
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
