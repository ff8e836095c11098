"""What one instrument sees of another: a compiled step from two states to `WIDTH` numbers.

Batch and incremental callers run the same machine code, so that they agree bit for bit. A row sees
only rows of the other instrument that arrived strictly earlier: with equal stamps nobody knows
which came first. Everything is 0 where the other instrument is absent, silent for longer than the
reset gap, or has not begun the receiver's UTC date.

Shapes: N rows of the other instrument, P channels (`WIDTH`).
"""

import math

import numpy as np

from model_code.compiled import compiled
from model_code.features.kernel import STATE

# numba's cache does not notice changes in another file: nothing here calls functions of `kernel`
DAY_NS = 86_400_000_000_000
BASIS_ALPHA = 2.0 / (512 + 1)  # weight of the receiver's newest row in the running basis
LIMIT = 32.0  # as in `kernel`
NEAR_NS, MIDDLE_NS, FAR_NS = 20_000_000, 100_000_000, 500_000_000

CHANNELS = (
    "imbalance",
    "basis",
    "age",
    "move_20ms",
    "move_100ms",
    "move_500ms",
    "rows_20ms",
    "rows_100ms",
    "spread",
    "gap_buy_here",
    "gap_buy_there",
)
"""Order of the step's numbers; formulas in `definition`."""
WIDTH = len(CHANNELS)


def new_pair() -> np.ndarray:
    """What a receiver remembers of another instrument: shape (1,), the running basis or NaN."""
    return np.full(1, np.nan)


@compiled
def _slog(x):  # type: ignore[no-untyped-def]
    return math.copysign(math.log1p(abs(x)), x)


@compiled
def _rows_before(other_N, count, timestamp):  # type: ignore[no-untyped-def]
    """How many of the first `count` rows are strictly earlier than `timestamp`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if other_N[middle]["timestamp"] < timestamp:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _then(other_N, newest, timestamp):  # type: ignore[no-untyped-def]
    """The newest row strictly earlier than `timestamp`, or else its segment's first row."""
    first = _rows_before(other_N, newest + 1, other_N[newest]["since"])
    return max(_rows_before(other_N, newest + 1, timestamp) - 1, first)


@compiled
def look(own, basis_1, other_N, count, reset_gap_ns, channel_P):  # type: ignore[no-untyped-def]
    """Write what the row behind `own` sees of another instrument.

    Args:
        own: the receiver's state after its row, dtype `STATE`.
        basis_1: the receiver's memory of the other (`new_pair`); changed in place.
        other_N: the other's states, one per row, in time order; at least those of the last
            `FAR_NS` and one row before them.
        count: rows of `other_N` that exist; later ones are ignored.
        reset_gap_ns: a longer silence hides the other instrument.
        channel_P: float32, written.
    """
    channel_P[:] = 0.0
    now = own["timestamp"]
    newest = _rows_before(other_N, count, now) - 1
    if own["rows"] == 1:
        basis_1[0] = math.nan
    if (
        newest < 0
        or now - other_N[newest]["timestamp"] > reset_gap_ns
        or now // DAY_NS != other_N[newest]["timestamp"] // DAY_NS
    ):
        basis_1[0] = math.nan
        return
    there = other_N[newest]
    mid = 0.5 * (own["bid_price"] + own["ask_price"])
    mid_there = 0.5 * (there["bid_price"] + there["ask_price"])
    basis = math.log(mid_there / mid) * mid / own["tick"]
    if math.isnan(basis_1[0]):
        basis_1[0] = basis
    basis_1[0] += BASIS_ALPHA * (basis - basis_1[0])

    sizes = there["bid_size"] + there["ask_size"]
    if not math.isnan(sizes):
        channel_P[0] = (there["bid_size"] - there["ask_size"]) / sizes
    channel_P[1] = _slog(basis - basis_1[0])
    channel_P[2] = math.log1p((now - there["timestamp"]) / 1000.0)
    near = _then(other_N, newest, now - NEAR_NS)
    middle = _then(other_N, newest, now - MIDDLE_NS)
    far = _then(other_N, newest, now - FAR_NS)
    for channel, row in ((3, near), (4, middle), (5, far)):
        then = other_N[row]
        move = mid_there - 0.5 * (then["bid_price"] + then["ask_price"])
        channel_P[channel] = _slog(move / there["tick"])
    channel_P[6] = math.log1p(float(newest - near))
    channel_P[7] = math.log1p(float(newest - middle))
    channel_P[8] = _slog((there["ask_price"] - there["bid_price"]) / own["tick"])
    channel_P[9] = _slog((there["bid_price"] - own["ask_price"]) / own["tick"])
    channel_P[10] = _slog((own["bid_price"] - there["ask_price"]) / own["tick"])
    for k in range(channel_P.shape[0]):
        channel_P[k] = min(max(channel_P[k], -LIMIT), LIMIT)


@compiled
def look_all(own_M, basis_1, other_N, count, reset_gap_ns, channel_MP):  # type: ignore[no-untyped-def]
    """`look` for consecutive rows of the receiver; `count` is all that may ever be seen."""
    for i in range(own_M.shape[0]):
        look(own_M[i], basis_1, other_N, count, reset_gap_ns, channel_MP[i])


EMPTY = np.empty(0, STATE)
"""The states of an instrument without rows."""
