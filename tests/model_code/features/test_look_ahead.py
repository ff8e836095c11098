"""No look-ahead: the checks pass on the real code and catch planted leaks."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from model_code.features import batch, labels
from model_code.features.dataset import FeatureTable, TableDay, TableMeta
from model_code.features.split import split
from model_code.features.windows import valid_ends
from model_code.market.schema import TICKS
from model_code.market.store import open_market
from model_code.settings import SEQUENCE_LENGTH, FeatureSpec, SplitSpec
from tests.support.market import DATES, SYMBOLS, ticks

SPEC = FeatureSpec(feature_set="solo")
SPLIT = SplitSpec(train_windows=800, validation_windows=200, test_windows=200)
Compute = Callable[[pa.Table], npt.NDArray[np.float32]]


def look_ahead_rows(compute: Compute, table: pa.Table, cuts: int = 6) -> list[int]:
    """Rows whose features differ after later rows are changed in every column, or removed."""
    whole = compute(table)
    leaks: set[int] = set()
    for cut in np.linspace(1, len(table) - 1, cuts).astype(int):
        past = table.slice(0, cut)
        for other in (past, pa.concat_tables([past, _changed(table.slice(cut))])):
            differs = (compute(other)[:cut] != whole[:cut]).any(axis=1)
            leaks.update(np.flatnonzero(differs).tolist())
    return sorted(leaks)


def _changed(table: pa.Table) -> pa.Table:
    """Change every number of every row; the rows stay clean and in time order."""
    columns = []
    for field in TICKS:
        column = table[field.name]
        if pa.types.is_floating(field.type):
            scale = 3.0 if field.name == "ask_price" else 1.7
            column = pa.array(column.to_numpy() * scale + 0.25, field.type)
        elif field.name == "trade_count":
            column = pa.array(column.to_numpy() + 5, field.type)
        elif field.name == "timestamp":
            column = pa.array(column.to_numpy().astype(np.int64) + 3_000_000, field.type)
        columns.append(column)
    return pa.table(columns, schema=TICKS)


def features(table: pa.Table) -> npt.NDArray[np.float32]:
    return batch.compute(table, SPEC).features_NF


def test_no_feature_looks_ahead() -> None:
    assert look_ahead_rows(features, ticks(500, seed=5)) == []


def test_no_feature_looks_ahead_on_real_ticks(binance: str) -> None:
    market = open_market(binance)
    for day in market.catalog()[::3]:
        assert look_ahead_rows(features, market.read(day).slice(0, 4000), cuts=4) == []


def _next_move(table: pa.Table) -> npt.NDArray[np.float32]:
    bid = table["bid_price"].to_numpy()
    found = features(table)
    found[:, 4] = np.append(np.diff(bid), 0.0)
    return found


def _whole_days_mean(table: pa.Table) -> npt.NDArray[np.float32]:
    found = features(table)
    found[:, 2] -= found[:, 2].mean()
    return found


def _filled_backwards(table: pa.Table) -> npt.NDArray[np.float32]:
    found = features(table)
    end_of_ten = np.arange(len(found)) // 10 * 10 + 9
    found[:, 13] = found[np.minimum(end_of_ten, len(found) - 1), 13]
    return found


@pytest.mark.parametrize("leak", [_next_move, _whole_days_mean, _filled_backwards])
def test_a_planted_look_ahead_is_caught(leak: Compute) -> None:
    assert look_ahead_rows(leak, ticks(500, seed=5)) != []


def leaking_pairs(
    table: FeatureTable, parts: list[npt.NDArray[np.int64]], horizon_ms: float
) -> list[tuple[int, int]]:
    """Pairs of consecutive parts of which the later one sees an instant the earlier one uses.

    A window uses all time from its first row to the end of its label's horizon.
    """
    spans = [
        (
            table.timestamp_N[ends - SEQUENCE_LENGTH + 1].min(),
            table.timestamp_N[ends].max() + round(horizon_ms * 1e6),
        )
        for ends in parts
    ]
    return [(k, k + 1) for k in range(len(spans) - 1) if spans[k][1] >= spans[k + 1][0]]


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    days: list[TableDay] = []
    columns: list[tuple[npt.NDArray[np.generic], ...]] = []
    for date in DATES:
        for symbol in SYMBOLS:
            source = ticks(1500, 2, symbol, date)
            rows = batch.compute(source, SPEC)
            bid, ask = source["bid_price"].to_numpy(), source["ask_price"].to_numpy()
            label = labels.round_trip(
                rows.timestamp_N, bid, ask, SPEC.horizon_ms, 0.0, rows.segment_N
            )
            days.append(TableDay(date=date, symbol=symbol, first=1500 * len(days), rows=1500))
            segment = rows.segment_N + len(columns)
            columns.append((rows.features_NF, rows.timestamp_N, label, segment))
    features_NF, timestamp_N, label_N, segment_N = map(np.concatenate, zip(*columns, strict=True))
    return FeatureTable(
        features_NF=features_NF,
        timestamp_N=timestamp_N,
        label_N=label_N,
        segment_N=segment_N,
        symbol_N=np.zeros(len(label_N), np.int16),
        spread_bps_N=np.zeros(len(label_N), np.float32),
        bid_N=np.ones(len(label_N)),
        ask_N=np.ones(len(label_N)),
        meta=TableMeta(
            symbols=SYMBOLS,
            dates=DATES,
            days=tuple(days),
            spec=SPEC,
            features_version="0",
            simulated=True,
        ),
    )


def test_the_split_does_not_leak(table: FeatureTable) -> None:
    found = split(table, SPLIT)
    parts = [found.train_ends, found.validation_ends, found.test_ends]
    assert leaking_pairs(table, parts, SPEC.horizon_ms) == []


def test_a_leaking_split_is_caught(table: FeatureTable) -> None:
    ends = valid_ends(table.segment_N, table.label_N)
    earlier = ends[ends < 3000]
    shuffled = np.random.default_rng(0).permutation(earlier)
    assert leaking_pairs(table, [shuffled[:1000], shuffled[1000:]], SPEC.horizon_ms) == [(0, 1)]
    # in time order, but neither purged nor embargoed
    ordered = earlier[np.argsort(table.timestamp_N[earlier], kind="stable")]
    assert leaking_pairs(table, [ordered[:1000], ordered[1000:]], SPEC.horizon_ms) == [(0, 1)]
    # the last part is a day later, so it is separate anyway
    assert leaking_pairs(table, [ordered, ends[ends >= 3000]], SPEC.horizon_ms) == []
