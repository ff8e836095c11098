import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model_code.benchmark.slices import (
    DAY_NS,
    HOUR_NS,
    WindowContext,
    sliced,
    worst,
    worst_flip_fraction,
)
from tests.support.benchmark import context

COUNT = 800
RANDOM = np.random.default_rng(0)
P = RANDOM.uniform(size=COUNT)
LABEL = (RANDOM.uniform(size=COUNT) < P).astype(np.int8)
SPREAD = np.where(np.arange(COUNT) % 4 == 0, 3.0, 1.0)
CONTEXT = WindowContext(
    timestamp_ns_N=20_000 * DAY_NS + (np.arange(COUNT) * 3 * HOUR_NS // COUNT) + 9 * HOUR_NS,
    symbol_N=np.array(["A", "B"]).repeat(COUNT // 2),
    spread_N=SPREAD,
    # one instrument's is far above the other's: quartiles are within each
    volatility_N=RANDOM.uniform(size=COUNT) + np.repeat([0.0, 100.0], COUNT // 2),
)


def by_name(q):
    return {(row.dimension, row.name): row for row in sliced(CONTEXT, LABEL, q, P)}


def test_every_dimension_contains_every_window_once():
    rows = sliced(CONTEXT, LABEL, P, P)
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.dimension] = totals.get(row.dimension, 0) + row.windows
        assert (row.flips, row.accuracy_change, row.max_abs_dp) == (0, 0.0, 0.0)
    assert totals == dict.fromkeys(("volatility", "spread", "hour", "symbol"), COUNT)


def test_slices_are_named_and_counted():
    found = by_name(P)
    assert [found["volatility", f"{n} quartile"].windows for n in ("1st", "4th")] == [200, 200]
    assert found["spread", "one tick"].windows == 600
    assert found["spread", "wider"].windows == 200
    assert {name for dimension, name in found if dimension == "hour"} == {
        "09 UTC",
        "10 UTC",
        "11 UTC",
    }
    inside = slice(0, COUNT // 2)
    assert found["symbol", "A"].auc == pytest.approx(roc_auc_score(LABEL[inside], P[inside]))


def test_spreads_that_are_not_mostly_one_tick_fall_into_quartiles():
    rows = sliced(context(200), LABEL[:200], P[:200], P[:200])
    assert next(row.name for row in rows if row.dimension == "spread") == "one tick"
    wide = WindowContext(
        context(200).timestamp_ns_N,
        context(200).symbol_N,
        np.linspace(1, 9, 200),
        context(200).volatility_N,
    )
    rows = sliced(wide, LABEL[:200], P[:200], P[:200])
    assert [row.windows for row in rows if row.dimension == "spread"] == [50, 50, 50, 50]


def test_a_fault_in_one_slice_is_visible_in_it():
    wider = SPREAD > 1
    found = by_name(np.where(wider, 1 - P, P))
    bad = found["spread", "wider"]
    assert bad.flip_fraction == 1.0
    assert bad.accuracy_change < -0.2
    assert found["spread", "one tick"].flips == 0
    rows = tuple(found.values())
    assert worst_flip_fraction(rows) == 1.0
    assert worst_flip_fraction([row for row in rows if row.windows < 100]) is None


def test_one_class_or_a_non_finite_prediction_gives_no_auc():
    ones = np.ones(COUNT, np.int8)
    assert all(row.auc is None for row in sliced(CONTEXT, ones, P, P))
    found = by_name(np.where(np.arange(COUNT) == 0, np.nan, P))
    assert (found["symbol", "A"].auc, found["symbol", "A"].max_abs_dp) == (None, None)
    assert found["symbol", "A"].flips == 1
    assert found["symbol", "B"].auc is not None


def test_the_worst_windows_come_first():
    q = P.copy()
    q[5], q[7], q[600] = np.nan, 1 - P[7], P[600] + 1e-3
    rows = worst(CONTEXT, LABEL, q, P, count=3)
    assert [row.timestamp_ns for row in rows] == CONTEXT.timestamp_ns_N[[5, 7, 600]].tolist()
    assert (rows[0].probability, rows[0].abs_dp, rows[0].flip) == (None, None, True)
    assert rows[1].flip
    assert rows[1].label == LABEL[7]
    assert rows[2].abs_dp == pytest.approx(1e-3)
    assert (rows[2].symbol, rows[2].flip) == ("B", False)


def test_sessions_are_instruments_days():
    two_days = WindowContext(
        np.array([0, 1, DAY_NS, DAY_NS + 1, 2]),
        np.array(["A", "B", "A", "A", "A"]),
        np.ones(5),
        np.ones(5),
    )
    assert len(set(two_days.sessions().tolist())) == 3
    assert two_days.sessions()[0] == two_days.sessions()[4]
    assert two_days.time_order().tolist() == [0, 1, 4, 2, 3]
