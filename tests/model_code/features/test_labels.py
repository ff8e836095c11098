"""Labels against a brute-force reference, whole and streamed."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError
from model_code.features import labels
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import FeatureSpec

MS = 1_000_000
Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def brute_force(
    rows: Rows, horizon_ms: float, cost_bps: float, wanted: range | None = None
) -> np.ndarray:
    """The definition, written literally."""
    time, bid, ask, segment = rows
    horizon, cost = round(horizon_ms * MS), cost_bps / 1e4
    found = []
    for i in wanted or range(len(time)):
        if time[i] + horizon > time[segment == segment[i]].max():
            found.append(-1)
            continue
        later = np.arange(i + 1, len(time))
        later = later[(segment[later] == segment[i]) & (time[later] <= time[i] + horizon)]
        long = (bid[later] > ask[i] * (1 + cost)).any()
        short = (ask[later] < bid[i] * (1 - cost)).any()
        found.append(int(long or short))
    return np.array(found, np.int8)


@st.composite
def markets(draw: st.DrawFn) -> Rows:
    """Up to 40 rows on a coarse grid: many equal stamps, equal prices and exact horizons."""
    n = draw(st.integers(1, 40))
    gaps = draw(st.lists(st.sampled_from([0, 0, 10, 20, 50, 100, 150]), min_size=n, max_size=n))
    bids = draw(st.lists(st.integers(1, 8), min_size=n, max_size=n))
    spreads = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    steps = draw(st.lists(st.sampled_from([0] * 9 + [1]), min_size=n, max_size=n))
    bid = np.array(bids, float)
    return (
        np.cumsum(gaps, dtype=np.int64) * MS,
        bid,
        bid + np.array(spreads),
        np.cumsum(steps, dtype=np.int32),
    )


COSTS = st.sampled_from([0.0, 1.0, 1250.0, 5000.0])


@settings(max_examples=300, deadline=None)
@given(markets(), st.sampled_from([10.0, 50.0, 100.0, 1000.0]), COSTS)
def test_equal_to_brute_force(rows: Rows, horizon_ms: float, cost_bps: float) -> None:
    time, bid, ask, segment = rows
    found = labels.round_trip(time, bid, ask, horizon_ms, cost_bps, segment)
    expected = brute_force(rows, horizon_ms, cost_bps)
    assert found.dtype == np.int8
    assert found.tolist() == expected.tolist()
    plain = labels._label.py_func(  # what coverage and a debugger see
        time, bid, ask, segment, round(horizon_ms * MS), cost_bps / 1e4
    )
    assert plain.tolist() == expected.tolist()


@settings(max_examples=150, deadline=None)
@given(markets(), COSTS, st.lists(st.integers(0, 40), max_size=5), st.booleans())
def test_streamed_labels_equal_whole_ones(
    rows: Rows, cost_bps: float, cuts: list[int], own: bool
) -> None:
    spec = FeatureSpec(cost_bps=cost_bps)
    time, bid, ask, segment = rows
    n = len(time)
    own_N = np.where(np.arange(n) % 3 == 0, 1, -1).astype(np.int8) if own else np.full(n, -1, "i1")
    stream = labels.LabelStream(spec)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [
        stream.update(time[part], bid[part], ask[part], segment[part], own_N[part])
        for part in (slice(first, end) for first, end in pairwise(edges))
    ]
    found = np.concatenate([*parts, stream.finish()])
    expected = brute_force(rows, spec.horizon_ms, cost_bps)
    assert found.tolist() == np.where(own_N >= 0, own_N, expected).tolist()
    assert found.dtype == np.int8


@settings(max_examples=300, deadline=None)
@given(markets(), st.sampled_from([10.0, 100.0, 1000.0]), COSTS)
def test_mid_moves_equal_brute_force(rows: Rows, horizon_ms: float, cost_bps: float) -> None:
    time, bid, ask, segment = rows
    mid, horizon = 0.5 * (bid + ask), round(horizon_ms * MS)
    found = labels.mid_move(time, bid, ask, horizon_ms, cost_bps, segment)
    for i, label in enumerate(found):
        own = segment == segment[i]
        if time[i] + horizon > time[own].max():
            assert label == -1
        else:
            last = mid[own & (time <= time[i] + horizon)][-1]
            assert label == int(last > mid[i] * (1 + cost_bps / 1e4))


@settings(max_examples=150, deadline=None)
@given(
    markets(),
    st.sampled_from(["mid-move", "cross-venue"]),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_every_label_streams(rows: Rows, label: str, cuts: list[int]) -> None:
    spec = FeatureSpec(label=label)  # type: ignore[arg-type]
    time, bid, ask, segment = rows
    begins_E = np.unique(time[::3])
    n, none_N = len(time), np.full(len(time), -1, np.int8)
    stream = labels.LabelStream(spec, begins_E)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [
        stream.update(time[part], bid[part], ask[part], segment[part], none_N[part])
        for part in (slice(first, end) for first, end in pairwise(edges))
    ]
    whole = {
        "mid-move": labels.mid_move(time, bid, ask, spec.horizon_ms, 0.0, segment),
        "cross-venue": labels.crossing_begins(time, begins_E, spec.horizon_ms, segment),
    }
    assert np.concatenate([*parts, stream.finish()]).tolist() == whole[label].tolist()


def test_equal_to_brute_force_on_real_rows(binance: str) -> None:
    market = open_market(binance)
    day = next(day for day in market.catalog() if day.symbol == "BTCUSDT.spot")
    table = market.read(InstrumentDay(day.date, day.symbol)).slice(0, 6000)
    time = table["timestamp"].to_numpy().astype(np.int64)
    bid, ask = table["bid_price"].to_numpy(), table["ask_price"].to_numpy()
    for cost_bps in (0.0, 0.02):
        found = labels.round_trip(time, bid, ask, 100.0, cost_bps)
        rows = (time, bid, ask, np.zeros(len(time), np.int32))
        wanted = range(3000, 6000)
        assert np.array_equal(found[3000:], brute_force(rows, 100.0, cost_bps, wanted))
        assert 0.05 < found[found >= 0].mean() < 0.6


def test_long_and_short_and_cost() -> None:
    time = np.array([0, 50, 200], np.int64) * MS
    up = np.array([100.0, 101.0, 101.0])
    assert labels.round_trip(time, up, up + 0.5, 100.0, 0.0).tolist() == [1, 0, -1]
    assert labels.round_trip(time, -up + 201.5, -up + 202.0, 100.0, 0.0).tolist() == [1, 0, -1]
    # 0.5 earned on 100.5 is 49.75 bps
    assert labels.round_trip(time, up, up + 0.5, 100.0, 49.7).tolist() == [1, 0, -1]
    assert labels.round_trip(time, up, up + 0.5, 100.0, 49.8).tolist() == [0, 0, -1]


def test_an_opportunity_at_the_end_is_still_not_observed() -> None:
    time = np.array([0, 50], np.int64) * MS
    bid = np.array([1.0, 9.0])
    assert labels.round_trip(time, bid, bid + 1, 100.0, 0.0).tolist() == [-1, -1]
    assert labels.round_trip(time, bid, bid + 1, 50.0, 0.0).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda time, bid: (time[::-1].copy(), bid), "the clock goes back"),
        (lambda time, bid: (time, bid[:-1]), "differ in length"),
    ],
)
def test_bad_rows_are_refused(
    change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], message: str
) -> None:
    time, bid = change(np.arange(5, dtype=np.int64), np.ones(5))
    with pytest.raises(DataError, match=message):
        labels.round_trip(time, bid, np.full(5, 2.0), 100.0, 0.0)
