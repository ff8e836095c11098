"""One table of features and labels over many instrument-days, built by streaming Parquet.

A folder of plain `.npy` columns, opened as memory maps, and `meta.json`. Memory while building is
bounded by a chunk of rows and one label horizon, not by a file.

Shapes: N rows of all instrument-days one after the other, F features (16).
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from model_code.errors import DataError
from model_code.features import batch, labels
from model_code.features.definition import FEATURES_VERSION
from model_code.market.schema import InstrumentDay
from model_code.settings import FEATURE_COUNT, FeatureSpec

_COLUMNS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "features": (np.float32, (FEATURE_COUNT,)),
    "timestamp": (np.int64, ()),
    "label": (np.int8, ()),
    "segment": (np.int32, ()),
    "symbol": (np.int16, ()),
    "spread_bps": (np.float32, ()),
}


class TableDay(BaseModel):
    """Which rows of the table are one instrument's session: `first .. first + rows - 1`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    symbol: str
    first: int
    rows: int


class TableMeta(BaseModel):
    """What the table was built from."""

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
        segment_N: int32, never falling over the whole table; windows stay within one.
        symbol_N: int16, index into `meta.symbols`.
        spread_bps_N: float32, spread over mid.
        meta: what it was built from.
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
        """Open a folder that `build` wrote.

        Raises:
            DataError: a file is missing or unreadable.
        """
        try:
            columns = {
                f"{name}_{'NF' if shape else 'N'}": np.load(path / f"{name}.npy", mmap_mode="r")
                for name, (_, shape) in _COLUMNS.items()
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
    chunk_rows: int = batch.CHUNK_ROWS,
) -> TableMeta:
    """Write the table of `parquet_paths` (clean TICKS, one file each) into the fresh folder `out`.

    Days lie in order of (date, symbol). The source's own label is used where it is not null.

    Raises:
        DataError: no rows at all, an unreadable file, one that is not the day it is said to be,
            or rows validation should have quarantined.
        StorageError: the disk is full or the folder not writable.
    """
    inputs = sorted(parquet_paths, key=lambda entry: (entry[0].date, entry[0].symbol))
    days, first = [], 0
    for day, path in inputs:
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
                name: stack.enter_context((out / f"{name}.npy").open("wb")) for name in _COLUMNS
            }
            for name, (dtype, shape) in _COLUMNS.items():
                _write_header(files[name], dtype, (first, *shape))
            segments = 0
            for day, (_, path) in zip(days, inputs, strict=True):
                symbol = meta.symbols.index(day.symbol)
                for columns in _columns(day, path, spec, symbol, segments, chunk_rows):
                    for name, column in columns.items():
                        files[name].write(np.ascontiguousarray(column, _COLUMNS[name][0]).data)
                    if "segment" in columns:
                        segments_end = int(columns["segment"][-1]) + 1
                segments = segments_end if day.rows else segments
        (out / "meta.json").write_text(meta.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise storage_error(error, out) from error
    return meta
