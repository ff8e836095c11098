"""Chunked batch features, and the incremental form against them, bit for bit."""

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError
from model_code.features import batch
from model_code.features.incremental import FeatureState
from model_code.market.schema import TICKS
from model_code.market.store import open_market
from model_code.settings import SEQUENCE_LENGTH, FeatureSpec
from tests.support.market import SYMBOLS, ticks

SPEC = FeatureSpec(feature_set="solo")
TABLE = ticks(400, seed=3)
WHOLE = batch.compute(TABLE, SPEC)


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    field = TICKS.field(name)
    return table.set_column(TICKS.get_field_index(name), field, pa.array(values, field.type))


def test_features_vary_and_rows_keep_their_order() -> None:
    assert WHOLE.features_NF.shape == (400, 16)
    assert (WHOLE.features_NF.std(axis=0) > 0).all()
    assert WHOLE.features_NF.dtype == np.float32
    assert np.array_equal(WHOLE.timestamp_N, TABLE["timestamp"].to_numpy().astype(np.int64))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=8))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 400]
    stream = batch.FeatureStream(SPEC)
    parts = [
        stream.update(record)
        for first, end in pairwise(edges)
        for record in TABLE.slice(first, end - first).to_batches()
    ]
    assert np.array_equal(np.concatenate([p.features_NF for p in parts]), WHOLE.features_NF)
    assert np.array_equal(np.concatenate([p.segment_N for p in parts]), WHOLE.segment_N)


def test_no_rows_give_no_features() -> None:
    empty = batch.compute(TICKS.empty_table(), SPEC)
    assert empty.features_NF.shape == (0, 16)
    assert len(empty.segment_N) == len(empty.timestamp_N) == 0


def test_two_instruments_are_refused() -> None:
    both = pa.concat_tables([ticks(5), ticks(5, symbol=SYMBOLS[1])])
    with pytest.raises(DataError, match="one instrument at a time"):
        batch.compute(both, SPEC)


def test_a_crossed_row_is_named() -> None:
    bid = TABLE["bid_price"].to_numpy().copy()
    bid[7] = 1e6
    with pytest.raises(DataError, match="quarantined") as error:
        batch.compute(with_column(TABLE, "bid_price", bid), SPEC)
    assert error.value.where == f"{SYMBOLS[0]}, row 7"


def test_a_null_timestamp_is_refused() -> None:
    stamps = [None, *TABLE["timestamp"].to_pylist()[1:]]
    with pytest.raises(DataError, match="timestamp is null"):
        batch.compute(with_column(TABLE, "timestamp", stamps), SPEC)


def incrementally(table: pa.Table) -> tuple[np.ndarray, np.ndarray, FeatureState]:
    """Features and segments of `table`, tick by tick; every window is checked."""
    state = FeatureState(SPEC)
    features = np.empty((len(table), 16), np.float32)
    segment = np.empty(len(table), np.int32)
    entered = 0
    for i, tick in enumerate(batch.tick_records(table.combine_chunks().to_batches()[0]).tolist()):
        features[i] = state.update(*tick)
        segment[i] = state.segment
        entered = i if i == 0 or segment[i] != segment[i - 1] else entered
        assert state.ready == (i - entered >= SEQUENCE_LENGTH - 1)
        if state.ready and i % 17 == 0:
            assert np.array_equal(state.window_TF(), features[i - SEQUENCE_LENGTH + 1 : i + 1])
    return features, segment, state


def test_incremental_equals_batch_across_segments() -> None:
    stamps = TABLE["timestamp"].to_numpy().astype(np.int64).copy()
    stamps[150:] += 11_000_000_000
    stamps[200:] += 12 * 3_600_000_000_000
    table = with_column(TABLE, "timestamp", stamps)
    found = batch.compute(table, SPEC)
    features, segment, _ = incrementally(table)
    assert set(found.segment_N) == {0, 1, 2}
    assert np.array_equal(features, found.features_NF)
    assert np.array_equal(segment, found.segment_N)


def test_every_real_row_agrees_bit_for_bit(binance: str) -> None:
    market = open_market(binance)
    rows = 0
    for day in market.catalog():
        table = market.read(day)
        found = batch.compute(table, SPEC)
        features, segment, _ = incrementally(table)
        assert np.array_equal(features, found.features_NF), day
        assert np.array_equal(segment, found.segment_N), day
        assert np.isfinite(found.features_NF).all()
        rows += len(table)
    assert rows == 335_931


def test_real_quotes_without_sizes_have_neutral_sizes(fx: str) -> None:
    market = open_market(fx)
    day = next(day for day in market.catalog() if day.symbol == "EURUSD.oanda")
    found = batch.compute(market.read(day), SPEC).features_NF
    assert np.isfinite(found).all()
    assert (found[:, [1, 2, 3, 9, 10, 11, 12]] == 0).all()
    assert (found[:, [0, 4, 5, 6, 7, 8]].std(axis=0) > 0).all()


def test_the_window_is_a_view_and_must_be_full() -> None:
    state = FeatureState(SPEC)
    with pytest.raises(DataError, match="not full: 0 of 64"):
        state.window_TF()
    assert state.segment == -1
    for i in range(64):
        state.update(1_000 * i, 1.0, 1.1)
    assert state.window_TF().base is not None
    assert np.shares_memory(state.window_TF(), state.window_TF())
    assert state.window_TF().shape == (64, 16)


def test_an_invalid_live_tick_is_refused_and_changes_nothing() -> None:
    clean, marred = FeatureState(SPEC), FeatureState(SPEC)
    for i in range(70):
        clean.update(1_000 * i, 1.0 + i % 3, 5.0, 1.0, 2.0 + i)
        if i in (30, 69):
            with pytest.raises(DataError, match="live tick"):
                marred.update(1_000 * i, 6.0, 5.0)
        if i == 40:
            with pytest.raises(DataError, match="clock"):
                marred.update(0, 1.0, 5.0)
            with pytest.raises(DataError, match="sizes"):
                marred.update(1_000 * i, 1.0, 5.0, -1.0, math.nan)
        marred.update(1_000 * i, 1.0 + i % 3, 5.0, 1.0, 2.0 + i)
    assert np.array_equal(clean.window_TF(), marred.window_TF())


def test_after_a_reset_the_window_fills_again() -> None:
    state, fresh = FeatureState(SPEC), FeatureState(SPEC)
    for i in range(100):
        state.update(1_000 * i, 1.0 + i % 3, 5.0)
    state.reset()
    for i in range(100, 164):
        assert not state.ready
        for one in (state, fresh):
            one.update(1_000 * i, 1.0 + i % 3, 5.0)
    assert state.ready
    assert np.array_equal(state.window_TF(), fresh.window_TF())
