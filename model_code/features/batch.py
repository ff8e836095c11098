"""Features of many rows at once: chunks of one instrument's ticks in, chunks of features out.

Shapes: N rows, F features (16).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.errors import DataError
from model_code.features import kernel
from model_code.settings import FEATURE_COUNT, FeatureSpec

CHUNK_ROWS = 1 << 17


@dataclass(frozen=True)
class FeatureRows:
    """Features of consecutive rows of one instrument.

    Attributes:
        features_NF: float32, columns as in `definition.FEATURES`.
        timestamp_N: int64, ns UTC.
        segment_N: int32, non-decreasing; a window may only span rows of one segment.
    """

    features_NF: npt.NDArray[np.float32]
    timestamp_N: npt.NDArray[np.int64]
    segment_N: npt.NDArray[np.int32]


class FeatureStream:
    """One instrument's features, chunk by chunk, with the state carried between chunks.

    The features are bit-identical for any division of the rows into chunks.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._reset_gap_ns = reset_gap_ns(spec)
        self._state_1 = kernel.new_state()
        self._done = 0
        self.symbol: str | None = None

    def update(self, batch: pa.RecordBatch) -> FeatureRows:
        """Features of the next rows (schema `TICKS`).

        Raises:
            DataError: another instrument, or a row that validation should have quarantined.
        """
        found = batch.column("symbol").unique().to_pylist()
        if self.symbol is None and found:
            self.symbol = found[0]
        if found not in ([], [self.symbol]):
            raise DataError(
                f"features are computed one instrument at a time, found {self.symbol} and {found}",
                where=f"rows {self._done} to {self._done + batch.num_rows}",
                remedy="pass each instrument's ticks separately",
            )
        ticks_N = tick_records(batch)
        features_NF = np.empty((len(ticks_N), FEATURE_COUNT), np.float32)
        segment_N = np.empty(len(ticks_N), np.int32)
        taken = kernel.run(self._state_1, ticks_N, self._reset_gap_ns, features_NF, segment_N)
        if taken < len(ticks_N):
            raise invalid_tick(ticks_N[taken], f"{self.symbol}, row {self._done + taken}")
        self._done += taken
        return FeatureRows(features_NF, ticks_N["timestamp"].copy(), segment_N)


def compute(ticks: pa.Table, spec: FeatureSpec) -> FeatureRows:
    """Features of all of `ticks` (schema `TICKS`, one instrument, any number of rows).

    Raises:
        DataError: more than one instrument, or a row that validation should have quarantined.
    """
    stream = FeatureStream(spec)
    chunks = [stream.update(batch) for batch in ticks.to_batches(max_chunksize=CHUNK_ROWS)]
    return FeatureRows(
        np.concatenate(
            [np.empty((0, FEATURE_COUNT), np.float32), *(c.features_NF for c in chunks)]
        ),
        np.concatenate([np.empty(0, np.int64), *(c.timestamp_N for c in chunks)]),
        np.concatenate([np.empty(0, np.int32), *(c.segment_N for c in chunks)]),
    )


def tick_records(batch: pa.RecordBatch) -> npt.NDArray[np.void]:
    """The columns the kernel reads, as records of dtype `kernel.TICK`; null becomes NaN.

    Raises:
        DataError: a timestamp is null.
    """
    if batch.column("timestamp").null_count:
        raise DataError("timestamp is null", remedy="run validation on this day first")
    ticks_N = np.empty(batch.num_rows, kernel.TICK)
    for name in kernel.TICK.names or ():
        column = batch.column(name)
        if name == "timestamp":
            column = column.view(pa.int64())
        ticks_N[name] = column.to_numpy(zero_copy_only=False)
    return ticks_N


def reset_gap_ns(spec: FeatureSpec) -> int:
    """`spec.reset_gap_s` in the kernel's unit."""
    return round(spec.reset_gap_s * 1e9)


def invalid_tick(tick: np.void, where: str) -> DataError:
    """Return the error for a row that the kernel refuses."""
    values = ", ".join(f"{name}={tick[name]}" for name in kernel.TICK.names or ())
    return DataError(
        "validation should have quarantined this row: prices must be "
        "0 < bid < ask, sizes positive or missing, volumes not negative, and the clock must "
        f"not go back; found {values}",
        where=where,
        remedy="run validation on this day first",
    )
