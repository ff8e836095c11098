"""Purged folds in blocks of time: for choices that must not see the test day.

The windows of all instruments together are cut at the same instants into contiguous blocks of equal
numbers of windows. Each block is validated once; the windows before and after it train. At both of
its boundaries the rules of `split` hold: windows before a boundary whose label horizon reaches it
are purged, windows after it whose 64 rows of look-back begin within the embargo are left out.
Training therefore uses no row and no label that reaches into the block (López de Prado 2018,
'Advances in Financial Machine Learning', ch. 7).

Shapes: B windows, given by the rows they end on.
"""

from dataclasses import dataclass

import numpy as np

from model_code.errors import DataError
from model_code.features.dataset import FeatureTable
from model_code.features.split import Ends
from model_code.features.windows import spread, valid_ends
from model_code.settings import SEQUENCE_LENGTH, SplitSpec


@dataclass(frozen=True)
class Fold:
    """One block and the windows around it.

    Attributes:
        train_ends: rows on which the training windows end, ascending.
        validation_ends: the same for the block's windows.
        start_ns: the block's first instant, ns UTC.
        stop_ns: the first instant after the block, ns UTC.
    """

    train_ends: Ends
    validation_ends: Ends
    start_ns: int
    stop_ns: int


def folds(table: FeatureTable, spec: SplitSpec, count: int) -> tuple[Fold, ...]:
    """Cut all windows of the table into `count` blocks; the table's `FeatureSpec` has the horizon.

    Args:
        table: of the training days only.
        spec: embargo, and the most windows of a fold to train and to validate on; more are thinned
            with an even stride.
        count: of blocks, at least 2.

    Raises:
        DataError: a fold's part is empty or has one class only.
    """
    ends = valid_ends(table.segment_N, table.label_N)
    if len(ends) < count:
        raise DataError(
            f"{len(ends)} windows with an observed label cannot be cut into {count} folds",
            remedy="add training days, or check for gaps with: tickline data describe",
        )
    horizon_ns = round(table.meta.spec.horizon_ms * 1e6)
    embargo_ns = round(spec.embargo_ms * 1e6)
    last_B = table.timestamp_N[ends]
    first_B = table.timestamp_N[ends - (SEQUENCE_LENGTH - 1)]

    cuts = [len(ends) * number // count for number in range(1, count)]
    inner = np.sort(last_B)[cuts].tolist()
    # outermost: neither purge nor embargo, since nothing lies beyond
    starts = [int(first_B.min()) - embargo_ns, *inner]
    stops = [*inner, int(last_B.max()) + horizon_ns + 1]
    found = []
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True), 1):
        train_B = (last_B + horizon_ns < start) | (first_B >= stop + embargo_ns)
        validation_B = (first_B >= start + embargo_ns) & (last_B + horizon_ns < stop)
        train = spread(ends[train_B], spec.train_windows)
        validation = spread(ends[validation_B], spec.validation_windows)
        for part, chosen in (("training", train), ("validation", validation)):
            labels = np.unique(table.label_N[chosen]).tolist()
            if labels != [0, 1]:
                raise DataError(
                    f"fold {number} of {count} has {len(chosen)} {part} windows with labels "
                    f"{labels}; it needs both 0 and 1",
                    remedy="use fewer folds, more training days, or another horizon_ms or cost_bps",
                )
        found.append(Fold(train, validation, start, stop))
    return tuple(found)
