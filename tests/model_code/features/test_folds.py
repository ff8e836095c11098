"""Purged folds: no training row or label reaches into a fold, by brute force."""

import datetime as dt

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.features.dataset import FeatureTable, TableMeta
from model_code.features.folds import Fold, folds
from model_code.features.windows import valid_ends
from model_code.settings import FeatureSpec, SplitSpec

MS = 1_000_000
HORIZON_MS = 400.0
SPEC = SplitSpec(embargo_ms=250.0, train_windows=10**6, validation_windows=10**6)


def table(seed: int = 0, rows: int = 900, label: int | None = None) -> FeatureTable:
    """Two instruments at irregular instants, a gap in each, some labels unobserved."""
    rng = np.random.default_rng(seed)
    stamps, segments = [], []
    for number, mean_ms in enumerate((40.0, 90.0)):
        steps = rng.exponential(mean_ms * MS, rows).astype(np.int64)
        steps[rows // 2] += 30_000 * MS
        stamps.append(10**18 + np.cumsum(steps))
        segments.append(2 * number + (np.arange(rows) >= rows // 2))
    label_N = rng.integers(-1, 2, 2 * rows).astype(np.int8)
    meta = TableMeta(
        symbols=("A", "B"),
        dates=(dt.date(2001, 9, 9),),
        days=(),
        spec=FeatureSpec(horizon_ms=HORIZON_MS),
        features_version="0",
        simulated=True,
    )
    return FeatureTable(
        features_NF=np.zeros((2 * rows, 16), np.float32),
        timestamp_N=np.concatenate(stamps),
        label_N=label_N if label is None else np.full(2 * rows, label, np.int8),
        segment_N=np.concatenate(segments).astype(np.int32),
        symbol_N=np.repeat(np.array([0, 1], np.int16), rows),
        spread_bps_N=np.zeros(2 * rows, np.float32),
        bid_N=np.ones(2 * rows),
        ask_N=np.ones(2 * rows),
        meta=meta,
    )


def used(source: FeatureTable, ends: NDArray[np.int64]) -> tuple[set[int], list[tuple[int, int]]]:
    """Rows of the windows, and the instants that each window and its label span."""
    rows = {row for end in ends for row in range(end - 63, end + 1)}
    time = source.timestamp_N
    spans = [(int(time[end - 63]), int(time[end]) + round(HORIZON_MS * MS)) for end in ends]
    return rows, spans


def in_block(source: FeatureTable, fold: Fold) -> set[int]:
    """Every row of any instrument inside the block."""
    time = np.asarray(source.timestamp_N)
    return set(np.flatnonzero((time >= fold.start_ns) & (time < fold.stop_ns)).tolist())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_no_training_row_or_label_overlaps_a_folds_rows(seed: int, count: int) -> None:
    source = table(seed)
    found = folds(source, SPEC, count)
    assert len(found) == count
    for fold in found:
        train_rows, train_spans = used(source, fold.train_ends)
        rows, spans = used(source, fold.validation_ends)
        assert not train_rows & in_block(source, fold)
        assert rows <= in_block(source, fold)
        assert not train_rows & rows
        for start, stop in train_spans:
            assert stop < fold.start_ns or start >= fold.stop_ns + 250 * MS
        for start, stop in spans:
            assert start >= fold.start_ns
            assert stop < fold.stop_ns
        # in pairs, without the block's boundaries: what a reader of the result can check
        for start, stop in train_spans[::25]:
            assert all(stop < other or start > end for other, end in spans[::25])


def test_only_what_a_boundary_forbids_is_left_out() -> None:
    source = table()
    found = folds(source, SPEC, 4)
    time, horizon = source.timestamp_N, round(HORIZON_MS * MS)
    for fold in found:
        expected_train, expected = [], []
        for end in valid_ends(source.segment_N, source.label_N):
            first, last = int(time[end - 63]), int(time[end]) + horizon
            if last < fold.start_ns or first >= fold.stop_ns + 250 * MS:
                expected_train.append(end)
            if first >= fold.start_ns + 250 * MS and last < fold.stop_ns:
                expected.append(end)
        assert fold.train_ends.tolist() == expected_train
        assert fold.validation_ends.tolist() == expected
    # contiguous, in order, from the first row to the last label
    assert [fold.start_ns for fold in found[1:]] == [fold.stop_ns for fold in found[:-1]]
    ends = valid_ends(source.segment_N, source.label_N)
    assert found[0].start_ns < time[ends - 63].min()
    assert found[-1].stop_ns > time[ends].max() + horizon
    # blocks of equal numbers of windows, whichever instrument they are of
    blocks = [
        int(((time[ends] >= fold.start_ns) & (time[ends] < fold.stop_ns)).sum()) for fold in found
    ]
    assert max(blocks) - min(blocks) <= 1
    kinds = [set(source.symbol_N[fold.train_ends].tolist()) for fold in found]
    assert {0, 1} in kinds


def test_parts_are_thinned_to_their_limits() -> None:
    spec = SPEC.model_copy(update={"train_windows": 50, "validation_windows": 20})
    for fold, whole in zip(folds(table(), spec, 3), folds(table(), SPEC, 3), strict=True):
        assert (len(fold.train_ends), len(fold.validation_ends)) == (50, 20)
        assert set(fold.train_ends) <= set(whole.train_ends)
        assert set(fold.validation_ends) <= set(whole.validation_ends)


def test_too_few_windows_and_one_class_are_refused() -> None:
    with pytest.raises(DataError, match=r"fold 1 of 3 has \d+ training windows with labels \[1\]"):
        folds(table(label=1), SPEC, 3)
    with pytest.raises(DataError, match="0 windows with an observed label"):
        folds(table(label=-1), SPEC, 2)
    long = SPEC.model_copy(update={"embargo_ms": 1e9})
    with pytest.raises(DataError, match=r"has 0 training windows with labels \[\]"):
        folds(table(), long, 2)
