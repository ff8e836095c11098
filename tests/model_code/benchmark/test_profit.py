"""The profit bound against its definition, written literally."""

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.benchmark import profit
from model_code.benchmark.profit import best_cases, crossings, round_trips
from model_code.features.dataset import FeatureTable, TableDay, TableMeta
from model_code.features.venues import Quotes
from model_code.settings import FeatureSpec

MS = 1_000_000
DELAYS = st.sampled_from([0, 10, 20, 70, 200])
HORIZONS = st.sampled_from([10, 50, 100])


@st.composite
def quotes(draw: st.DrawFn) -> Quotes:
    """Up to 12 rows on a coarse grid: equal stamps, equal prices, exact horizons."""
    n = draw(st.integers(1, 12))
    gaps = draw(st.lists(st.sampled_from([0, 0, 10, 20, 50, 150]), min_size=n, max_size=n))
    bids = draw(st.lists(st.integers(100, 108), min_size=n, max_size=n))
    spreads = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    bid = np.array(bids, float)
    return Quotes(np.cumsum(gaps, dtype=np.int64) * MS, bid, bid + np.array(spreads))


def literal_round_trip(
    quote: Quotes, segment: np.ndarray, row: int, delay: int, horizon: int, long_only: bool
) -> float:
    time, bid, ask = quote
    index = np.arange(len(time))
    own = (segment == segment[row]) & (index >= row)
    entry = index[own & (time <= time[row] + delay)][-1]
    exits = index[own & (index > entry) & (time <= time[row] + horizon)]
    trades = [bid[entry] - ask[entry], *(bid[exits] - ask[entry])]
    if not long_only:
        trades += list(bid[entry] - ask[exits])
    return float(1e4 * max(trades) / (0.5 * (bid[entry] + ask[entry])))


@settings(max_examples=300)
@given(quotes(), st.data(), DELAYS, HORIZONS, st.booleans())
def test_round_trips_equal_brute_force(
    quote: Quotes, data: st.DataObject, delay: int, horizon: int, long_only: bool
) -> None:
    n = len(quote.timestamp_N)
    steps = data.draw(st.lists(st.sampled_from([0] * 6 + [1]), min_size=n, max_size=n))
    segment_N, rows_B = np.cumsum(steps).astype(np.int32), np.arange(n)
    expected = [
        literal_round_trip(quote, segment_N, row, delay * MS, horizon * MS, long_only) - 2.0
        for row in range(n)
    ]
    how: dict[str, Any] = {"delay_ns": delay * MS, "horizon_ns": horizon * MS, "cost_bps": 2.0}
    found_B = round_trips(quote, segment_N, rows_B, **how, long_only=long_only)
    np.testing.assert_allclose(found_B, expected)
    with pytest.MonkeyPatch.context() as patch:  # what coverage and a debugger see
        patch.setattr(profit, "_round_trips", profit._round_trips.py_func)
        plain_B = round_trips(quote, segment_N, rows_B, **how, long_only=long_only)
    np.testing.assert_allclose(plain_B, expected)


def literal_crossing(
    here: Quotes, there: Quotes, row: int, delay: int, horizon: int, stale: int
) -> float:
    """At the decision's delayed instant and at every later row of either venue."""
    start, end = here.timestamp_N[row] + delay, here.timestamp_N[row] + horizon
    later = {int(t) for quote in (here, there) for t in quote.timestamp_N if start < t <= end}
    best = -np.inf
    for now in sorted({int(start)} | later):
        seen = [np.flatnonzero(quote.timestamp_N <= now) for quote in (here, there)]
        if now > end or not len(seen[1]):
            continue
        one, other = seen[0][-1], seen[1][-1]
        if min(here.timestamp_N[one], there.timestamp_N[other]) < now - stale:
            continue
        best = max(best, here.bid_N[one] - there.ask_N[other], there.bid_N[other] - here.ask_N[one])
    bid, ask = here.bid_N[row], here.ask_N[row]
    earned = best if best > -np.inf else bid - ask
    return float(1e4 * earned / (0.5 * (bid + ask)))


@settings(max_examples=300)
@given(quotes(), quotes(), DELAYS, HORIZONS, st.sampled_from([30, 1000]))
def test_crossings_equal_brute_force(
    here: Quotes, there: Quotes, delay: int, horizon: int, stale: int
) -> None:
    rows_B = np.arange(len(here.timestamp_N))
    expected = [
        literal_crossing(here, there, row, delay * MS, horizon * MS, stale * MS) - 0.5
        for row in rows_B.tolist()
    ]
    how: dict[str, Any] = {
        "delay_ns": delay * MS, "horizon_ns": horizon * MS, "stale_ns": stale * MS,
        "cost_bps": 0.5,
    }  # fmt: skip
    np.testing.assert_allclose(crossings(here, there, rows_B, **how), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profit, "_crossings", profit._crossings.py_func)
        np.testing.assert_allclose(crossings(here, there, rows_B, **how), expected)


def table(label: str, symbols: tuple[str, ...] = ("E.a", "E.b")) -> FeatureTable:
    """Two instruments on two dates, 40 rows each, 10 ms apart; the second quotes 4 below."""
    rows = 40
    days: list[TableDay] = []
    for date in (dt.date(2024, 8, 8), dt.date(2024, 8, 9)):
        for symbol in symbols:
            days.append(TableDay(date=date, symbol=symbol, first=rows * len(days), rows=rows))
    n = rows * len(days)
    rng = np.random.default_rng(0)
    symbol_N = np.repeat(np.arange(len(days)) % len(symbols), rows).astype(np.int16)
    bid_N = 1000.0 + rng.integers(0, 3, n) - 4.0 * symbol_N
    day_N = np.repeat(np.arange(len(days)) // len(symbols), rows)
    return FeatureTable(
        features_NF=np.zeros((n, 16), np.float32),
        timestamp_N=day_N * 86_400_000 * MS + np.tile(np.arange(rows) * 10 * MS, len(days)),
        label_N=np.zeros(n, np.int8),
        segment_N=np.repeat(np.arange(len(days)), rows).astype(np.int32),
        symbol_N=symbol_N,
        spread_bps_N=np.ones(n, np.float32),
        bid_N=bid_N,
        ask_N=bid_N + 1.0,
        meta=TableMeta(
            symbols=symbols,
            dates=(dt.date(2024, 8, 8), dt.date(2024, 8, 9)),
            days=tuple(days),
            spec=FeatureSpec(label=label, horizon_ms=100.0, cost_bps=1.0),  # type: ignore[arg-type]
            features_version="0",
            simulated=True,
        ),
    )


def day_quotes(rows: FeatureTable, number: int) -> Quotes:
    part = slice(40 * number, 40 * number + 40)
    return Quotes(rows.timestamp_N[part], rows.bid_N[part], rows.ask_N[part])


@pytest.mark.parametrize("label", ["executable-roundtrip", "mid-move"])
def test_windows_of_several_days_are_traded_on_their_own_quotes(label: str) -> None:
    rows = table(label)
    ends_B = np.array([5, 50, 130])  # of days 0, 1 and 3
    found_B = best_cases(rows, ends_B, 20.0)
    for found, day, row in zip(found_B, (0, 1, 3), (5, 10, 10), strict=True):
        expected = literal_round_trip(
            day_quotes(rows, day), np.zeros(40), row, 20 * MS, 100 * MS, label == "mid-move"
        )
        assert found == pytest.approx(expected - 1.0)


def test_crossings_of_the_same_date_are_traded_with_the_best_other_venue() -> None:
    rows = table("cross-venue")
    found_B = best_cases(rows, np.array([10, 90]), 0.0)
    expected = [
        literal_crossing(
            day_quotes(rows, day), day_quotes(rows, other), 10, 0, 100 * MS, 10_000 * MS
        )
        - 1.0
        for day, other in ((0, 1), (2, 3))
    ]
    np.testing.assert_allclose(found_B, expected)
    assert (found_B > 0).all()  # the second venue is 4 cheaper
    three = table("cross-venue", ("E.a", "E.b", "E.c"))
    assert best_cases(three, np.array([10]), 0.0)[0] > found_B[0]  # the third is 8 cheaper


def test_a_venue_without_another_on_the_date_pays_its_spread() -> None:
    rows = table("cross-venue")
    days = tuple(day for day in rows.meta.days if (day.symbol, day.date.day) != ("E.b", 9))
    alone = FeatureTable(
        **{
            name: getattr(rows, name)
            for name in FeatureTable.__dataclass_fields__
            if name != "meta"
        },
        meta=rows.meta.model_copy(update={"days": days}),
    )
    found = best_cases(alone, np.array([90]), 0.0)[0]
    assert found == pytest.approx(-1e4 / (rows.bid_N[90] + 0.5) - 1.0)
