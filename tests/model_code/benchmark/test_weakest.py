"""The slices in which a model ranks worst."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model_code.benchmark.slices import DAY_NS, HOUR_NS, WindowContext
from model_code.benchmark.weakest import weakest

COUNT = 1600
RANDOM = np.random.default_rng(0)
P = RANDOM.uniform(size=COUNT)
LABEL = (RANDOM.uniform(size=COUNT) < P).astype(np.int8)
SYMBOL = np.array(["A", "B"]).repeat(COUNT // 2)
HOUR = 9 + np.arange(COUNT) % 4
CONTEXT = WindowContext(
    timestamp_ns_N=20_000 * DAY_NS + HOUR * HOUR_NS,
    symbol_N=SYMBOL,
    spread_N=np.ones(COUNT),
    volatility_N=RANDOM.uniform(size=COUNT),
)
BAD = (SYMBOL == "B") & (HOUR == 11)


def test_a_slice_with_reversed_ranks_comes_first_with_its_baseline() -> None:
    reversed_there = np.where(BAD, 1 - P, P)
    rows, compared = weakest(CONTEXT, LABEL, reversed_there, P)
    assert compared == 2 * (4 + 4)
    assert len(rows) == 8
    first = rows[0]
    assert (first.symbol, first.name, first.windows) == ("B", "11 UTC", 200)
    assert first.auc == pytest.approx(roc_auc_score(LABEL[BAD], 1 - P[BAD]))
    assert first.boosting_auc == pytest.approx(1 - first.auc)
    assert first.base_rate == pytest.approx(LABEL[BAD].mean())
    assert [row.auc for row in rows] == sorted(row.auc for row in rows)
    assert first.auc < 0.5 < rows[-1].auc


def test_slices_with_few_windows_or_few_of_a_class_do_not_count() -> None:
    rare = np.where(BAD, np.arange(COUNT) < COUNT // 2, LABEL).astype(np.int8)  # none in the slice
    rows, compared = weakest(CONTEXT, rare, P, count=99)
    assert len(rows) == compared == 15
    assert ("B", "11 UTC") not in {(row.symbol, row.name) for row in rows}
    assert all(row.boosting_auc is None for row in rows)
    few = slice(0, 150)
    part = WindowContext(
        CONTEXT.timestamp_ns_N[few], SYMBOL[few], CONTEXT.spread_N[few], CONTEXT.volatility_N[few]
    )
    assert weakest(part, LABEL[few], P[few]) == ((), 0)
