"""The kernel's formulas on hand-made ticks, resets, missing values and refusals."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.features import kernel
from model_code.features.definition import (
    ALL,
    DEPTH_AT,
    EXOGENOUS_AT,
    FEATURE_SETS,
    FEATURES_VERSION,
    OWN,
    columns,
    look_at,
    looks_at_depth,
    names,
)
from model_code.features.pairs import CHANNELS
from model_code.features.supplements import depth, exogenous
from model_code.settings import FEATURE_COUNT

Runner = Callable[..., int]
NAMES = names("solo")
GAP_NS = 10_000_000_000
NOON = 1_723_118_400_000_000_000
DEFAULTS = {"bid_size": 3.0, "ask_size": 1.0, "last_trade": 100.0, "vwap": 100.0}
NONE = {"bid_size": math.nan, "ask_size": math.nan, "last_trade": math.nan, "vwap": math.nan}


def rows(*ticks: dict[str, float]) -> np.ndarray:
    """Records of dtype TICK; defaults: 100.0/100.5, 3 x 1, no trades."""
    records = np.zeros(len(ticks), kernel.TICK)
    for i, tick in enumerate(ticks):
        full = {
            "timestamp": NOON + i * 1000,
            "bid_price": 100.0,
            "ask_price": 100.5,
            "feature_ema_1min": 0.5,
            **DEFAULTS,
            **tick,
        }
        for name, value in full.items():
            records[i][name] = value
    return records


@pytest.fixture(params=["compiled", "python"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The compiled kernel, then the same source as plain Python, which coverage can measure."""
    run(rows({}))  # compiled before anything below is replaced
    if request.param == "python":
        for name, value in list(vars(kernel).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(kernel, name, value.py_func)
    compiled: Runner = kernel.run
    return compiled


def run(
    ticks: np.ndarray, runner: Runner = kernel.run
) -> tuple[list[dict[str, float]], list[int], int]:
    features = np.full((len(ticks), FEATURE_COUNT), np.nan, np.float32)
    segment = np.full(len(ticks), -9, np.int32)
    states = np.empty(len(ticks), kernel.STATE)
    taken = runner(kernel.new_state(), ticks, GAP_NS, features, segment, states)
    named = [dict(zip(NAMES, row.tolist(), strict=True)) for row in features]
    return named, segment.tolist(), taken


def slog(x: float) -> float:
    return math.copysign(math.log1p(abs(x)), x)


def test_every_set_has_sixteen_features_named_and_explained() -> None:
    assert FEATURE_SETS["solo"] == OWN
    for chosen in FEATURE_SETS:
        assert len(set(names(chosen))) == FEATURE_COUNT
        assert [ALL[place].name for place in columns(chosen)] == names(chosen)
        assert "volatility" in names(chosen)  # the benchmark's slices need it
    assert all(f.name and f.formula and f.unit and f.source for f in ALL)
    assert len(FEATURES_VERSION) == 12


def test_what_is_seen_of_others_is_named_in_the_kernels_order() -> None:
    seen = [feature.name for feature in ALL]
    expected = [f"{place}_{channel}" for place in ("leader", "second") for channel in CHANNELS]
    expected += [f"depth_{channel}" for channel in depth.CHANNELS]
    assert seen[len(OWN) : EXOGENOUS_AT] == expected
    assert seen[DEPTH_AT] == "depth_imbalance_2"
    assert seen[EXOGENOUS_AT :: exogenous.WIDTH] == [f"exogenous_{k}" for k in (1, 2, 3, 4)]
    assert seen[EXOGENOUS_AT + 1 :: 2] == [f"exogenous_{k}_age" for k in (1, 2, 3, 4)]
    assert {chosen for chosen in FEATURE_SETS if looks_at_depth(chosen)} == {"depth"}
    assert {chosen: look_at(chosen) for chosen in FEATURE_SETS} == {
        "solo": 0,
        "paired": 2,
        "venues": 1,
        "depth": 0,
        "exogenous": 0,
    }


def test_every_formula_on_a_bid_that_moves_up(runner: Runner) -> None:
    second = {
        "timestamp": NOON + 7000,
        "bid_price": 101.0,
        "ask_price": 102.0,
        "bid_size": 2.0,
        "ask_size": 6.0,
        "last_trade": 100.5,
        "vwap": 99.5,
        "feature_ema_1min": 0.75,
        "buy_volume": 4.0,
        "sell_volume": 1.0,
        "trade_count": 2.0,
    }
    (first, found), segment, taken = run(rows({}, second), runner)
    tick, size = 0.5, 2.0 + kernel.SIZE_ALPHA * (4.0 - 2.0)
    mid, move = 101.5, 1.25
    start = (1 - kernel.VARIANCE_ALPHA) * 0.25**2  # half a tick, then no move on the first row
    sigma2 = start + kernel.VARIANCE_ALPHA * (move**2 - start)
    offset = mid - 99.5
    mean_offset = 0.25 + kernel.VWAP_ALPHA * (offset - 0.25)
    expected = {
        "spread": slog(1.0 / tick),
        "queue_imbalance": -0.5,
        "bid_size": math.log(2.0 / size),
        "ask_size": math.log(6.0 / size),
        "bid_move": slog(1.0 / tick),
        "ask_move": slog(1.5 / tick),
        "mid_move": move / math.sqrt(start),
        "volatility": math.log(math.sqrt(sigma2) / tick),
        "time_gap": math.log1p(7.0),
        # the bid rose: its new size joined; the ask rose: its old size left
        "order_flow_imbalance": slog((2.0 + 1.0) / size),
        "signed_trade_volume": slog(3.0 / size),
        "trade_volume": math.log1p(5.0 / size),
        "trade_count": math.log1p(2.0),
        "last_trade_offset": slog((100.5 - mid) / tick),
        "vwap_offset": slog((offset - mean_offset) / tick),
        "ema_1min": 0.25 - kernel.SIZE_ALPHA * 0.25,
    }
    assert taken == 2
    assert segment == [0, 0]
    assert found == pytest.approx(expected, rel=1e-6)
    changes = ("bid_move", "ask_move", "mid_move", "time_gap", "order_flow_imbalance")
    assert [first[name] for name in changes] == [0.0] * 5
    assert first["volatility"] == pytest.approx(math.log(math.sqrt(start) / tick))


def test_order_flow_of_quotes_that_stay_is_the_change_of_sizes() -> None:
    found = run(rows({}, {"bid_size": 5.0, "ask_size": 4.0}))[0][1]
    size = 2.0 + kernel.SIZE_ALPHA * 2.5
    assert found["order_flow_imbalance"] == pytest.approx(slog((2.0 - 3.0) / size))


@pytest.mark.parametrize(
    ("step_ns", "segment"),
    [(GAP_NS, 0), (GAP_NS + 1, 1), (12 * 3_600_000_000_000, 1)],
    ids=["the gap itself", "a longer gap", "midnight"],
)
def test_segments_begin_after_a_gap_and_at_midnight(step_ns: int, segment: int) -> None:
    ticks = rows({"bid_price": 90.0}, {"timestamp": NOON + step_ns, "trade_count": 3.0})
    named, segments, _ = run(ticks)
    assert segments == [0, segment]
    alone = run(ticks[1:])[0][0]
    assert (named[1] == alone) is (segment == 1)


def test_midnight_resets_without_any_gap() -> None:
    midnight = NOON + 12 * 3_600_000_000_000
    ticks = rows({"timestamp": midnight - 1}, {"timestamp": midnight})
    assert run(ticks)[1] == [0, 1]


def test_missing_inputs_are_neutral(runner: Runner) -> None:
    bare = {**NONE, "feature_ema_1min": math.nan, "buy_volume": 2.0, "trade_count": 1.0}
    named, _, taken = run(rows(bare, bare, {}, bare), runner)
    sized = ("queue_imbalance", "bid_size", "ask_size", "order_flow_imbalance")
    other = ("last_trade_offset", "vwap_offset", "ema_1min")
    assert taken == 4
    for row in (0, 1, 3):
        assert [named[row][name] for name in (*sized, *other)] == [0.0] * 7
    # no size known yet: volume has no scale; known from row 2 on
    assert named[1]["trade_volume"] == 0.0
    assert named[3]["trade_volume"] == pytest.approx(math.log1p(2.0 / 2.0))
    assert named[2]["order_flow_imbalance"] == 0.0
    assert named[2]["queue_imbalance"] == 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"ask_price": 100.0},
        {"bid_price": 101.0},
        {"bid_price": 0.0},
        {"bid_price": math.nan},
        {"ask_price": math.nan},
        {"ask_price": math.inf},
        {"bid_size": 0.0},
        {"ask_size": -1.0},
        {"ask_size": math.inf},
        {"buy_volume": -1.0},
        {"sell_volume": math.nan},
        {"trade_count": math.nan},
        {"timestamp": NOON - 1},
    ],
    ids=str,
)
def test_invalid_rows_are_refused_and_change_nothing(bad: dict[str, float], runner: Runner) -> None:
    assert run(rows({}, bad, {}), runner)[2] == 1
    state, features, segment = kernel.new_state(), np.empty((1, 16), np.float32), np.empty(1, "i4")
    states = np.empty(1, kernel.STATE)
    runner(state, rows({}), GAP_NS, features, segment, states)
    before = state.copy()
    assert runner(state, rows(bad), GAP_NS, features, segment, states) == 0
    assert state == before


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


@st.composite
def clean_ticks(draw: st.DrawFn) -> np.ndarray:
    """Any ticks that pass validation, extreme values included."""
    ticks = []
    now = draw(st.integers(0, 2 * 10**18))
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0, 1, 10**6, GAP_NS, 10**11]))
        bid = draw(number(1e-9, 1e9))
        tick: dict[str, Any] = {"timestamp": now, "bid_price": bid}
        tick["ask_price"] = max(np.nextafter(bid, np.inf), bid * (1 + draw(number(0.0, 1.0))))
        for name in ("bid_size", "ask_size", "last_trade", "vwap"):
            tick[name] = draw(st.one_of(st.just(math.nan), number(1e-9, 1e12)))
        tick["feature_ema_1min"] = draw(st.one_of(st.just(math.nan), number(-1e6, 1e6)))
        for name in ("buy_volume", "sell_volume"):
            tick[name] = draw(number(0.0, 1e12))
        tick["trade_count"] = draw(st.integers(0, 2**31 - 1))
        ticks.append(tick)
    return rows(*ticks)


@settings(max_examples=150, deadline=None)
@given(clean_ticks())
def test_clean_ticks_never_give_nan_or_infinity(ticks: np.ndarray) -> None:
    named, _, taken = run(ticks)
    assert taken == len(ticks)
    assert all(abs(value) <= kernel.LIMIT for row in named for value in row.values())


@settings(max_examples=50, deadline=None)
@given(clean_ticks(), st.integers(-8, 8), st.integers(-8, 8))
def test_no_feature_depends_on_the_scale_of_prices_or_sizes(
    ticks: np.ndarray, price: int, size: int
) -> None:
    scaled = ticks.copy()
    for name in ("bid_price", "ask_price", "last_trade", "vwap"):
        scaled[name] *= 2.0**price  # powers of two: exact in floating point
    for name in ("bid_size", "ask_size", "buy_volume", "sell_volume"):
        scaled[name] *= 2.0**size
    assert run(scaled)[0] == run(ticks)[0]
