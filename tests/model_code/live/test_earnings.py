import numpy as np
import pytest

from model_code.features.venues import Quotes
from model_code.live.earnings import Earned, earned
from model_code.live.replay import Outcome
from model_code.settings import FeatureSpec

MS = 1_000_000


def outcome(bid: list[float], ends: list[int], positive: list[int]) -> Outcome:
    """Quotes 10 ms apart, one unit wide."""
    bid_N = np.array(bid)
    quotes = Quotes(np.arange(len(bid)) * 10 * MS, bid_N, bid_N + 1.0)
    return Outcome(
        quotes, np.zeros(len(bid), np.int32), np.array(ends), np.array(positive, np.int64)
    )


def test_the_fill_is_at_the_quotes_of_its_own_time() -> None:
    one = outcome([100.0, 100.0, 103.0, 103.0], [0, 1], [0])
    spec = FeatureSpec(label="executable-roundtrip", horizon_ms=100.0, cost_bps=5.0)
    at_once, late = (earned({"A": one}, spec, delay)["A"] for delay in (0.0, 20.0))
    # bought at 101 and sold at 103, less 5 bps; 20 ms later only the spread is left to lose
    each = 1e4 * 2.0 / 100.5 - 5.0
    assert (at_once.chosen, at_once.windows) == (1, 2)
    assert [at_once.chosen_bps, at_once.windows_bps] == pytest.approx([each, 2 * each])
    assert late.chosen_bps == pytest.approx(-1e4 / 103.5 - 5.0)
    assert at_once + late == Earned(
        2, at_once.chosen_bps + late.chosen_bps, 4, at_once.windows_bps + late.windows_bps
    )


def test_nothing_chosen_earns_nothing() -> None:
    one = outcome([100.0, 100.0], [1], [])
    found = earned({"A": one}, FeatureSpec(label="mid-move"), 1.0)["A"]
    assert (found.chosen, found.chosen_bps, found.windows) == (0, 0.0, 1)


def test_venues_trade_with_each_other() -> None:
    here, there = outcome([100.0, 100.0], [0], [0]), outcome([104.0, 104.0], [], [])
    spec = FeatureSpec(label="cross-venue", horizon_ms=100.0)
    found = earned({"EURUSD.a": here, "EURUSD.b": there}, spec, 1.0)
    assert found["EURUSD.a"].chosen_bps == pytest.approx(1e4 * 3.0 / 100.5)
    assert found["EURUSD.b"].windows == 0
