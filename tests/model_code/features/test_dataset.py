"""The streamed feature table against the plain computation, and what it refuses."""

import datetime as dt
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.artifacts import hash_path
from model_code.errors import DataError, SchemaError, StorageError
from model_code.features import batch, dataset, labels
from model_code.features.dataset import FeatureTable
from model_code.features.definition import FEATURES_VERSION
from model_code.features.supplements import depth, exogenous
from model_code.features.venues import Quotes, crossings
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import open_market
from model_code.settings import FeatureSpec
from tests.support.frames import write_depth, write_series
from tests.support.market import DATES, SYMBOLS, epoch_ns, hive, ticks

SPEC = FeatureSpec()
Inputs = list[tuple[InstrumentDay, Path]]


def write(folder: Path, tables: dict[tuple[dt.date, str], pa.Table]) -> Inputs:
    inputs = []
    for (date, symbol), table in tables.items():
        path = folder / f"{symbol}_{date}.parquet"
        pq.write_table(table, path, row_group_size=100)
        inputs.append((InstrumentDay(date, symbol, len(table)), path))
    return inputs


@pytest.fixture
def tables() -> dict[tuple[dt.date, str], pa.Table]:
    return {
        (date, symbol): ticks(300, 1, symbol, date)
        for symbol in SYMBOLS
        for date in reversed(DATES)
    }


def test_the_table_is_the_plain_computation_day_after_day(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    stamps = tables[DATES[0], SYMBOLS[0]]["timestamp"].to_numpy().astype(np.int64).copy()
    stamps[200:] += 60_000_000_000  # a second segment
    tables[DATES[0], SYMBOLS[0]] = tables[DATES[0], SYMBOLS[0]].set_column(
        0, TICKS.field(0), pa.array(stamps, TICKS.field(0).type)
    )
    meta = dataset.build(write(tmp_path, tables), SPEC, tmp_path / "out", simulated=True)
    table = FeatureTable.load(tmp_path / "out")
    assert table.meta == meta
    assert meta.symbols == SYMBOLS
    assert meta.dates == DATES
    assert meta.simulated
    assert meta.spec == SPEC
    assert meta.features_version == FEATURES_VERSION
    assert [(day.date, day.symbol) for day in meta.days] == sorted(tables)
    assert np.unique(table.segment_N).tolist() == [0, 1, 2, 3, 4]
    assert (np.diff(table.segment_N) >= 0).all()
    for day in meta.days:
        rows = slice(day.first, day.first + day.rows)
        source = tables[day.date, day.symbol]
        bid, ask = source["bid_price"].to_numpy(), source["ask_price"].to_numpy()
        plain = batch.compute(source, SPEC)
        assert np.array_equal(table.features_NF[rows], plain.features_NF)
        assert np.array_equal(table.timestamp_N[rows], plain.timestamp_N)
        assert np.array_equal(
            table.label_N[rows],
            labels.round_trip(plain.timestamp_N, bid, ask, 100.0, 0.0, plain.segment_N),
        )
        assert (table.symbol_N[rows] == SYMBOLS.index(day.symbol)).all()
        assert table.spread_bps_N[rows] == pytest.approx(2e4 * (ask - bid) / (ask + bid))
    assert isinstance(table.features_NF, np.memmap)


def test_chunk_size_does_not_change_the_table(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    inputs = write(tmp_path, tables)
    hashes = set()
    for chunk_rows in (7, 100, 10_000):
        out = tmp_path / f"out{chunk_rows}"
        dataset.build(inputs, SPEC, out, simulated=False, chunk_rows=chunk_rows)
        hashes.add(hash_path(out))
    assert len(hashes) == 1


def test_the_sources_own_label_is_used_where_given(tmp_path: Path) -> None:
    table = ticks(200)
    own = pa.array([1, 0, None] * 66 + [None, None], pa.int8())
    labelled = table.set_column(TICKS.get_field_index("label"), TICKS.field("label"), own)
    for name, source in (("plain", table), ("own", labelled)):
        inputs = write(tmp_path, {(DATES[0], SYMBOLS[0]): source})
        dataset.build(inputs, SPEC, tmp_path / name, simulated=False)
    plain, found = (FeatureTable.load(tmp_path / name).label_N for name in ("plain", "own"))
    expected = own.fill_null(-9).to_numpy()
    expected = np.where(expected == -9, plain, expected)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, plain)


def _missing(inputs: Inputs) -> Inputs:
    return [*inputs, (InstrumentDay(DATES[0], "ZZZ"), Path("nowhere.parquet"))]


def _truncated(inputs: Inputs) -> Inputs:
    inputs[0][1].write_bytes(inputs[0][1].read_bytes()[:-100])
    return inputs


def _spoiled(inputs: Inputs) -> Inputs:
    data = bytearray(inputs[0][1].read_bytes())
    data[4:3000] = bytes(2996)
    inputs[0][1].write_bytes(data)
    return inputs


def _stranger(inputs: Inputs) -> Inputs:
    return [(InstrumentDay(DATES[0], "ZZZ"), inputs[0][1])]


def _emptied(inputs: Inputs) -> Inputs:
    pq.write_table(ticks(5).slice(0, 0), inputs[0][1])
    return inputs


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: [], "no rows to compute features from"),
        (_emptied, "no rows to compute features from"),
        (_missing, "unreadable Parquet"),
        (_truncated, "unreadable Parquet"),
        (_spoiled, "unreadable Parquet"),
        (_stranger, f"expected ticks of ZZZ, found {SYMBOLS[0]}"),
        (lambda inputs: inputs * 2, "is given twice"),
    ],
    ids=["nothing", "empty day", "missing", "truncated", "spoiled", "other symbol", "twice"],
)
def test_bad_inputs_are_refused(
    tmp_path: Path, spoil: Callable[[Inputs], Inputs], message: str
) -> None:
    inputs = spoil(write(tmp_path, {(DATES[0], SYMBOLS[0]): ticks(300)}))
    with pytest.raises(DataError, match=message):
        dataset.build(inputs, SPEC, tmp_path / "out", simulated=False)


def test_a_missing_column_is_a_schema_fault(tmp_path: Path) -> None:
    inputs = write(tmp_path, {(DATES[0], SYMBOLS[0]): ticks(30).drop_columns(["vwap"])})
    with pytest.raises(SchemaError, match="'vwap' is missing"):
        dataset.build(inputs, SPEC, tmp_path / "out", simulated=False)


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    inputs = write(tmp_path, {(DATES[0], SYMBOLS[0]): ticks(2000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match="cannot write out") as error:
            dataset.build(inputs, SPEC, tmp_path / "out", simulated=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free space" in error.value.remedy


@pytest.mark.parametrize("name", ["meta.json", "features.npy"])
def test_an_invalid_table_is_not_loaded(tmp_path: Path, name: str) -> None:
    dataset.build(
        write(tmp_path, {(DATES[0], SYMBOLS[0]): ticks(10)}), SPEC, tmp_path / "o", simulated=False
    )
    (tmp_path / "o" / name).write_text("{}")
    with pytest.raises(DataError, match="not a feature table"):
        FeatureTable.load(tmp_path / "o")


def test_a_follower_sees_its_leader_on_the_same_date_only(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    leader, follower = SYMBOLS
    del tables[DATES[1], leader]
    meta = dataset.build(
        write(tmp_path, tables),
        SPEC,
        tmp_path / "out",
        simulated=False,
        leaders={follower: (leader,)},
        chunk_rows=100,
    )
    assert meta.leaders == {follower: (leader,)}
    table = FeatureTable.load(tmp_path / "out")
    there = batch.compute(tables[DATES[0], leader], SPEC).states_N
    for day in meta.days:
        others = [there] if (day.date, day.symbol) == (DATES[0], follower) else []
        expected = batch.compute(tables[day.date, day.symbol], SPEC, others).features_NF
        rows = slice(day.first, day.first + day.rows)
        assert np.array_equal(table.features_NF[rows], expected)


def test_labels_of_two_venues(tmp_path: Path) -> None:
    venues = {
        (DATES[0], f"E.{venue}"): ticks(300, seed, f"E.{venue}") for seed, venue in enumerate("xy")
    }
    spec = FeatureSpec(feature_set="venues", label="cross-venue", horizon_ms=500.0)
    meta = dataset.build(write(tmp_path, venues), spec, tmp_path / "out", simulated=False)
    table = FeatureTable.load(tmp_path / "out")
    quotes = {
        symbol: Quotes(
            part["timestamp"].to_numpy().astype(np.int64),
            part["bid_price"].to_numpy(),
            part["ask_price"].to_numpy(),
        )
        for (_, symbol), part in venues.items()
    }
    begins_E = crossings(quotes, 0.0, 10_000_000_000)
    assert len(begins_E) > 0
    for day in meta.days:
        rows = slice(day.first, day.first + day.rows)
        expected = labels.crossing_begins(
            table.timestamp_N[rows], begins_E, 500.0, table.segment_N[rows]
        )
        assert np.array_equal(table.label_N[rows], expected)


def test_the_label_of_venues_needs_two(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    spec = FeatureSpec(label="cross-venue")
    one = {key: table for key, table in tables.items() if key[1] == SYMBOLS[0]}
    with pytest.raises(DataError, match="two venues"):
        dataset.build(write(tmp_path, one), spec, tmp_path / "out", simulated=False)


def test_depth_rows_and_series_come_from_the_store(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    uri = hive(tmp_path / "store", n=300, seed=1)
    write_depth(uri, n=300, seed=1)
    stamps = [epoch_ns(DATES[0]) + 10**9 * k for k in range(12)]
    write_series(uri, "macro", stamps, vix=np.arange(12.0), rate=np.ones(12))
    market, inputs = open_market(uri), write(tmp_path, tables)
    series = exogenous.read_series(market, ("macro.vix", "macro.rate"))
    for spec in (
        FeatureSpec(feature_set="depth"),
        FeatureSpec(feature_set="exogenous", exogenous=("macro.vix", "macro.rate")),
    ):
        out = tmp_path / spec.chosen_set
        meta = dataset.build(inputs, spec, out, simulated=False, market=market, chunk_rows=70)
        assert meta.notes == ()
        table = FeatureTable.load(out)
        for day in meta.days:
            rows_S, _ = depth.read_depth(market, InstrumentDay(day.date, day.symbol))
            source = tables[day.date, day.symbol]
            plain = batch.compute(
                source, spec, book_S=rows_S, series=series if spec.exogenous else ()
            )
            rows = slice(day.first, day.first + day.rows)
            assert np.array_equal(table.features_NF[rows], plain.features_NF)
            assert plain.features_NF[:, 8:].any()


def test_notes_name_what_was_left_out_of_depth_rows(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    uri = hive(tmp_path / "store", n=300, seed=1)
    write_depth(uri, n=300, seed=1)
    path = Path(uri) / "depth" / f"symbol={SYMBOLS[1]}" / f"date={DATES[0]}.parquet"
    table = pq.read_table(path)
    bid_N = table["bid_price_0"].to_numpy().copy()
    bid_N[[4, 9]] = 1e9
    pq.write_table(table.set_column(1, "bid_price_0", pa.array(bid_N)), path)
    spec = FeatureSpec(feature_set="depth")
    meta = dataset.build(
        write(tmp_path, tables), spec, tmp_path / "out", simulated=False, market=open_market(uri)
    )
    assert meta.notes == (f"{SYMBOLS[1]} {DATES[0]}: depth rows left out, not a book: 2",)
    assert FeatureTable.load(tmp_path / "out").meta == meta


def test_a_store_without_depth_rows_is_refused(
    tmp_path: Path, tables: dict[tuple[dt.date, str], pa.Table]
) -> None:
    inputs, spec = write(tmp_path, tables), FeatureSpec(feature_set="depth")
    market = open_market(hive(tmp_path / "store", n=300, seed=1))
    for store in (None, market):
        with pytest.raises(DataError, match="the feature set depth needs depth rows"):
            dataset.build(inputs, spec, tmp_path / "out", simulated=False, market=store)
