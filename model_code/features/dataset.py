"""One table of features and labels over many instrument-days, built by streaming Parquet.

A folder of plain `.npy` columns, opened as memory maps, and `meta.json`. Building needs memory for
one chunk of rows and one label horizon, not for a whole file; of instruments that others look at,
also for the states of one date (`shared.SharedDays`).

Shapes: N rows of all instrument-days, concatenated, F features (16).
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import storage_error
from model_code.errors import DataError
from model_code.features.batch import CHUNK_ROWS, FeatureStream
from model_code.features.definition import FEATURES_VERSION
from model_code.features.labels import UNOBSERVED, LabelStream
from model_code.features.shared import SharedDays, count, given_labels, read
from model_code.market.schema import InstrumentDay
from model_code.market.supplements import SupplementStore
from model_code.settings import FEATURE_COUNT, FeatureSpec, Leaders

# name: (type, shape of one row)
COLUMNS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "features": (np.float32, (FEATURE_COUNT,)),
    "timestamp": (np.int64, ()),
    "label": (np.int8, ()),
    "segment": (np.int32, ()),
    "symbol": (np.int16, ()),
    "spread_bps": (np.float32, ()),
    "bid": (np.float64, ()),
    "ask": (np.float64, ()),
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
    leaders: Leaders = {}
    features_version: str
    simulated: bool
    given_labels: int = 0  # rows that keep the source's own label
    notes: tuple[str, ...] = ()  # what was left out of depth rows

    @property
    def mirrored_spec(self) -> FeatureSpec | None:
        """What a window's mirror image needs; None if labels of the source may have a direction."""
        return None if self.given_labels else self.spec


@dataclass(frozen=True)
class FeatureTable:
    """The built table, columns memory-mapped.

    Attributes:
        features_NF: float32, columns as in `definition.FEATURE_SETS`, not standardised.
        timestamp_N: int64, ns UTC.
        label_N: int8, 1, 0 or -1 (not observed).
        segment_N: int32, non-decreasing over the whole table; a window stays within one segment.
        symbol_N: int16, index into `meta.symbols`.
        spread_bps_N: float32, spread over mid.
        bid_N: float64, best bid.
        ask_N: float64, best ask.
        meta: inputs of the table.
    """

    features_NF: npt.NDArray[np.float32]
    timestamp_N: npt.NDArray[np.int64]
    label_N: npt.NDArray[np.int8]
    segment_N: npt.NDArray[np.int32]
    symbol_N: npt.NDArray[np.int16]
    spread_bps_N: npt.NDArray[np.float32]
    bid_N: npt.NDArray[np.float64]
    ask_N: npt.NDArray[np.float64]
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
    leaders: Mapping[str, tuple[str, ...]] | None = None,
    market: SupplementStore | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> TableMeta:
    """Write the table of `parquet_paths` (clean TICKS, one file each) into the new folder `out`.

    Days are sorted by (date, symbol). The source's own label is used where it is not null.

    Args:
        parquet_paths: one file for each instrument-day.
        spec: feature set and label.
        out: new folder.
        simulated: the ticks are simulated.
        leaders: whom each instrument looks at, the strongest first; the features of one without
            leaders, or whose leader is absent that day, are 0.
        market: has the depth rows or exogenous series that the set needs; None if it needs none.
        chunk_rows: rows in memory at a time.

    Raises:
        DataError: no rows, an unreadable file, a file of another instrument, rows that validation
            should have quarantined, or the store lacks what the set needs.
        MarketError: the store lacks an exogenous table.
        StorageError: the disk is full or the folder not writable.
    """
    inputs = sorted(parquet_paths, key=lambda entry: (entry[0].date, entry[0].symbol))
    days: list[TableDay] = []
    first = 0
    for day, path in inputs:
        if days and (days[-1].date, days[-1].symbol) == (day.date, day.symbol):
            raise DataError(f"{day.symbol} on {day.date} is given twice", where=str(path))
        rows = count(path)
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
        leaders=dict(leaders or {}),
        features_version=FEATURES_VERSION,
        simulated=simulated,
        given_labels=sum(given_labels(path) for _, path in inputs),
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
            shared = SharedDays(inputs, spec, meta.leaders, chunk_rows, market)
            for table_day, (_, path) in zip(days, inputs, strict=True):
                for columns in _day_columns(table_day, path, meta, shared, segments, chunk_rows):
                    for name, column in columns.items():
                        files[name].write(np.ascontiguousarray(column, COLUMNS[name][0]).data)
                    if "segment" in columns:
                        segments = int(columns["segment"][-1]) + 1
        meta = meta.model_copy(update={"notes": tuple(shared.notes)})
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
    meta: TableMeta,
    shared: SharedDays,
    first_segment: int,
    chunk_rows: int,
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The columns of one instrument-day, chunk by chunk; labels follow once they are known."""
    symbol = meta.symbols.index(day.symbol)
    features = FeatureStream(
        meta.spec,
        shared.others(day.date, day.symbol),
        shared.book(day.date, day.symbol),
        shared.series,
    )
    labels = LabelStream(meta.spec, shared.crossings(day.date, day.symbol))
    for ticks in read(path, chunk_rows):
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
            "bid": bid,
            "ask": ask,
            "label": labels.update(rows.timestamp_N, bid, ask, rows.segment_N, own),
        }
    yield {"label": labels.finish()}
