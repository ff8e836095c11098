"""The rules of validation that need one row alone, applied to a single row.

The limits are those of `quality.row_rules`; the measures are those of `measures.derive`, for one
row of plain numbers. The other rules (a clock against its neighbours, price jumps, the day's range
of a vwap) need the rows after it.
"""

from collections.abc import Sequence

import numpy as np

from model_code.compiled import compiled
from model_code.market.measures import BAND_IN_SPREADS
from model_code.market.profiles import Limits
from model_code.market.quality import RowRule, row_rules
from model_code.settings import ValidationSpec

LOCAL = (
    "missing_bid", "missing_ask", "not_finite", "price_not_positive", "size_not_positive",
    "flow_negative", "crossed_quote", "locked_quote",
)  # fmt: skip
WIDE = "spread_too_wide"
# columns of `measures.derive`, in the order in which `_first_broken` computes them
MEASURES = (
    "bid_price", "ask_price", "not_finite", "lowest_price", "lowest_size", "lowest_flow", "spread",
    "locked", "wide_spread_bps",
)  # fmt: skip


def local_rules(spec: ValidationSpec | Limits) -> tuple[RowRule, ...]:
    """The rules that need one row alone, in the order of `row_rules`."""
    return tuple(rule for rule in row_rules(spec) if rule.name in LOCAL)


class RowCheck:
    """Judges rows of one instrument, one at a time.

    Args:
        spec: thresholds.
    """

    def __init__(self, spec: ValidationSpec | Limits) -> None:
        rules = local_rules(spec)
        self._names = (*(rule.name for rule in rules), WIDE)
        wide = next(rule for rule in row_rules(spec) if rule.name == WIDE)
        found = (*rules, wide)
        self._column_R = np.array([MEASURES.index(rule.column) for rule in found])
        self._low_R = np.array([-np.inf if r.minimum is None else r.minimum for r in found])
        self._high_R = np.array([np.inf if r.maximum is None else r.maximum for r in found])
        self._strict_R = np.array([rule.strict for rule in found])
        self._required_R = np.array([rule.required for rule in found])
        self._measure_K = np.empty(len(MEASURES))

    def reason(self, row: Sequence[float], tightest_bps: float) -> str | None:
        """Name of the first rule that the row breaks; None for a usable row.

        Args:
            row: in the order of `kernel.TICK`, missing is NaN.
            tightest_bps: tightest spread of the day so far. `spread_too_wide` spares a spread
                within five of them, as the day's validation spares one within five of the day's:
                it never rejects what that keeps.
        """
        broken = _first_broken(
            *row[1:], tightest_bps, self._measure_K, self._column_R, self._low_R, self._high_R,
            self._strict_R, self._required_R,
        )  # fmt: skip
        return None if broken < 0 else self._names[broken]


@compiled
def _lowest(one, other):  # type: ignore[no-untyped-def]
    """The lower of two values, either of which may be missing."""
    if np.isnan(one) or other < one:
        return other
    return one


@compiled
def _first_broken(  # type: ignore[no-untyped-def]
    bid, ask, bid_size, ask_size, last_trade, vwap, average, bought, sold, count,
    tightest_bps, measure_K, column_R, low_R, high_R, strict_R, required_R,
):  # fmt: skip
    infinite = False
    for value in (bid, ask, bid_size, ask_size, last_trade, vwap, average, bought, sold):
        infinite |= np.isinf(value)
    measure_K[0], measure_K[1] = bid, ask
    measure_K[2] = 1.0 if infinite else 0.0
    measure_K[3] = _lowest(_lowest(bid, ask), _lowest(last_trade, vwap))
    measure_K[4] = _lowest(bid_size, ask_size)
    measure_K[5] = _lowest(_lowest(bought, sold), float(count))
    measure_K[6] = ask - bid
    measure_K[7] = 1.0 if ask == bid else 0.0
    measure_K[8] = np.nan
    if bid > 0 and ask > 0:
        spread_bps = (ask - bid) / (bid / 2 + ask / 2) * 1e4
        if spread_bps > BAND_IN_SPREADS * tightest_bps:
            measure_K[8] = spread_bps
    for r in range(column_R.shape[0]):
        value = measure_K[column_R[r]]
        if np.isnan(value):
            if required_R[r]:
                return r
        elif not required_R[r]:
            if strict_R[r]:
                if value <= low_R[r] or value >= high_R[r]:
                    return r
            elif value < low_R[r] or value > high_R[r]:
                return r
    return -1
