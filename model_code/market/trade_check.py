"""What makes a single trade or quote usable, and who the aggressor of a trade was.

The join of a day applies these to arrays, the live path to one message.

Shapes: N quotes, M trades.
"""

from typing import Any

import numpy as np

from model_code.compiled import compiled
from model_code.market.measures import BAND_IN_SPREADS

ROUNDING = 1e-12  # of a mid; far below half a tick


def usable(price: Any, size: Any) -> Any:
    """Whether price and size are finite, the price positive and the size not negative.

    Args:
        price, size: a number each, or arrays (M,).
    """
    return (price > 0) & (price < np.inf) & (size >= 0) & (size < np.inf)


def two_sided(bid: Any, ask: Any) -> Any:
    """Whether a quote has two finite positive sides that do not cross; numbers or arrays (N,)."""
    return (bid > 0) & (ask >= bid) & (ask < np.inf)


def off_band(price: Any, low: Any, high: Any, band_bps: float, tightest_bps: float) -> Any:
    """Whether a trade lies outside [low, high] by more than the band and five tightest spreads."""
    band = max(band_bps, BAND_IN_SPREADS * tightest_bps) / 1e4
    return (price < low * (1 - band)) | (price > high * (1 + band))


@compiled
def classify(price, mid, previous, change):  # type: ignore[no-untyped-def]
    """Whether the aggressor sold, and the last change of price with this trade (Lee, Ready 1991).

    Args:
        price: of the trade.
        mid: of the quote strictly before it; NaN without one.
        previous: price of the trade before it; NaN without one.
        change: last change of price before this trade; 1.0 before the first.
    """
    if price > previous:
        change = 1.0
    elif price < previous:
        change = -1.0
    off = price - mid
    if np.isnan(mid) or abs(off) <= ROUNDING * mid:
        return change < 0, change
    return off < 0, change


def classify_all(price_M: Any, mid_M: Any) -> Any:
    """`classify` for trades in time order: (M,) whether the aggressor sold."""
    return classify_on(price_M, mid_M, np.nan, 1.0)[0]


@compiled
def classify_on(price_M, mid_M, previous, change):  # type: ignore[no-untyped-def]
    """`classify_all` after other trades: (M,), and price and change for the trades that follow."""
    sold_M = np.empty(price_M.shape[0], np.bool_)
    for i in range(price_M.shape[0]):
        sold_M[i], change = classify(price_M[i], mid_M[i], previous, change)
        previous = price_M[i]
    return sold_M, previous, change
