"""Crossings of venues and the labels made of them, against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError
from model_code.features import labels, venues
from model_code.features.venues import Quotes, crossings, siblings

MS = 1_000_000
STALE_NS = 200 * MS


@st.composite
def markets(draw: st.DrawFn) -> dict[str, Quotes]:
    """Two or three venues on a coarse grid: equal stamps, equal prices, silences."""
    found = {}
    for venue in "abc"[: draw(st.integers(2, 3))]:
        n = draw(st.integers(1, 12))
        gaps = draw(st.lists(st.sampled_from([0, 10, 50, 300]), min_size=n, max_size=n))
        bids = draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
        bid = np.array(bids, float)
        found[venue] = Quotes(np.cumsum(gaps) * MS, bid, bid + draw(st.integers(1, 3)))
    return found


def brute_force(quotes: dict[str, Quotes], cost_bps: float) -> list[int]:
    """The definition, written literally."""
    instants = sorted({int(t) for quote in quotes.values() for t in quote.timestamp_N})
    found, before = [], False
    for now in instants:
        last = {}
        for name, quote in quotes.items():
            seen = np.flatnonzero(quote.timestamp_N <= now)
            if len(seen) and quote.timestamp_N[seen[-1]] >= now - STALE_NS:
                last[name] = (quote.bid_N[seen[-1]], quote.ask_N[seen[-1]])
        crossed = any(
            last[one][0] > last[other][1] * (1 + cost_bps / 1e4)
            for one in last
            for other in last
            if one != other
        )
        if crossed and not before:
            found.append(now)
        before = crossed
    return found


@settings(max_examples=300, deadline=None)
@given(markets(), st.sampled_from([0.0, 2500.0]))
def test_crossings_equal_brute_force(quotes: dict[str, Quotes], cost_bps: float) -> None:
    assert crossings(quotes, cost_bps, STALE_NS).tolist() == brute_force(quotes, cost_bps)
    with pytest.MonkeyPatch.context() as patch:  # what coverage and a debugger see
        patch.setattr(venues, "_begins", venues._begins.py_func)
        assert crossings(quotes, cost_bps, STALE_NS).tolist() == brute_force(quotes, cost_bps)


def test_one_venue_is_refused() -> None:
    quotes = {"a": Quotes(np.array([0]), np.array([1.0]), np.array([2.0]))}
    with pytest.raises(DataError, match="two venues, found a"):
        crossings(quotes, 0.0, STALE_NS)


def test_siblings_share_the_name_before_the_last_dot() -> None:
    found = siblings(("EURUSD.oanda", "EURUSD.fxcm", "GBPUSD.fxcm", "X.Y.fxcm", "X.Y.oanda", "X"))
    assert found == {
        "EURUSD.oanda": ("EURUSD.fxcm",),
        "EURUSD.fxcm": ("EURUSD.oanda",),
        "GBPUSD.fxcm": (),
        "X.Y.fxcm": ("X.Y.oanda",),
        "X.Y.oanda": ("X.Y.fxcm",),
        "X": (),
    }


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0, 10, 50, 100]), min_size=1, max_size=20),
    st.lists(st.integers(0, 100), max_size=6),
    st.integers(0, 20),
)
def test_labels_of_crossings_equal_brute_force(
    gaps: list[int], begins: list[int], segment_from: int
) -> None:
    time_N = np.cumsum(gaps) * MS
    segment_N = (np.arange(len(time_N)) >= segment_from).astype(np.int32)
    begins_E = np.unique(np.array(begins, np.int64) * 10 * MS)
    found = labels.crossing_begins(time_N, begins_E, 100.0, segment_N)
    for i, label in enumerate(found):
        end = time_N[segment_N == segment_N[i]].max()
        inside = (begins_E > time_N[i]) & (begins_E <= time_N[i] + 100 * MS)
        assert label == (-1 if end - time_N[i] < 100 * MS else int(inside.any()))
