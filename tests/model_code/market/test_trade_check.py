"""Numbers one by one and as arrays give the same."""

import math

import numpy as np
import pytest

from model_code.market.trade_check import (
    classify,
    classify_all,
    off_band,
    two_sided,
    usable,
)

VALUES = [1.0, 100.0, 0.0, -1.0, math.nan, math.inf, -math.inf]
PAIRS = [(one, other) for one in VALUES for other in VALUES]


@pytest.mark.parametrize("rule", [usable, two_sided])
def test_one_by_one_equals_all_at_once(rule: object) -> None:
    assert callable(rule)
    one, other = np.array(PAIRS).T
    assert [bool(rule(a, b)) for a, b in PAIRS] == rule(one, other).tolist()


def test_what_is_usable() -> None:
    assert [pair for pair in PAIRS if usable(*pair)] == [
        (price, size) for price in (1.0, 100.0) for size in (1.0, 100.0, 0.0)
    ]
    assert [pair for pair in PAIRS if two_sided(*pair)] == [
        (1.0, 1.0),
        (1.0, 100.0),
        (100.0, 100.0),
    ]


def test_the_band_is_the_wider_of_bps_and_spreads() -> None:
    assert off_band(103.0, 100.0, 101.0, 100.0, 1.0)
    assert not off_band(103.0, 100.0, 101.0, 200.0, 1.0)
    assert not off_band(103.0, 100.0, 101.0, 100.0, 50.0)
    assert off_band(98.0, 100.0, 101.0, 100.0, 1.0)


def test_classified_one_by_one_equals_all_at_once() -> None:
    price = np.array([100.0, 100.0, 100.5, 100.5, 100.0, 101.0, 99.0])
    mid = np.array([math.nan, 100.0, 100.5, 101.0, 100.0, 100.0, 99.0])
    previous, change, found = math.nan, 1.0, []
    for one, middle in zip(price.tolist(), mid.tolist(), strict=True):
        sold, change = classify(one, middle, previous, change)
        previous = one
        found.append(sold)
    assert found == classify_all(price, mid).tolist()
    assert found == [False, False, False, True, True, False, True]
