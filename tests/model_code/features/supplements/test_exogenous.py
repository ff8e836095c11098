"""Exogenous series as features: strictly earlier, however old, live as batch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from model_code.errors import DataError
from model_code.features import batch
from model_code.features.definition import names
from model_code.features.incremental import FeatureState
from model_code.features.supplements import exogenous
from model_code.features.supplements.exogenous import read_series
from model_code.market.store import open_market
from model_code.settings import FeatureSpec
from tests.support.frames import write_series
from tests.support.market import hive, ticks

MS = 1_000_000
Look = Callable[..., object]
NAMES = ("macro.rate", "macro.vix")
SPEC = FeatureSpec(feature_set="exogenous", exogenous=NAMES)
SEEN = [name.startswith("exogenous_") for name in names("exogenous")]


def rows_at(stamps: list[int], values: list[float]) -> np.ndarray:
    rows_M = np.empty(len(stamps), exogenous.ROW)
    rows_M["timestamp"], rows_M["value"] = stamps, values
    return rows_M


def seen(now: int, rows_M: np.ndarray) -> list[float]:
    found_2 = np.full(2, 7.0, np.float32)
    exogenous.look(now, rows_M, len(rows_M), found_2)
    values: list[float] = found_2.tolist()
    return values


@pytest.mark.parametrize("compiled", [True, False])
def test_the_newest_strictly_earlier_value_and_its_age(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    if not compiled:
        for name, value in list(vars(exogenous).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(exogenous, name, value.py_func)
    rows_M = rows_at([10 * MS, 20 * MS, 20 * MS, 30 * MS], [-3.0, 1.0, 2.0, 1e300])
    day = 86_400_000 * MS
    assert seen(10 * MS, rows_M) == [0.0, exogenous.NEVER]
    assert seen(20 * MS, rows_M) == pytest.approx([-math.log(4), math.log1p(10_000)])
    assert seen(25 * MS, rows_M) == pytest.approx([math.log(3), math.log1p(5000)])
    assert seen(30 * MS + 1, rows_M) == pytest.approx([32.0, math.log1p(0.001)], abs=1e-6)
    assert seen(30 * MS + 7 * day, rows_M) == pytest.approx([32.0, math.log1p(7 * day / 1000)])
    assert seen(5, rows_at([], [])) == [0.0, exogenous.NEVER]


def look_ahead(look: Look) -> bool:
    """Whether rows of the same stamp or later matter."""
    found = []
    for later, values in (([5 * MS], [2.0]), ([5 * MS], [-9.0]), ([5 * MS, 6 * MS], [-9.0, 4.0])):
        found_2 = np.empty(2, np.float32)
        rows_M = rows_at([MS, *later], [1.0, *values])
        look(5 * MS, rows_M, len(rows_M), found_2)
        found.append(found_2.tolist())
    return not found[0] == found[1] == found[2]


def test_a_row_of_the_same_stamp_says_nothing_and_a_planted_look_ahead_is_caught() -> None:
    assert not look_ahead(exogenous.look)
    assert look_ahead(lambda now, *rest: exogenous.look(now + 1, *rest))


def test_live_equals_batch_bit_for_bit() -> None:
    table = ticks(500, 3)
    stamp_N = table["timestamp"].to_numpy().astype(np.int64)
    series = [
        rows_at(stamp_N[9::7].tolist(), np.sin(np.arange(len(stamp_N[9::7]))).tolist()),
        rows_at((stamp_N[::90] + 1).tolist(), [5.0, -1.0, 0.25, 3.0, 7.0, 2.0]),
    ]
    whole = batch.compute(table, SPEC, series=series).features_NF
    state, live = FeatureState(SPEC), []
    columns = [
        table[name].to_numpy()
        for name in ("bid_price", "ask_price", "bid_size", "ask_size", "last_trade", "vwap",
                     "feature_ema_1min", "buy_volume", "sell_volume", "trade_count")
    ]  # fmt: skip
    places = [0, 0]
    for i, stamp in enumerate(stamp_N.tolist()):
        for k, rows_M in enumerate(series):
            while places[k] < len(rows_M) and rows_M["timestamp"][places[k]] <= stamp:
                row = rows_M[places[k]]
                state.update_exogenous(NAMES[k], int(row["timestamp"]), float(row["value"]))
                places[k] += 1
        live.append(state.update(stamp, *(float(column[i]) for column in columns)).copy())
    assert np.array_equal(np.stack(live), whole)
    seen_NF = whole[:, SEEN]
    assert (seen_NF[:, :4].std(axis=0) > 0).all()
    assert not seen_NF[:, 4:].any()  # no third and fourth series
    solo = FeatureSpec(feature_set="solo")
    plain = batch.compute(table, solo).features_NF
    assert np.array_equal(batch.compute(table, solo, series=series).features_NF, plain)
    assert (seen_NF[:9, 1] == exogenous.NEVER).all()


def test_unfit_live_rows_are_refused() -> None:
    state = FeatureState(SPEC)
    state.update_exogenous("macro.vix", 5, 1.0)
    with pytest.raises(DataError, match="the value nan is not finite"):
        state.update_exogenous("macro.vix", 6, math.nan)
    with pytest.raises(DataError, match=r"no series macro\.x: the set has macro\.rate, macro\.vix"):
        state.update_exogenous("macro.x", 6, 1.0)
    with pytest.raises(DataError, match="clock goes back"):
        state.update_exogenous("macro.vix", 4, 1.0)


def test_the_stores_series_are_read(tmp_path) -> None:
    uri = hive(tmp_path, 20)
    write_series(uri, "macro", [1, 2], rate=[1.0, None], vix=[3.0, 4.0])
    rate_M, vix_M = read_series(open_market(uri), NAMES)
    assert rate_M.tolist() == [(1, 1.0)]
    assert vix_M.tolist() == [(1, 3.0), (2, 4.0)]
    assert read_series(None, ()) == ()
    with pytest.raises(DataError, match=r"needs a store with macro\.rate, macro\.vix"):
        read_series(None, NAMES)


@pytest.mark.parametrize(
    "values",
    [
        {"feature_set": "exogenous"},
        {"feature_set": "solo", "exogenous": ["macro.vix"]},
        {"exogenous": ["macro.vix"]},
        {"feature_set": "exogenous", "exogenous": ["macro"]},
        {"feature_set": "exogenous", "exogenous": ["../macro.vix"]},
        {"feature_set": "exogenous", "exogenous": ["m.a", "m.b", "m.c", "m.d", "m.e"]},
    ],
)
def test_a_specification_names_one_to_four_series_of_their_own_set(
    values: dict[str, object],
) -> None:
    with pytest.raises(ValidationError, match="exogenous"):
        FeatureSpec.model_validate(values)
