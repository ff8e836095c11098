"""One instrument-day's features and labels: chunks, given labels, and what is refused."""

import resource
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.artifacts import hash_path
from model_code.errors import DataError, SchemaError, StorageError
from model_code.features import shard
from model_code.features.shard import ShardMeta
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import open_market
from model_code.settings import FeatureSpec, LabelName
from tests.support.frames import write_depth
from tests.support.market import DATES, SYMBOLS, hive, ticks

SPEC = FeatureSpec()
DAY = InstrumentDay(DATES[0], SYMBOLS[0])


def clean(folder: Path, table: pa.Table) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    pq.write_table(table, path, row_group_size=100)
    return path


@pytest.fixture(scope="module")
def day_with_leader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A day of three segments with labels of its own on some rows, and its leader's."""
    folder, table = tmp_path_factory.mktemp("day"), ticks(300, 1)
    stamps = table["timestamp"].cast(pa.int64()).to_numpy().copy()
    stamps[100:] += 60 * 10**9
    stamps[217:] += 60 * 10**9
    table = table.set_column(0, TICKS.field(0), pa.array(stamps, TICKS.field(0).type))
    own = pa.array([1, None, None, 0, None] * 60, pa.int8())
    table = table.set_column(TICKS.get_field_index("label"), TICKS.field("label"), own)
    return clean(folder, table), clean(folder, ticks(400, 2, SYMBOLS[1]))


def built(spec: FeatureSpec, paths: tuple[Path, Path], out: Path, chunk_rows: int) -> str:
    """Build the day's shard; its hash."""
    own, leader = paths
    shard.build(
        DAY, own, spec, out,
        leaders=SYMBOLS[1:], others={SYMBOLS[1]: leader}, chunk_rows=chunk_rows,
    )  # fmt: skip
    return hash_path(out)


@given(
    chunk_rows=st.one_of(st.integers(1, 8), st.integers(9, 301)),
    label=st.sampled_from(["executable-roundtrip", "mid-move"]),
    horizon_ms=st.sampled_from([10.0, 100.0, 3000.0]),
)
@settings(deadline=None, max_examples=25)
def test_chunk_size_does_not_change_a_byte(
    day_with_leader: tuple[Path, Path], chunk_rows: int, label: LabelName, horizon_ms: float
) -> None:
    spec = FeatureSpec(label=label, horizon_ms=horizon_ms)
    with TemporaryDirectory() as folder:
        found, whole = (
            built(spec, day_with_leader, Path(folder) / str(rows), rows)
            for rows in (chunk_rows, 10_000)
        )
    assert found == whole


def test_rows_and_segments_are_counted(day_with_leader: tuple[Path, Path], tmp_path: Path) -> None:
    meta = shard.build(DAY, day_with_leader[0], SPEC, tmp_path / "out", chunk_rows=7)
    assert meta == ShardMeta(
        date=DATES[0], symbol=SYMBOLS[0], rows=300, segments=3, given_labels=120
    )


def test_a_shard_does_not_depend_on_what_it_does_not_look_at(tmp_path: Path) -> None:
    path, other = clean(tmp_path, ticks(300)), clean(tmp_path, ticks(300, 1, SYMBOLS[1]))
    for name, leaders in (("seen", (SYMBOLS[1],)), ("unseen", ()), ("alone", ())):
        others = {} if name == "alone" else {SYMBOLS[1]: other}
        shard.build(DAY, path, SPEC, tmp_path / name, leaders=leaders, others=others)
    seen, unseen, alone = (hash_path(tmp_path / name) for name in ("seen", "unseen", "alone"))
    assert unseen == alone
    assert seen != alone


def test_the_sources_own_label_is_used_where_given(tmp_path: Path) -> None:
    table = ticks(200)
    own = pa.array([1, 0, None] * 66 + [None, None], pa.int8())
    labelled = table.set_column(TICKS.get_field_index("label"), TICKS.field("label"), own)
    metas = [
        shard.build(DAY, clean(tmp_path, source), SPEC, tmp_path / name)
        for name, source in (("plain", table), ("own", labelled))
    ]
    assert [meta.given_labels for meta in metas] == [0, 132]
    plain, found = (np.load(tmp_path / name / "label.npy") for name in ("plain", "own"))
    expected = own.fill_null(-9).to_numpy()
    expected = np.where(expected == -9, plain, expected)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, plain)


def _missing(path: Path) -> Path:
    return path.with_name("nowhere.parquet")


def _truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _spoiled(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[4:3000] = bytes(2996)
    path.write_bytes(data)
    return path


def _stranger(path: Path) -> Path:
    pq.write_table(ticks(30, symbol="ZZZ"), path)
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, "unreadable Parquet"),
        (_truncated, "unreadable Parquet"),
        (_spoiled, "unreadable Parquet"),
        (_stranger, f"expected ticks of {SYMBOLS[0]}, found ZZZ"),
    ],
    ids=["missing", "truncated", "spoiled", "other symbol"],
)
def test_bad_inputs_are_refused(
    tmp_path: Path, spoil: Callable[[Path], Path], message: str
) -> None:
    path = spoil(clean(tmp_path, ticks(300)))
    with pytest.raises(DataError, match=message):
        shard.build(DAY, path, SPEC, tmp_path / "out")


def test_a_missing_column_is_a_schema_fault(tmp_path: Path) -> None:
    path = clean(tmp_path, ticks(30).drop_columns(["vwap"]))
    with pytest.raises(SchemaError, match="'vwap' is missing"):
        shard.build(DAY, path, SPEC, tmp_path / "out")


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    path = clean(tmp_path, ticks(2000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match="cannot write out") as error:
            shard.build(DAY, path, SPEC, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free space" in error.value.remedy


def test_the_label_of_venues_needs_two(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two venues"):
        shard.build(
            DAY, clean(tmp_path, ticks(300)), FeatureSpec(label="cross-venue"), tmp_path / "out"
        )


def test_notes_name_what_was_left_out_of_depth_rows(tmp_path: Path) -> None:
    uri = hive(tmp_path / "store", n=300, seed=1)
    write_depth(uri, n=300, seed=1)
    path = Path(uri) / "depth" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet"
    table = pq.read_table(path)
    bid_N = table["bid_price_0"].to_numpy().copy()
    bid_N[[4, 9]] = 1e9
    pq.write_table(table.set_column(1, "bid_price_0", pa.array(bid_N)), path)
    spec, ticks_path = FeatureSpec(feature_set="depth"), clean(tmp_path, ticks(300, 1))
    meta = shard.build(DAY, ticks_path, spec, tmp_path / "out", market=open_market(uri))
    assert meta.notes == (f"{SYMBOLS[0]} {DATES[0]}: depth rows left out, not a book: 2",)


def test_a_store_without_depth_rows_is_refused(tmp_path: Path) -> None:
    path, spec = clean(tmp_path, ticks(300)), FeatureSpec(feature_set="depth")
    market = open_market(hive(tmp_path / "store", n=300, seed=1))
    for store in (None, market):
        with pytest.raises(DataError, match="the feature set depth needs depth rows"):
            shard.build(DAY, path, spec, tmp_path / "out", market=store)
