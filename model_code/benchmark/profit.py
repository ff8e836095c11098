"""What acting on a decision could have earned: the best case of one late, executable trade.

The decision falls at a window's last row. The trade is made `delay` later, at the quotes of that
moment, and closed within the label's horizon. Direction and exit are the best ones in hindsight,
so the figure bounds what any rule for them could earn. Without a profitable exit the least loss
counts: both legs cross the spread.

Shapes: N rows of one instrument and date, M of another, B decisions.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.features.batch import reset_gap_ns
from model_code.features.dataset import FeatureTable, TableDay
from model_code.features.venues import Quotes, siblings
from model_code.settings import FeatureSpec

BPS = 1e4
NO_QUOTES = Quotes(np.empty(0, np.int64), np.empty(0), np.empty(0))


def best_cases(
    table: FeatureTable, ends_B: npt.NDArray[np.int64], delay_ms: float
) -> npt.NDArray[np.float64]:
    """Best case (B,) of acting on each window, in basis points, by the table's own label and cost.

    `cross-venue` trades with the best of the other venues, `mid-move` buys first, and
    `executable-roundtrip` opens either way.

    Args:
        table: with the windows' quotes.
        ends_B: rows on which the decisions fall.
        delay_ms: from the decision to the trade.
    """
    spec, others = table.meta.spec, siblings(table.meta.symbols)
    earned_B = np.empty(len(ends_B))
    days = {(day.date, day.symbol): day for day in table.meta.days if day.rows}
    for (date, symbol), day in days.items():
        inside_B = (ends_B >= day.first) & (ends_B < day.first + day.rows)
        if not inside_B.any():
            continue
        present = [days[date, name] for name in others[symbol] if (date, name) in days]
        earned_B[inside_B] = day_cases(
            spec,
            _quotes(table, day),
            np.asarray(table.segment_N[day.first : day.first + day.rows]),
            ends_B[inside_B] - day.first,
            delay_ms,
            [_quotes(table, venue) for venue in present],
        )
    return earned_B


def day_cases(
    spec: FeatureSpec,
    here: Quotes,
    segment_N: npt.NDArray[np.int32],
    rows_B: npt.NDArray[np.int64],
    delay_ms: float,
    venues: Sequence[Quotes] = (),
) -> npt.NDArray[np.float64]:
    """`best_cases` (B,) of one instrument and date.

    Args:
        spec: names label, horizon and cost.
        here: the instrument's quotes.
        segment_N: a round trip stays within its segment.
        rows_B: rows of `here` on which decisions fall.
        delay_ms: from the decision to the trade.
        venues: the same instrument elsewhere, for the label `cross-venue`.
    """
    delay_ns, horizon_ns = round(delay_ms * 1e6), round(spec.horizon_ms * 1e6)
    if spec.chosen_label != "cross-venue":
        return round_trips(
            here,
            segment_N,
            rows_B,
            delay_ns=delay_ns,
            horizon_ns=horizon_ns,
            cost_bps=spec.cost_bps,
            long_only=spec.chosen_label == "mid-move",
        )
    found: npt.NDArray[np.float64] = np.max(
        [
            crossings(
                here,
                venue,
                rows_B,
                delay_ns=delay_ns,
                horizon_ns=horizon_ns,
                stale_ns=reset_gap_ns(spec),
                cost_bps=spec.cost_bps,
            )
            for venue in venues or [NO_QUOTES]
        ],
        axis=0,
    )
    return found


def _quotes(table: FeatureTable, day: TableDay) -> Quotes:
    rows = slice(day.first, day.first + day.rows)
    return Quotes(
        np.asarray(table.timestamp_N[rows]),
        np.asarray(table.bid_N[rows]),
        np.asarray(table.ask_N[rows]),
    )


def round_trips(
    quotes: Quotes,
    segment_N: npt.NDArray[np.int32],
    rows_B: npt.NDArray[np.int64],
    *,
    delay_ns: int,
    horizon_ns: int,
    cost_bps: float,
    long_only: bool = False,
) -> npt.NDArray[np.float64]:
    """Best case (B,) of a round trip, in basis points of the mid, after cost.

    Args:
        quotes: of one instrument and date.
        segment_N: a trade stays within its segment.
        rows_B: rows of `quotes` on which decisions fall.
        delay_ns: from the decision to the trade.
        horizon_ns: from the decision to the latest exit.
        cost_bps: of the round trip, besides the spread.
        long_only: buy first, as the label `mid-move` means.
    """
    earned_B: npt.NDArray[np.float64] = _round_trips(
        *quotes, segment_N, rows_B, delay_ns, horizon_ns, long_only
    )
    return earned_B - cost_bps


def crossings(
    here: Quotes,
    there: Quotes,
    rows_B: npt.NDArray[np.int64],
    *,
    delay_ns: int,
    horizon_ns: int,
    stale_ns: int,
    cost_bps: float,
) -> npt.NDArray[np.float64]:
    """Best case (B,) of buying on one venue and selling on the other at the same moment.

    Args:
        here: quotes of the venue whose rows decide.
        there: quotes of the other venue.
        rows_B: rows of `here` on which decisions fall.
        delay_ns: from the decision to the earliest trade.
        horizon_ns: from the decision to the latest trade.
        stale_ns: quotes of a venue silent for longer are not traded on, as in `venues.crossings`.
        cost_bps: of both legs together, besides the spread.
    """
    earned_B: npt.NDArray[np.float64] = _crossings(
        *here, *there, rows_B, delay_ns, horizon_ns, stale_ns
    )
    return earned_B - cost_bps


@compiled
def _round_trips(  # type: ignore[no-untyped-def]
    time_N, bid_N, ask_N, segment_N, rows_B, delay_ns, horizon_ns, long_only
):
    earned_B = np.empty(rows_B.shape[0])
    for b in range(rows_B.shape[0]):
        row = rows_B[b]
        entry, start = row, time_N[row] + delay_ns
        while (
            entry + 1 < time_N.shape[0]
            and segment_N[entry + 1] == segment_N[row]
            and time_N[entry + 1] <= start
        ):
            entry += 1
        best = bid_N[entry] - ask_N[entry]
        last = entry + 1
        while (
            last < time_N.shape[0]
            and segment_N[last] == segment_N[row]
            and time_N[last] <= time_N[row] + horizon_ns
        ):
            best = max(best, bid_N[last] - ask_N[entry])
            if not long_only:
                best = max(best, bid_N[entry] - ask_N[last])
            last += 1
        earned_B[b] = BPS * best / (0.5 * (bid_N[entry] + ask_N[entry]))
    return earned_B


@compiled
def _crossings(  # type: ignore[no-untyped-def]
    time_N, bid_N, ask_N, time_M, bid_M, ask_M, rows_B, delay_ns, horizon_ns, stale_ns
):
    earned_B = np.empty(rows_B.shape[0])
    for b in range(rows_B.shape[0]):
        row = rows_B[b]
        now, end = time_N[row] + delay_ns, time_N[row] + horizon_ns
        here = np.searchsorted(time_N, now, "right") - 1
        there = np.searchsorted(time_M, now, "right") - 1
        best = -np.inf
        while now <= end:
            if there >= 0 and min(time_N[here], time_M[there]) >= now - stale_ns:
                best = max(best, bid_N[here] - ask_M[there], bid_M[there] - ask_N[here])
            next_here = time_N[here + 1] if here + 1 < time_N.shape[0] else end + 1
            next_there = time_M[there + 1] if there + 1 < time_M.shape[0] else end + 1
            now = min(next_here, next_there)
            # rows of one instant are applied together, as in the label
            while here + 1 < time_N.shape[0] and time_N[here + 1] <= now:
                here += 1
            while there + 1 < time_M.shape[0] and time_M[there + 1] <= now:
                there += 1
        spread = ask_N[row] - bid_N[row]
        mid = 0.5 * (bid_N[row] + ask_N[row])
        earned_B[b] = BPS * (best if best > -np.inf else -spread) / mid
    return earned_B
