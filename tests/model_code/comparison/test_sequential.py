"""Sequential tests: false stops stay below alpha at every look, bad rates are found in time."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.comparison.sequential import (
    bounds,
    judge,
    log_evidence_above,
    log_evidence_below,
)

ALPHA = 0.05
LOOKS = 4000
RUNS = 400
MOST = ALPHA + 3 * (ALPHA * (1 - ALPHA) / RUNS) ** 0.5  # three standard errors of a simulation


def counts(rate: float, seed: int = 7) -> NDArray[np.int64]:
    """Hits (runs, looks) after each request."""
    hits = np.random.default_rng(seed).random((RUNS, LOOKS)) < rate
    return np.cumsum(hits, axis=1)


TRIALS = np.arange(1, LOOKS + 1)


@pytest.mark.parametrize("limit", [0.01, 0.2, 0.5])
def test_false_stops_at_the_limit_stay_below_alpha_where_the_point_estimate_exceeds_it(
    limit: float,
) -> None:
    hits = counts(limit)
    stopped = (log_evidence_above(hits, TRIALS, limit) >= -np.log(ALPHA)).any(axis=1)
    again = (hits / TRIALS > limit)[:, 20:].any(axis=1)  # the rule before: after 20 responses
    assert stopped.mean() <= MOST
    assert again.mean() > 0.5


@pytest.mark.parametrize("limit", [0.01, 0.2, 0.5])
def test_a_limit_is_falsely_shown_met_with_at_most_alpha(limit: float) -> None:
    met = log_evidence_below(counts(limit), TRIALS, limit) >= -np.log(ALPHA)
    assert met.any(axis=1).mean() <= MOST


def test_a_rate_that_changes_within_its_limit_is_not_stopped() -> None:
    """The rate jumps between 0 and the limit, depending on what was seen."""
    rng, limit = np.random.default_rng(3), 0.2
    hits, last = np.zeros((RUNS, LOOKS), bool), np.zeros(RUNS, bool)
    for look in range(LOOKS):
        last = hits[:, look] = rng.random(RUNS) < np.where(last, 0.0, limit)
    evidence = log_evidence_above(np.cumsum(hits, axis=1), TRIALS, limit)
    assert (evidence >= -np.log(ALPHA)).any(axis=1).mean() <= MOST


@pytest.mark.parametrize(
    ("limit", "rate", "within"),
    [(0.2, 0.4, 250), (0.2, 0.3, 900), (0.5, 0.8, 110), (0.5, 1.0, 13), (0.01, 0.1, 300)],
)
def test_a_bad_rate_is_stopped_within_the_stated_number_of_requests(
    limit: float, rate: float, within: int
) -> None:
    """At the level of one of the tests of a promotion with three steps; docs/promotion.md."""
    level = ALPHA / 28
    evidence = log_evidence_above(counts(rate)[:, :within], TRIALS[:within], limit)
    assert (evidence >= -np.log(level)).any(axis=1).mean() >= 0.99


def test_one_hit_violates_a_limit_of_zero_and_no_number_of_misses_proves_it() -> None:
    assert judge(0, 0, 0.0, ALPHA) == "open"
    assert judge(1, 10_000, 0.0, ALPHA) == "violated"
    assert judge(0, 10_000, 0.0, ALPHA) == "open"


def test_findings() -> None:
    assert judge(0, 0, 0.2, ALPHA) == "open"
    assert judge(0, 100, 0.2, ALPHA) == "met"
    assert judge(20, 100, 0.2, ALPHA) == "open"
    assert judge(60, 100, 0.2, ALPHA) == "violated"
    assert judge(100, 100, 1.0, ALPHA) == "met"
    assert judge(100_000, 100_000, 1e-9, ALPHA) == "violated"


def test_bounds_contain_the_rate_at_every_look_and_agree_with_the_findings() -> None:
    assert bounds(0, 0, ALPHA) == (0.0, 1.0)
    outside = 0
    for run in counts(0.3)[:60, :: LOOKS // 40]:
        found = [
            bounds(int(hits), int(at), ALPHA)
            for hits, at in zip(run, TRIALS[:: LOOKS // 40], strict=True)
        ]
        outside += any(not low <= 0.3 <= high for low, high in found)
    assert outside / 60 <= 2 * ALPHA
    low, high = bounds(30, 100, ALPHA)
    assert 0.15 < low < 0.3 < high < 0.45
    assert judge(30, 100, low - 1e-6, ALPHA) == "violated"
    assert judge(30, 100, low + 1e-6, ALPHA) == "open"
    assert judge(30, 100, high + 1e-6, ALPHA) == "met"
