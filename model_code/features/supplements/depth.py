"""What an instrument sees of its Level-2 book: a compiled step from depth rows to `WIDTH` numbers.

Batch and incremental callers run the same machine code, so that they agree bit for bit. A row sees
only depth rows that arrived strictly earlier. Everything is 0 where there is none of the row's UTC
date, or the newest is older than the reset gap.

Shapes: N rows of quotes, S depth rows, L levels (10), D channels (`WIDTH`).
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.errors import DataError

if TYPE_CHECKING:
    from model_code.market.level2.rows import DepthRows
    from model_code.market.schema import InstrumentDay
    from model_code.market.supplements import SupplementStore

# numba's cache does not notice changes in another file: nothing here calls functions of `kernel`
DAY_NS = 86_400_000_000_000
LIMIT = 32.0  # as in `kernel`
CHANGE_NS = 500_000_000

STATE = np.dtype(
    [
        ("timestamp", np.int64),
        ("imbalance_2", np.float64),
        ("imbalance_5", np.float64),
        ("imbalance_10", np.float64),
        ("weighted", np.float64),  # imbalance with weights 1, 1/2, ... 1/10
        ("bid_size", np.float64),  # of ten levels
        ("ask_size", np.float64),
        ("bid_width", np.float64),  # from the best to the last level, in price
        ("ask_width", np.float64),
        ("width", np.float64),  # from the last bid to the last ask, in price
    ]
)
"""What is remembered of one depth row."""

CHANNELS = (
    "imbalance_2",
    "imbalance_5",
    "imbalance_10",
    "width",
    "slope",
    "weighted_imbalance",
    "weighted_change_500ms",
    "age",
)
"""Order of the step's numbers; formulas in `definition`."""
WIDTH = len(CHANNELS)
EMPTY = np.empty(0, STATE)
"""The depth rows of an instrument without any."""


@compiled
def _slog(x):  # type: ignore[no-untyped-def]
    return math.copysign(math.log1p(abs(x)), x)


@compiled
def _rows_before(rows_S, count, timestamp):  # type: ignore[no-untyped-def]
    """How many of the first `count` rows are strictly earlier than `timestamp`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if rows_S[middle]["timestamp"] < timestamp:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def summarise(timestamp, bid_L, bid_size_L, ask_L, ask_size_L, row):  # type: ignore[no-untyped-def]
    """Write the summary of one depth row into `row`, dtype `STATE`; a missing level is NaN."""
    bids = asks = weighted = total = 0.0
    last_bid, last_ask = bid_L[0], ask_L[0]
    row["timestamp"] = timestamp
    for level in range(bid_L.shape[0]):
        weight = 1.0 / (level + 1.0)
        if not math.isnan(bid_L[level]):
            last_bid = bid_L[level]
            bids += bid_size_L[level]
            weighted += weight * bid_size_L[level]
            total += weight * bid_size_L[level]
        if not math.isnan(ask_L[level]):
            last_ask = ask_L[level]
            asks += ask_size_L[level]
            weighted -= weight * ask_size_L[level]
            total += weight * ask_size_L[level]
        if level == 1:
            row["imbalance_2"] = (bids - asks) / (bids + asks)
        if level == 4:
            row["imbalance_5"] = (bids - asks) / (bids + asks)
    row["imbalance_10"] = (bids - asks) / (bids + asks)
    row["weighted"] = weighted / total
    row["bid_size"], row["ask_size"] = bids, asks
    row["bid_width"], row["ask_width"] = bid_L[0] - last_bid, last_ask - ask_L[0]
    row["width"] = last_ask - last_bid


@compiled
def summarise_all(timestamp_S, bid_SL, bid_size_SL, ask_SL, ask_size_SL, rows_S):  # type: ignore[no-untyped-def]
    """`summarise` for consecutive depth rows."""
    for i in range(timestamp_S.shape[0]):
        summarise(timestamp_S[i], bid_SL[i], bid_size_SL[i], ask_SL[i], ask_size_SL[i], rows_S[i])


@compiled
def look(own, rows_S, count, reset_gap_ns, channel_D):  # type: ignore[no-untyped-def]
    """Write what the row behind `own` sees of the book.

    Args:
        own: the kernel's state after the row; its stamp and tick are used.
        rows_S: summaries in time order; at least those of the last `CHANGE_NS` and one before them.
        count: rows of `rows_S` that exist; later ones are ignored.
        reset_gap_ns: an older row is not seen.
        channel_D: float32, written.
    """
    channel_D[:] = 0.0
    now = own["timestamp"]
    newest = _rows_before(rows_S, count, now) - 1
    midnight = now // DAY_NS * DAY_NS
    if (
        newest < 0
        or now - rows_S[newest]["timestamp"] > reset_gap_ns
        or rows_S[newest]["timestamp"] < midnight
    ):
        return
    row, tick = rows_S[newest], own["tick"]
    channel_D[0] = row["imbalance_2"]
    channel_D[1] = row["imbalance_5"]
    channel_D[2] = row["imbalance_10"]
    channel_D[3] = _slog(row["width"] / tick)
    bid_density = row["bid_size"] / (row["bid_width"] + tick)
    channel_D[4] = math.log(bid_density / (row["ask_size"] / (row["ask_width"] + tick)))
    channel_D[5] = row["weighted"]
    then = _rows_before(rows_S, newest + 1, now - CHANGE_NS) - 1
    if (
        then >= 0
        and rows_S[then]["timestamp"] >= midnight
        and now - CHANGE_NS - rows_S[then]["timestamp"] <= reset_gap_ns
    ):
        channel_D[6] = row["weighted"] - rows_S[then]["weighted"]
    channel_D[7] = math.log1p((now - row["timestamp"]) / 1000.0)
    for k in range(channel_D.shape[0]):
        channel_D[k] = min(max(channel_D[k], -LIMIT), LIMIT)


@compiled
def look_all(own_N, rows_S, count, reset_gap_ns, channel_ND):  # type: ignore[no-untyped-def]
    """`look` for consecutive rows; `count` is all that may ever be seen."""
    for i in range(own_N.shape[0]):
        look(own_N[i], rows_S, count, reset_gap_ns, channel_ND[i])


def summaries(rows: "DepthRows") -> npt.NDArray[np.void]:
    """The summaries (S,) of an instrument-day's depth rows, dtype `STATE`."""
    rows_S = np.empty(len(rows.timestamp_N), STATE)
    summarise_all(rows.timestamp_N, *rows.levels, rows_S)
    return rows_S


def read_depth(
    market: "SupplementStore | None", day: "InstrumentDay"
) -> tuple[npt.NDArray[np.void], tuple[str, ...]]:
    """The summaries (S,) of a store's depth rows, and notes on what was left out.

    Raises:
        DataError: the store has no depth rows of that instrument-day.
    """
    rows = market.depth(day) if market else None
    if rows is None:
        raise DataError(
            f"the feature set depth needs depth rows, and the store has none of {day.symbol} on "
            f"{day.date}",
            where=market.uri if market else "no store given",
            remedy=f"add depth/symbol={day.symbol}/date={day.date}.parquet, leave the instrument "
            "out with --instrument, or choose another set: --set features.feature_set=paired",
        )
    return summaries(rows), rows.notes
