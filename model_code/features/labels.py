"""Labels: what counts as an opportunity within the horizon (`FeatureSpec.label`).

`executable-roundtrip`: row i is 1 if and only if some later row j of its segment, with
`t_i <= t_j <= t_i + horizon`, lets a taker close at a profit what was opened at row i's quotes:

- long:  buy at `ask_i`, sell at `bid_j`:  `bid_j > ask_i * (1 + cost)`, or
- short: sell at `bid_i`, buy at `ask_j`:  `ask_j < bid_i * (1 - cost)`.

The spread is paid by construction (both legs cross it). `cost` is everything else the whole round
trip costs, both legs' fees together, as a fraction of the entry price, hence charged once, there.

`cross-venue`: 1 if and only if a crossing of two venues (`venues.crossings`) begins at an instant c
with `t_i < c <= t_i + horizon`.

`mid-move`: 1 if and only if the mid of the segment's last row with `t_j <= t_i + horizon` is above
`mid_i * (1 + cost)`. An unchanged or falling mid is 0.

A row whose horizon ends after its segment's last row is -1 (not fully observed), even if an
opportunity was already seen: keeping only the ones seen would favour 1s near every segment's end.

Shapes: N rows, E instants.
"""

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.errors import DataError
from model_code.settings import FeatureSpec

UNOBSERVED = -1


def round_trip(
    timestamp_ns: npt.NDArray[np.int64],
    bid: npt.NDArray[np.float64],
    ask: npt.NDArray[np.float64],
    horizon_ms: float,
    cost_bps: float,
    segment_N: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int8]:
    """Labels (N,) of one instrument's rows: 1, 0 or -1 (horizon not fully observed); O(N).

    Args:
        timestamp_ns: never falling; rows of one instant count as later in row order.
        bid: best bid.
        ask: best ask.
        horizon_ms: how far to look ahead, inclusive.
        cost_bps: cost of the round trip, in basis points of the entry price.
        segment_N: labels never look across a change of segment; None is one segment.

    Raises:
        DataError: lengths differ, or the clock goes back inside the rows.
    """
    segment_N = _checked(timestamp_ns, bid, ask, segment_N)
    label_N: npt.NDArray[np.int8] = _label(
        timestamp_ns, bid, ask, segment_N, round(horizon_ms * 1e6), cost_bps / 1e4
    )
    return label_N


def mid_move(
    timestamp_ns: npt.NDArray[np.int64],
    bid: npt.NDArray[np.float64],
    ask: npt.NDArray[np.float64],
    horizon_ms: float,
    cost_bps: float,
    segment_N: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int8]:
    """Labels (N,) `mid-move` of one instrument's rows; arguments and errors as `round_trip`."""
    segment_N = _checked(timestamp_ns, bid, ask, segment_N)
    horizon_ns, mid_N = round(horizon_ms * 1e6), 0.5 * (bid + ask)
    end_N = _segment_ends(segment_N)
    last_N = np.minimum(np.searchsorted(timestamp_ns, timestamp_ns + horizon_ns, "right"), end_N)
    rises_N = mid_N[last_N - 1] > mid_N * (1.0 + cost_bps / 1e4)
    return _where_observed(rises_N, timestamp_ns, horizon_ns, end_N)


def crossing_begins(
    timestamp_ns: npt.NDArray[np.int64],
    begins_E: npt.NDArray[np.int64],
    horizon_ms: float,
    segment_N: npt.NDArray[np.int32],
) -> npt.NDArray[np.int8]:
    """Labels (N,) `cross-venue` of one venue's rows: does a crossing begin within the horizon?

    Args:
        timestamp_ns: never falling.
        begins_E: from `venues.crossings`, rising.
        horizon_ms: how far to look ahead, inclusive.
        segment_N: of the venue's rows; horizons end with their segment.
    """
    horizon_ns = round(horizon_ms * 1e6)
    first_N = np.searchsorted(begins_E, timestamp_ns, "right")
    seen_N = np.searchsorted(begins_E, timestamp_ns + horizon_ns, "right") > first_N
    return _where_observed(seen_N, timestamp_ns, horizon_ns, _segment_ends(segment_N))


def _checked(
    timestamp_ns: npt.NDArray[np.int64],
    bid: npt.NDArray[np.float64],
    ask: npt.NDArray[np.float64],
    segment_N: npt.NDArray[np.int32] | None,
) -> npt.NDArray[np.int32]:
    if segment_N is None:
        segment_N = np.zeros(len(timestamp_ns), np.int32)
    lengths = {len(timestamp_ns), len(bid), len(ask), len(segment_N)}
    if len(lengths) != 1:
        raise DataError(f"label columns differ in length: {sorted(lengths)}")
    back = np.flatnonzero(timestamp_ns[1:] < timestamp_ns[:-1])
    if len(back):
        raise DataError(
            "labels need time-ordered rows, the clock goes back",
            where=f"row {back[0] + 1}",
            remedy="run validation on this day first",
        )
    return segment_N


def _segment_ends(segment_N: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The row after the last one of each row's segment."""
    return np.searchsorted(segment_N, segment_N, "right").astype(np.int64)


def _where_observed(
    seen_N: npt.NDArray[np.bool_],
    timestamp_ns: npt.NDArray[np.int64],
    horizon_ns: int,
    end_N: npt.NDArray[np.int64],
) -> npt.NDArray[np.int8]:
    whole_N = timestamp_ns[end_N - 1] - timestamp_ns >= horizon_ns
    return np.where(whole_N, seen_N, UNOBSERVED).astype(np.int8)


class LabelStream:
    """Labels of one instrument, chunk by chunk; rows wait until their horizon has been seen.

    However the same rows are cut into chunks, the labels equal those of the whole, except that a
    label of the source's own is kept as it is.

    Args:
        spec: label, horizon and cost.
        begins_E: for `cross-venue`: `venues.crossings` of the day.
    """

    def __init__(self, spec: FeatureSpec, begins_E: npt.NDArray[np.int64] | None = None) -> None:
        self._spec = spec
        self._begins_E = np.empty(0, np.int64) if begins_E is None else begins_E
        self._time = np.empty(0, np.int64)
        self._bid, self._ask = np.empty(0, np.float64), np.empty(0, np.float64)
        self._segment, self._own = np.empty(0, np.int32), np.empty(0, np.int8)

    def update(
        self,
        timestamp_N: npt.NDArray[np.int64],
        bid_N: npt.NDArray[np.float64],
        ask_N: npt.NDArray[np.float64],
        segment_N: npt.NDArray[np.int32],
        own_N: npt.NDArray[np.int8],
    ) -> npt.NDArray[np.int8]:
        """Take the next rows (`own_N`: the source's label, -1 for none); return what is decided.

        The labels returned by all calls, then by `finish`, are those of the rows in order.
        """
        self._time = np.concatenate([self._time, timestamp_N])
        self._bid = np.concatenate([self._bid, bid_N])
        self._ask = np.concatenate([self._ask, ask_N])
        self._segment = np.concatenate([self._segment, segment_N])
        self._own = np.concatenate([self._own, own_N])
        if len(self._time) == 0:
            return self._take(0)
        # rows of the newest segment whose horizon reaches its newest instant may yet change
        horizon_ns = round(self._spec.horizon_ms * 1e6)
        newest = np.searchsorted(self._segment, self._segment[-1])
        return self._take(max(newest, np.searchsorted(self._time, self._time[-1] - horizon_ns)))

    def finish(self) -> npt.NDArray[np.int8]:
        """Labels of the rows still waiting, the session being over."""
        return self._take(len(self._time))

    def _take(self, count: int | np.intp) -> npt.NDArray[np.int8]:
        spec = self._spec
        if spec.chosen_label == "cross-venue":
            label_N = crossing_begins(self._time, self._begins_E, spec.horizon_ms, self._segment)[
                :count
            ]
        else:
            rule = mid_move if spec.chosen_label == "mid-move" else round_trip
            label_N = rule(
                self._time, self._bid, self._ask, spec.horizon_ms, spec.cost_bps, self._segment
            )[:count]
        label_N = np.where(self._own[:count] >= 0, self._own[:count], label_N)
        self._time, self._segment = self._time[count:], self._segment[count:]
        self._bid, self._ask = self._bid[count:], self._ask[count:]
        self._own = self._own[count:]
        return label_N


@compiled
def _label(time_N, bid_N, ask_N, segment_N, horizon_ns, cost):  # type: ignore[no-untyped-def]
    """Sliding maximum of bids and minimum of asks over rows (i, end), by monotonic queues."""
    n = time_N.shape[0]
    label_N = np.empty(n, np.int8)
    high_N, low_N = np.empty(n, np.int64), np.empty(n, np.int64)  # queued rows, best first
    high_from = high_to = low_from = low_to = end = 0
    for i in range(n):
        while end < n and segment_N[end] == segment_N[i] and time_N[end] - time_N[i] <= horizon_ns:
            while high_to > high_from and bid_N[high_N[high_to - 1]] <= bid_N[end]:
                high_to -= 1
            high_N[high_to] = end
            high_to += 1
            while low_to > low_from and ask_N[low_N[low_to - 1]] >= ask_N[end]:
                low_to -= 1
            low_N[low_to] = end
            low_to += 1
            end += 1
        while high_from < high_to and high_N[high_from] <= i:
            high_from += 1
        while low_from < low_to and low_N[low_from] <= i:
            low_from += 1
        more = end < n and segment_N[end] == segment_N[i]
        long = high_from < high_to and bid_N[high_N[high_from]] > ask_N[i] * (1.0 + cost)
        short = low_from < low_to and ask_N[low_N[low_from]] < bid_N[i] * (1.0 - cost)
        if not more and time_N[end - 1] - time_N[i] < horizon_ns:
            label_N[i] = UNOBSERVED
        else:
            label_N[i] = long or short
    return label_N
