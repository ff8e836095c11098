"""Series from outside the instruments as features: value and age of the newest earlier row.

Batch and incremental callers run the same machine code, so that they agree bit for bit. A row sees
only rows of a series that arrived strictly earlier, however old. Without any, the value is 0 and
the age `NEVER`.

Shapes: N rows of quotes, M rows of a series.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.errors import DataError

if TYPE_CHECKING:
    from model_code.market.supplements import SupplementStore

# numba's cache does not notice changes in another file: nothing here calls functions of `kernel`
LIMIT = 32.0  # as in `kernel`
NEVER = LIMIT  # log us; more than a million years
WIDTH = 2  # of one series: value, age

ROW = np.dtype([("timestamp", np.int64), ("value", np.float64)])
"""One row of a series; the value is finite."""


@compiled
def look(now, rows_M, count, channel_2):  # type: ignore[no-untyped-def]
    """Write value and age of the newest of the first `count` rows that is earlier than `now`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if rows_M[middle]["timestamp"] < now:
            low = middle + 1
        else:
            high = middle
    channel_2[0], channel_2[1] = 0.0, NEVER
    if low > 0:
        value = rows_M[low - 1]["value"]
        slog = math.copysign(math.log1p(abs(value)), value)
        channel_2[0] = min(max(slog, -LIMIT), LIMIT)
        channel_2[1] = min(math.log1p((now - rows_M[low - 1]["timestamp"]) / 1000.0), LIMIT)


@compiled
def look_all(now_N, rows_M, channel_N2):  # type: ignore[no-untyped-def]
    """`look` for consecutive rows; every row of the series may be seen."""
    for i in range(now_N.shape[0]):
        look(now_N[i], rows_M, rows_M.shape[0], channel_N2[i])


def read_series(
    market: "SupplementStore | None", names: tuple[str, ...]
) -> tuple[npt.NDArray[np.void], ...]:
    """The named series (M,) of a store, dtype `ROW`.

    Raises:
        MarketError: the store has no such table.
        DataError: no store, no such column, or a value that is not finite.
    """
    if names and market is None:
        raise DataError(
            f"the feature set exogenous needs a store with {', '.join(names)}",
            remedy="pass the market store, or choose another set",
        )
    found = []
    for series in (market.exogenous(name) for name in names if market):
        rows_M = np.empty(len(series.timestamp_M), ROW)
        rows_M["timestamp"], rows_M["value"] = series.timestamp_M, series.value_M
        found.append(rows_M)
    return tuple(found)
