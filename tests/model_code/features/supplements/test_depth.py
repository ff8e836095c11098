"""What an instrument sees of its book: as defined, without look-ahead, live as batch."""

import math
from itertools import pairwise

import numpy as np
import pytest

from model_code.errors import DataError
from model_code.features import batch, kernel
from model_code.features.definition import names
from model_code.features.incremental import FeatureState
from model_code.features.supplements import depth
from model_code.features.supplements.depth import read_depth, summaries
from model_code.market.level2.rows import LEVELS, DepthRows
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import FeatureSpec
from tests.support.frames import depth_rows, write_depth
from tests.support.market import DATES, SYMBOLS, hive, ticks

MS = 1_000_000
GAP_NS = 10_000 * MS
DAY_NS = 86_400_000 * MS
SPEC = FeatureSpec(feature_set="depth")
SEEN = [name.startswith("depth_") for name in names("depth")]


def rows_at(stamps: list[int], seed: int = 0) -> DepthRows:
    """Random books at these stamps."""
    rng = np.random.default_rng(seed)
    count = len(stamps)
    bid_NL = 100.0 - 0.5 * np.cumsum(rng.integers(1, 4, (count, LEVELS)), axis=1)
    ask_NL = 100.0 + 0.5 * np.cumsum(rng.integers(1, 4, (count, LEVELS)), axis=1)
    sizes = rng.integers(1, 9, (2, count, LEVELS)).astype(np.float64)
    for part_NL in (bid_NL, sizes[0]):
        part_NL[::3, 4:] = np.nan
    levels = (bid_NL.astype(np.float64), sizes[0], ask_NL.astype(np.float64), sizes[1])
    return DepthRows(np.array(stamps, np.int64), levels)


def own(stamp: int, tick: float = 0.5) -> np.void:
    """The kernel's state after a quote at this stamp."""
    state_1 = np.zeros(1, kernel.STATE)
    state_1["timestamp"], state_1["tick"] = stamp, tick
    state: np.void = state_1[0]
    return state


def seen(stamp: int, rows: DepthRows, tick: float = 0.5) -> np.ndarray:
    found_D = np.full(depth.WIDTH, 7.0, np.float32)
    depth.look(own(stamp, tick), summaries(rows), len(rows.timestamp_N), GAP_NS, found_D)
    return found_D


def weighted(rows: DepthRows, i: int) -> float:
    weight_L = 1.0 / np.arange(1, LEVELS + 1)
    bids, asks = (float(np.nansum(weight_L * rows.levels[k][i])) for k in (1, 3))
    return (bids - asks) / (bids + asks)


def expected(now: int, rows: DepthRows, tick: float) -> list[float]:
    """The definition in plain numpy."""
    earlier = np.flatnonzero(rows.timestamp_N < now)
    if not len(earlier) or now - rows.timestamp_N[earlier[-1]] > GAP_NS:
        return [0.0] * depth.WIDTH
    i = int(earlier[-1])
    bid_L, bid_size_L, ask_L, ask_size_L = (part_NL[i] for part_NL in rows.levels)
    imbalances = []
    for k in (2, 5, 10):
        bids, asks = np.nansum(bid_size_L[:k]), np.nansum(ask_size_L[:k])
        imbalances.append((bids - asks) / (bids + asks))
    bid_width, ask_width = bid_L[0] - np.nanmin(bid_L), np.nanmax(ask_L) - ask_L[0]
    change = 0.0
    before = np.flatnonzero(rows.timestamp_N < now - 500 * MS)
    if len(before) and now - 500 * MS - rows.timestamp_N[before[-1]] <= GAP_NS:
        change = weighted(rows, i) - weighted(rows, int(before[-1]))
    return [
        *imbalances,
        math.log1p((np.nanmax(ask_L) - np.nanmin(bid_L)) / tick),
        math.log(bids / (bid_width + tick) / (asks / (ask_width + tick))),
        weighted(rows, i),
        change,
        math.log1p((now - rows.timestamp_N[i]) / 1000),
    ]


@pytest.mark.parametrize("compiled", [True, False])
def test_equal_to_the_definition(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:  # the same source as plain Python, which coverage can measure
        for name, value in list(vars(depth).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(depth, name, value.py_func)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        gaps = rng.choice([0, 1, 40, 300, 11_000], 40, p=[0.1, 0.3, 0.3, 0.25, 0.05])
        rows = rows_at((10**15 + np.cumsum(gaps) * MS).tolist(), seed)
        for now in 10**15 + rng.integers(-5, gaps.sum() + 12_000, 60) * MS:
            assert seen(int(now), rows) == pytest.approx(expected(int(now), rows, 0.5), abs=1e-6)


def test_a_book_with_one_level_a_side_is_seen() -> None:
    rows = rows_at([MS])
    for part_NL in rows.levels:
        part_NL[:, 1:] = np.nan
    found_D = seen(2 * MS, rows)
    assert np.isfinite(found_D).all()
    assert found_D[0] == found_D[1] == found_D[2] == found_D[5]


@pytest.mark.parametrize("stamps", [[], [-11_000], [1000], [2000]], ids=str)
def test_absent_old_and_later_rows_are_zeros(stamps: list[int]) -> None:
    start = 20_000
    rows = rows_at([(start + at) * MS for at in stamps])
    assert not seen((start + 1000) * MS, rows).any()


def test_rows_of_another_date_are_not_seen() -> None:
    rows = rows_at([DAY_NS - 700 * MS, DAY_NS - MS, DAY_NS + 2 * MS])
    assert not seen(DAY_NS + MS, rows).any()
    found_D = seen(DAY_NS + 3 * MS, rows)
    assert found_D[7] > 0
    assert found_D[6] == 0.0  # 500 ms before is yesterday


def look_ahead(rows: DepthRows, changed: DepthRows, now: int) -> bool:
    """Whether the rows from `now` on matter."""
    return not np.array_equal(seen(now, rows), seen(now, changed))


def test_rows_of_the_same_stamp_or_later_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = [MS, 5 * MS, 600 * MS, 600 * MS, 700 * MS]
    rows, other = rows_at(stamps, 1), rows_at(stamps, 2)
    mixed = rows_at(stamps, 1)
    for part_NL, later_NL in zip(mixed.levels, other.levels, strict=True):
        part_NL[2:] = later_NL[2:]
    assert seen(600 * MS, rows).any()
    assert not look_ahead(rows, mixed, 600 * MS)
    # a planted look-ahead is caught: with `<=` in place of `<` a row of the same stamp is seen
    for name, value in list(vars(depth).items()):
        if hasattr(value, "py_func"):
            monkeypatch.setattr(depth, name, value.py_func)
    strict = depth._rows_before
    monkeypatch.setattr(
        depth, "_rows_before", lambda rows_S, count, stamp: strict(rows_S, count, stamp + 1)
    )
    assert look_ahead(rows, mixed, 600 * MS)


def test_live_equals_batch_bit_for_bit_in_any_chunks() -> None:
    table, rows = ticks(700, 3), depth_rows(ticks(700, 3), every=3)
    rows = rows._replace(timestamp_N=rows.timestamp_N - MS)  # many stamps equal those of quotes
    whole = batch.compute(table, SPEC, book_S=summaries(rows)).features_NF
    stream, edges = batch.FeatureStream(SPEC, book_S=summaries(rows)), [0, 1, 90, 91, 400, 700]
    parts = [
        stream.update(record).features_NF
        for first, end in pairwise(edges)
        for record in table.slice(first, end - first).to_batches()
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    state, live, place = FeatureState(SPEC), [], 0
    columns = [
        table[name].to_numpy()
        for name in ("bid_price", "ask_price", "bid_size", "ask_size", "last_trade", "vwap",
                     "feature_ema_1min", "buy_volume", "sell_volume", "trade_count")
    ]  # fmt: skip
    for i, stamp in enumerate(table["timestamp"].to_numpy().astype(np.int64).tolist()):
        while place < len(rows.timestamp_N) and rows.timestamp_N[place] <= stamp:
            update = [part_NL[place] for part_NL in rows.levels]
            state.update_depth(int(rows.timestamp_N[place]), *update)
            place += 1
        live.append(state.update(stamp, *(float(column[i]) for column in columns)).copy())
    assert np.array_equal(np.stack(live), whole)
    assert (whole[:, SEEN].std(axis=0) > 0).all()


def test_without_depth_rows_the_features_are_zeros_and_other_sets_ignore_them() -> None:
    table, rows = ticks(50), depth_rows(ticks(50))
    assert not batch.compute(table, SPEC).features_NF[:, SEEN].any()
    solo = FeatureSpec(feature_set="solo")
    assert np.array_equal(
        batch.compute(table, solo).features_NF,
        batch.compute(table, solo, book_S=summaries(rows)).features_NF,
    )


@pytest.mark.parametrize(
    ("part", "values"),
    [(0, [101.0]), (1, [0.0]), (2, [np.nan]), (0, [99.0, 99.5]), (3, [-1.0])],
)
def test_a_live_row_that_is_no_book_is_refused_and_changes_nothing(
    part: int, values: list[float]
) -> None:
    state = FeatureState(SPEC)
    good = [np.array([1.0] * LEVELS) for _ in range(4)]
    good[0], good[2] = 99.0 - np.arange(LEVELS), 100.0 + np.arange(LEVELS)
    bad = [part_L.copy() for part_L in good]
    bad[part][: len(values)] = values
    state.update_depth(5 * MS, good[0], good[1], good[2], good[3])
    with pytest.raises(DataError, match="no book"):
        state.update_depth(6 * MS, bad[0], bad[1], bad[2], bad[3])
    with pytest.raises(DataError, match="ten levels a side"):
        state.update_depth(6 * MS, good[0][:3], good[1][:3], good[2][:3], good[3][:3])
    with pytest.raises(DataError, match="clock goes back"):
        state.update_depth(4 * MS, good[0], good[1], good[2], good[3])
    assert state.update(7 * MS, 99.0, 100.0)[SEEN][7] == pytest.approx(math.log1p(2000))


def test_the_stores_rows_are_read_and_a_missing_day_says_what_to_do(tmp_path) -> None:
    uri = hive(tmp_path, 40)
    write_depth(uri, 40, dates=DATES[:1])
    market, day = open_market(uri), InstrumentDay(DATES[0], SYMBOLS[0])
    found_S, notes = read_depth(market, day)
    assert notes == ()
    np.testing.assert_array_equal(
        found_S, summaries(depth_rows(ticks(40, 0, SYMBOLS[0], DATES[0])))
    )
    for store, date in ((market, DATES[1]), (None, DATES[0])):
        with pytest.raises(DataError, match=f"has none of {SYMBOLS[0]} on {date}") as caught:
            read_depth(store, InstrumentDay(date, SYMBOLS[0]))
        assert f"depth/symbol={SYMBOLS[0]}/date={date}.parquet" in caught.value.remedy
        assert "--set features.feature_set=paired" in caught.value.remedy
