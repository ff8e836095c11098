"""Which instruments lead others: a suggestion measured on ticks of the training days.

An instrument leads another if its last move says something of the other's next move that the
other's own last move does not. Leaders look at nobody; everyone else looks at the leaders, the most
similar first. Who sees whom matters more than how much is seen: docs/features.md.

Source: Huth, Abergel 2014, "High Frequency Lead/Lag Relationships: Empirical Facts". The measure is
a partial correlation of moves sampled at the receiver's rows.

Shapes: N sampled rows, L instruments.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.features.venues import Quotes, siblings
from model_code.settings import FeatureSetName, Leaders

MOVE_NS = 100_000_000  # a last and a next move
SIMILAR_NS = 1_000_000_000  # a move that similar instruments share
LEADS = 0.2  # partial correlation from which a move elsewhere is worth looking at
AHEAD = 0.1  # and by how much it must exceed that of the opposite direction
SAMPLED = 20_000  # rows of the receiver
SHOWN = 2  # leaders of an instrument
FEWEST = 100


class LeadTable(BaseModel):
    """The measurement and what follows from it.

    Attributes:
        symbols: instruments, receivers and candidates alike.
        lead: partial correlation [receiver][other] of the other's last move with the receiver's
            next one; None where too few rows overlap.
        leaders: whom each instrument looks at, the most similar first; only those with leaders.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: tuple[str, ...]
    lead: tuple[tuple[float | None, ...], ...]
    leaders: Leaders


def suggest(quotes: Mapping[str, Quotes], present: frozenset[str]) -> LeadTable:
    """Measure who leads whom.

    Args:
        quotes: of one training date, by instrument.
        present: instruments that may lead: those with ticks on the date to predict.
    """
    symbols = tuple(sorted(quotes))
    lead = {
        (here, there): None if here == there else _lead(quotes[here], quotes[there])
        for here in symbols
        for there in symbols
    }
    leading = [
        there
        for there in symbols
        if there in present and any(_leads(lead, here, there) for here in symbols)
    ]
    found: Leaders = {}
    for here in symbols:
        similar = {
            there: _similarity(quotes[here], quotes[there])
            for there in leading
            if here not in leading
        }
        if similar:
            order = sorted(similar, key=lambda name: (-similar[name], name))
            found[here] = tuple(order[:SHOWN])
    rows = tuple(tuple(lead[here, there] for there in symbols) for here in symbols)
    return LeadTable(symbols=symbols, lead=rows, leaders=found)


def by_name(feature_set: FeatureSetName, symbols: tuple[str, ...]) -> Leaders | None:
    """Leaders that follow from the names: other venues for `venues`; None for `paired`."""
    if feature_set == "paired":
        return None
    if feature_set != "venues":
        return {}
    return {name: others for name, others in siblings(symbols).items() if others}


def _leads(lead: Mapping[tuple[str, str], float | None], here: str, there: str) -> bool:
    forth, back = lead[here, there], lead[there, here]
    return forth is not None and forth >= LEADS and forth - (back or 0.0) >= AHEAD


def _lead(here: Quotes, there: Quotes) -> float | None:
    """Partial correlation of the other's last move with the receiver's next one."""
    time_N = _sampled(here, there, MOVE_NS)
    if len(time_N) < FEWEST:
        return None
    next_N = _log_mid(here, time_N + MOVE_NS, "right") - _log_mid(here, time_N, "right")
    own_N = _log_mid(here, time_N, "right") - _log_mid(here, time_N - MOVE_NS, "left")
    other_N = _log_mid(there, time_N, "left") - _log_mid(there, time_N - MOVE_NS, "left")
    return _correlation(_residual(next_N, own_N), _residual(other_N, own_N))


def _similarity(here: Quotes, there: Quotes) -> float:
    time_N = _sampled(here, there, SIMILAR_NS)
    if len(time_N) < FEWEST:
        return 0.0
    here_N, there_N = (
        _log_mid(quotes, time_N, "right") - _log_mid(quotes, time_N - SIMILAR_NS, "right")
        for quotes in (here, there)
    )
    return _correlation(here_N, there_N)


def _sampled(here: Quotes, there: Quotes, span_ns: int) -> npt.NDArray[np.int64]:
    """Instants of the receiver's rows at which both have quotes, a span before and after."""
    if not len(here.timestamp_N) or not len(there.timestamp_N):
        return np.empty(0, np.int64)
    first = max(here.timestamp_N[0], there.timestamp_N[0]) + span_ns
    last = min(here.timestamp_N[-1], there.timestamp_N[-1]) - span_ns
    time_N = here.timestamp_N[(here.timestamp_N > first) & (here.timestamp_N < last)]
    found_N: npt.NDArray[np.int64] = time_N[:: max(1, len(time_N) // SAMPLED)]
    return found_N


def _log_mid(quotes: Quotes, time_N: npt.NDArray[np.int64], side: str) -> npt.NDArray[np.float64]:
    """Of the newest row at or before each instant ("right"), or strictly before it ("left")."""
    row_N = np.maximum(np.searchsorted(quotes.timestamp_N, time_N, side) - 1, 0)  # type: ignore[call-overload]
    mid_N: npt.NDArray[np.float64] = np.log(0.5 * (quotes.bid_N[row_N] + quotes.ask_N[row_N]))
    return mid_N


def _residual(
    value_N: npt.NDArray[np.float64], given_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    given_N = given_N - given_N.mean()
    spread = float(given_N @ given_N)
    slope = float(given_N @ value_N) / spread if spread > 0.0 else 0.0
    left_N: npt.NDArray[np.float64] = value_N - value_N.mean() - slope * given_N
    return left_N


def _correlation(one_N: npt.NDArray[np.float64], other_N: npt.NDArray[np.float64]) -> float:
    one_N, other_N = one_N - one_N.mean(), other_N - other_N.mean()
    scale = float(np.sqrt((one_N @ one_N) * (other_N @ other_N)))
    return float(one_N @ other_N) / scale if scale > 0.0 else 0.0
