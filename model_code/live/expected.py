"""What the batch pipeline decides on the ticks of a replay, window by window.

Shapes: N rows of an instrument-day, T = 64 steps, F = 16 features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_code.errors import DataError
from model_code.features.batch import FeatureRows, compute
from model_code.features.pairs import EMPTY
from model_code.features.served import SeenFeatures
from model_code.features.windows import valid_ends
from model_code.live.messages import Decision
from model_code.live.recorded import PlayedDay
from model_code.settings import FeatureSpec


@dataclass
class Expected:
    """What the batch pipeline decides on one instrument-day, asked for in order.

    Attributes:
        rows: batch features of the validated ticks.
        ends: rows that end a window.
        at: windows compared so far.
    """

    rows: FeatureRows
    ends: NDArray[np.int64]
    at: int = 0


def expected(
    days: Sequence[PlayedDay], seen: SeenFeatures, spec: FeatureSpec
) -> dict[str, Expected]:
    """The batch pipeline's features and windows of the instruments of one date."""
    ticks = {day.day.symbol: day.ticks for day in days}
    alone = spec.model_copy(update={"feature_set": "solo"})
    led = {name for symbol in ticks for name in seen.leaders.get(symbol, ()) if name in ticks}
    states = {name: compute(ticks[name], alone).states_N for name in led}
    found = {}
    for symbol, table in ticks.items():
        others = [states.get(name, EMPTY) for name in seen.leaders.get(symbol, ())]
        rows = compute(table, spec, others)
        no_label_N = np.zeros(len(rows.segment_N), np.int8)
        found[symbol] = Expected(rows, valid_ends(rows.segment_N, no_label_N))
    return found


def next_end(one: Decision, wanted: Mapping[str, Expected]) -> int:
    """The batch row that the next window of an instrument ends on.

    Raises:
        DataError: the live decision is of another row.
    """
    found = wanted[one.symbol]
    if found.at == len(found.ends):
        raise difference(one.symbol, found, -1, "the batch makes no decision after its last row")
    end = int(found.ends[found.at])
    if found.rows.timestamp_N[end] != one.local_ns:
        stamp = np.datetime64(one.local_ns, "ns")
        raise difference(one.symbol, found, end, f"the live path decided at {stamp} instead")
    found.at += 1
    return end


def differing_columns(live_TF: NDArray[np.float32], batch_TF: NDArray[np.float32]) -> str:
    """The feature columns in which two windows differ, as text."""
    differing = np.flatnonzero((live_TF != batch_TF).any(axis=0)).tolist()
    return ", ".join(map(str, differing)) or "none"


def difference(symbol: str, found: Expected, row: int, what: str) -> DataError:
    """The error that names the first row on which the two sides differ."""
    stamp = np.datetime64(int(found.rows.timestamp_N[row]), "ns")
    return DataError(
        f"the live path and the batch pipeline differ: {what}",
        where=f"{symbol}, validated row {row}, {stamp}",
        remedy="report it with this row: both must decide the same",
    )
