"""Features of many rows at once: chunks of one instrument's ticks in, chunks of features out.

Shapes: N rows, F features (16), K columns before the set's are chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.errors import DataError
from model_code.features import kernel, pairs
from model_code.features.definition import (
    DEPTH_AT,
    EXOGENOUS_AT,
    OWN,
    SEEN_AT,
    columns,
    looks_at_depth,
)
from model_code.features.supplements import depth, exogenous
from model_code.settings import FEATURE_COUNT, FeatureSpec

CHUNK_ROWS = 1 << 14  # a chunk's arrays stay in a core's cache


class Leader(Protocol):
    """Another instrument that is looked at, read along with the receiver's rows."""

    def look_all(
        self,
        own_N: npt.NDArray[np.void],
        basis_1: npt.NDArray[np.float64],
        reset_gap_ns: int,
        seen_NP: npt.NDArray[np.float32],
    ) -> None:
        """Write what the receiver's next rows see, as `pairs.look_all`."""
        ...


@dataclass(frozen=True)
class FeatureRows:
    """Features of consecutive rows of one instrument.

    Attributes:
        features_NF: float32, columns as in `definition.FEATURE_SETS`.
        timestamp_N: int64, ns UTC.
        segment_N: int32, non-decreasing; a window may only span rows of one segment.
        states_N: the kernel's state after each row: what other instruments may see.
    """

    features_NF: npt.NDArray[np.float32]
    timestamp_N: npt.NDArray[np.int64]
    segment_N: npt.NDArray[np.int32]
    states_N: npt.NDArray[np.void]


class FeatureStream:
    """One instrument's features, chunk by chunk, with the state carried between chunks.

    The features are bit-identical for any division of the rows into chunks.

    Args:
        spec: names the feature set.
        others: the instruments it looks at, the first leader first: states of whole days, or
            `Leader`s; fewer than the set names, or none, leaves their features 0.
        book_S: summaries of its depth rows of the whole day (`depth.summaries`).
        series: rows of the exogenous series that the set names (`exogenous.read_series`).
    """

    def __init__(
        self,
        spec: FeatureSpec,
        others: Sequence[npt.NDArray[np.void] | Leader] = (),
        book_S: npt.NDArray[np.void] = depth.EMPTY,
        series: Sequence[npt.NDArray[np.void]] = (),
    ) -> None:
        self._reset_gap_ns = reset_gap_ns(spec)
        self._columns_F = columns(spec.chosen_set)
        self._others = [(other, pairs.new_pair()) for other in others]
        self._book_S = book_S if looks_at_depth(spec.chosen_set) else None
        self._series = series[: len(spec.exogenous)]
        seen = SEEN_AT + len(self._others) * pairs.WIDTH
        width = max(seen, int(self._columns_F.max()) + 1)
        self._all_NK = np.zeros((0, width), np.float32)  # reused: what is not seen stays 0
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
        own_NK = np.empty((len(ticks_N), len(OWN)), np.float32)
        segment_N = np.empty(len(ticks_N), np.int32)
        states_N = np.empty(len(ticks_N), kernel.STATE)
        taken = kernel.run(self._state_1, ticks_N, self._reset_gap_ns, own_NK, segment_N, states_N)
        if taken < len(ticks_N):
            raise invalid_tick(ticks_N[taken], f"{self.symbol}, row {self._done + taken}")
        self._done += taken
        return FeatureRows(
            self._chosen(own_NK, states_N), ticks_N["timestamp"].copy(), segment_N, states_N
        )

    def _chosen(
        self, own_NK: npt.NDArray[np.float32], states_N: npt.NDArray[np.void]
    ) -> npt.NDArray[np.float32]:
        """The set's columns of the instrument's own and of what else it sees."""
        if len(own_NK) > len(self._all_NK):
            self._all_NK = np.zeros((len(own_NK), self._all_NK.shape[1]), np.float32)
        all_NK = self._all_NK[: len(own_NK)]
        all_NK[:, : len(OWN)] = own_NK
        for place, (other, basis_1) in enumerate(self._others):
            first = SEEN_AT + place * pairs.WIDTH
            seen_NP = np.empty((len(own_NK), pairs.WIDTH), np.float32)
            if isinstance(other, np.ndarray):
                pairs.look_all(states_N, basis_1, other, len(other), self._reset_gap_ns, seen_NP)
            else:
                other.look_all(states_N, basis_1, self._reset_gap_ns, seen_NP)
            all_NK[:, first : first + pairs.WIDTH] = seen_NP
        if self._book_S is not None:
            seen_ND = all_NK[:, DEPTH_AT : DEPTH_AT + depth.WIDTH]
            depth.look_all(states_N, self._book_S, len(self._book_S), self._reset_gap_ns, seen_ND)
        for place, rows_M in enumerate(self._series):
            first = EXOGENOUS_AT + place * exogenous.WIDTH
            seen_N2 = all_NK[:, first : first + exogenous.WIDTH]
            exogenous.look_all(states_N["timestamp"], rows_M, seen_N2)
        return all_NK.take(self._columns_F, axis=1)


def compute(
    ticks: pa.Table,
    spec: FeatureSpec,
    others: Sequence[npt.NDArray[np.void]] = (),
    book_S: npt.NDArray[np.void] = depth.EMPTY,
    series: Sequence[npt.NDArray[np.void]] = (),
) -> FeatureRows:
    """Features of all of `ticks` (schema `TICKS`, one instrument, any number of rows).

    Args:
        ticks: of one instrument.
        spec: names the feature set.
        others, book_S, series: as for `FeatureStream`.

    Raises:
        DataError: more than one instrument, or a row that validation should have quarantined.
    """
    stream = FeatureStream(spec, others, book_S, series)
    chunks = [stream.update(batch) for batch in ticks.to_batches(max_chunksize=CHUNK_ROWS)]
    return FeatureRows(
        np.concatenate(
            [np.empty((0, FEATURE_COUNT), np.float32), *(c.features_NF for c in chunks)]
        ),
        np.concatenate([np.empty(0, np.int64), *(c.timestamp_N for c in chunks)]),
        np.concatenate([np.empty(0, np.int32), *(c.segment_N for c in chunks)]),
        np.concatenate([np.empty(0, kernel.STATE), *(c.states_N for c in chunks)]),
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
