"""One instrument on several venues: when a bid on one venue crosses the ask on another.

Venues of one instrument share the name before the last dot: `EURUSD.oanda`, `EURUSD.fxcm`.

Shapes: N rows of all venues together, V venues, E instants.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.errors import DataError


class Quotes(NamedTuple):
    """One venue's quotes of a day, in time order."""

    timestamp_N: npt.NDArray[np.int64]
    bid_N: npt.NDArray[np.float64]
    ask_N: npt.NDArray[np.float64]


def siblings(symbols: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The same instrument on other venues, for every symbol, in alphabetical order."""
    return {
        symbol: tuple(
            other
            for other in sorted(symbols)
            if other != symbol and _instrument(other) == _instrument(symbol)
        )
        for symbol in symbols
    }


def _instrument(symbol: str) -> str:
    return symbol.rpartition(".")[0] or symbol


def crossings(
    quotes: Mapping[str, Quotes], cost_bps: float, stale_ns: int
) -> npt.NDArray[np.int64]:
    """Instants (E,) ns at which a crossing begins: none existed at the instant before.

    A crossing exists while some venue's bid is above another venue's ask times (1 + cost). Rows of
    one instant are applied together, so their order does not matter.

    Args:
        quotes: by venue.
        cost_bps: of buying on one venue and selling on the other, in basis points.
        stale_ns: a venue silent for longer is left out until its next row.

    Raises:
        DataError: fewer than two venues.
    """
    if len(quotes) < 2:
        raise DataError(
            f"the label cross-venue needs an instrument on two venues, found {', '.join(quotes)}",
            remedy="add the other venue's ticks as NAME.VENUE, or choose another label",
        )
    parts = list(quotes.values())
    venue_N = np.repeat(np.arange(len(parts)), [len(part.timestamp_N) for part in parts])
    time_N, bid_N, ask_N = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order_N = np.argsort(time_N, kind="stable")
    found_N = _begins(
        time_N[order_N], venue_N[order_N], bid_N[order_N], ask_N[order_N],
        len(parts), cost_bps / 1e4, stale_ns,
    )  # fmt: skip
    begins_E: npt.NDArray[np.int64] = time_N[order_N][found_N]
    return begins_E


@compiled
def _begins(time_N, venue_N, bid_N, ask_N, venues, cost, stale_ns):  # type: ignore[no-untyped-def]
    found_N = np.zeros(time_N.shape[0], np.bool_)
    bid_V, ask_V = np.full(venues, -np.inf), np.full(venues, np.inf)
    seen_V = np.zeros(venues, np.int64)
    crossed = False
    for i in range(time_N.shape[0]):
        venue = venue_N[i]
        bid_V[venue], ask_V[venue], seen_V[venue] = bid_N[i], ask_N[i], time_N[i]
        if i + 1 < time_N.shape[0] and time_N[i + 1] == time_N[i]:
            continue
        before, crossed = crossed, False
        for v in range(venues):
            for w in range(venues):
                fresh = min(seen_V[v], seen_V[w]) >= time_N[i] - stale_ns
                crossed |= v != w and fresh and bid_V[v] > ask_V[w] * (1.0 + cost)
        found_N[i] = crossed and not before
    return found_N
