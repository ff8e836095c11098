"""The declared mirror image of every feature: the same market with its sides swapped."""

import numpy as np
import pytest

from model_code.errors import ConfigError
from model_code.features import kernel, pairs
from model_code.features.definition import (
    ALL,
    EXOGENOUS_AT,
    FEATURE_SETS,
    OWN,
    has_mirror,
    mirror,
    names,
)
from model_code.features.labels import crossing_begins, round_trip
from model_code.features.supplements import depth
from model_code.features.venues import Quotes, crossings
from model_code.market.level2.rows import LEVELS, DepthRows
from model_code.settings import FEATURE_COUNT, FeatureSetName

GAP_NS = 10_000_000_000
CENTRE = 32768.0  # p -> CENTRE - p; with prices in halves every difference is exact in float64
INEXACT = ("leader_basis", "second_basis")


def rows(seed: int, count: int = 400) -> np.ndarray:
    """Random quotes and trades around CENTRE / 2; a few sizes, trades and averages are missing."""
    rng = np.random.default_rng(seed)
    found = np.zeros(count, kernel.TICK)
    found["timestamp"] = np.cumsum(rng.integers(0, 60, count)) * 1_000_000
    found["bid_price"] = CENTRE / 2 + np.cumsum(rng.integers(-2, 3, count)) * 0.5
    found["ask_price"] = found["bid_price"] + 0.5 * rng.integers(1, 4, count)
    for name in ("bid_size", "ask_size"):
        found[name] = rng.integers(1, 9, count)
    found["bid_size"][rng.random(count) < 0.03] = np.nan
    found["ask_size"][np.isnan(found["bid_size"])] = np.nan  # both are missing or neither
    for name in ("buy_volume", "sell_volume", "trade_count"):
        found[name] = rng.integers(0, 4, count)
    for name in ("last_trade", "vwap", "feature_ema_1min"):
        found[name] = found["bid_price"] + 0.5 * rng.integers(-4, 5, count)
        found[name][rng.random(count) < 0.1] = np.nan
    return found


def mirrored(found: np.ndarray) -> np.ndarray:
    """The same rows with the sides swapped."""
    other = found.copy()
    for name, source in (("bid", "ask"), ("ask", "bid")):
        other[f"{name}_price"] = CENTRE - found[f"{source}_price"]
        other[f"{name}_size"] = found[f"{source}_size"]
    other["buy_volume"], other["sell_volume"] = found["sell_volume"], found["buy_volume"]
    for name in ("last_trade", "vwap", "feature_ema_1min"):
        other[name] = CENTRE - found[name]
    return other


def books(quotes: np.ndarray) -> DepthRows:
    """Random books around the quotes, half a millisecond before each."""
    rng = np.random.default_rng(9)
    count = len(quotes)
    away_NL = 0.5 * np.cumsum(rng.integers(1, 4, (2, count, LEVELS)), axis=2) - 0.5
    size_NL = rng.integers(1, 9, (2, count, LEVELS)).astype(np.float64)
    size_NL[0, ::5, 6:] = np.nan
    away_NL[0, ::5, 6:] = np.nan
    bid_NL = quotes["bid_price"][:, None] - away_NL[0]
    ask_NL = quotes["ask_price"][:, None] + away_NL[1]
    return DepthRows(quotes["timestamp"] - 500_000, (bid_NL, size_NL[0], ask_NL, size_NL[1]))


def swapped_books(rows: DepthRows) -> DepthRows:
    """The same books with the sides swapped."""
    bid_NL, bid_size_NL, ask_NL, ask_size_NL = rows.levels
    return rows._replace(levels=(CENTRE - ask_NL, ask_size_NL, CENTRE - bid_NL, bid_size_NL))


def every_feature(own: np.ndarray, others: list[np.ndarray], book: DepthRows) -> np.ndarray:
    """The features (N, EXOGENOUS_AT) of an instrument that looks at two others and at its book."""
    parts, states = [], []
    for ticks in (own, *others):
        own_NK = np.empty((len(ticks), len(OWN)), np.float32)
        state_N = np.empty(len(ticks), kernel.STATE)
        segment_N = np.empty(len(ticks), np.int32)
        taken = kernel.run(kernel.new_state(), ticks, GAP_NS, own_NK, segment_N, state_N)
        assert taken == len(ticks)
        states.append(state_N)
        parts.append(own_NK)
    seen = []
    for state_N in states[1:]:
        seen_NP = np.empty((len(own), pairs.WIDTH), np.float32)
        pairs.look_all(states[0], pairs.new_pair(), state_N, len(state_N), GAP_NS, seen_NP)
        seen.append(seen_NP)
    seen_ND = np.empty((len(own), depth.WIDTH), np.float32)
    rows_S = depth.summaries(book)
    depth.look_all(states[0], rows_S, len(rows_S), GAP_NS, seen_ND)
    return np.concatenate([parts[0], *seen, seen_ND], axis=1)


@pytest.fixture(scope="module")
def both() -> tuple[np.ndarray, np.ndarray]:
    """Every feature of three instruments, and of their mirror images."""
    market = [rows(seed) for seed in (1, 2, 3)]
    swapped = [mirrored(part) for part in market]
    book = books(market[0][::3])
    return (
        every_feature(market[0], market[1:], book),
        every_feature(swapped[0], swapped[1:], swapped_books(book)),
    )


@pytest.mark.parametrize("name", [feature.name for feature in ALL[:EXOGENOUS_AT]])
def test_features_of_the_mirrored_market_are_the_mirrored_features(
    both: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    before_NK, after_NK = both
    place = {feature.name: i for i, feature in enumerate(ALL)}
    declared = ALL[place[name]].mirror
    sign = -1.0 if declared.startswith("-") else 1.0
    expected_N = sign * before_NK[:, place[declared.lstrip("-") or name]]
    found_N = after_NK[:, place[name]]
    assert np.ptp(found_N) > 0.0, "a constant would prove nothing"
    # a basis is the logarithm of a ratio of prices: equal only to first order
    tolerance = 0.1 if name in INEXACT else 1e-5
    np.testing.assert_allclose(found_N, expected_N, atol=tolerance)
    if name in INEXACT:
        assert np.abs(found_N - expected_N).max() > 1e-5
        assert np.corrcoef(found_N, expected_N)[0, 1] > 0.9999


def test_the_mirror_image_of_a_series_is_not_known() -> None:
    assert [chosen for chosen in FEATURE_SETS if not has_mirror(chosen)] == ["exogenous"]
    with pytest.raises(ConfigError, match="the feature set exogenous has no mirror image"):
        mirror("exogenous")


@pytest.mark.parametrize("feature_set", [name for name in FEATURE_SETS if has_mirror(name)])
def test_each_set_contains_its_mirror_image_and_mirroring_twice_changes_nothing(
    feature_set: FeatureSetName,
) -> None:
    column_F, sign_F = mirror(feature_set)
    x_NF = np.random.default_rng(0).normal(size=(5, FEATURE_COUNT)).astype(np.float32)
    once_NF = x_NF[:, column_F] * sign_F
    np.testing.assert_array_equal(once_NF[:, column_F] * sign_F, x_NF)
    assert not np.array_equal(once_NF, x_NF)
    known = {feature.name: feature.mirror for feature in ALL}
    chosen = names(feature_set)
    assert [chosen[i] for i in column_F] == [known[n].lstrip("-") or n for n in chosen]


def test_labels_without_a_direction_stay_at_zero_cost() -> None:
    market = rows(4, 2000)
    swapped = mirrored(market)
    segment_N = np.zeros(len(market), np.int32)
    before_N, after_N = (
        round_trip(part["timestamp"], part["bid_price"], part["ask_price"], 100.0, 0.0)
        for part in (market, swapped)
    )
    assert {0, 1} <= set(before_N.tolist())
    np.testing.assert_array_equal(before_N, after_N)

    there = rows(5, 2000)
    crossed = []
    for here, other in ((market, there), (swapped, mirrored(there))):
        quotes = {
            name: Quotes(part["timestamp"], part["bid_price"], part["ask_price"])
            for name, part in (("A.x", here), ("A.y", other))
        }
        begins_E = crossings(quotes, 0.0, GAP_NS)
        crossed.append(crossing_begins(market["timestamp"], begins_E, 100.0, segment_N))
    assert {0, 1} <= set(crossed[0].tolist())
    np.testing.assert_array_equal(crossed[0], crossed[1])
