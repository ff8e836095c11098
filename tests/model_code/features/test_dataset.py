"""The table of shards against the plain computation of the same days, bit by bit."""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from model_code.artifacts import ArtifactRef, ArtifactStore, hash_bytes
from model_code.errors import DataError, IntegrityError
from model_code.features import batch, dataset, labels
from model_code.features.dataset import FeatureTable, read_manifest
from model_code.features.definition import FEATURES_VERSION, look_at, looks_at_depth
from model_code.features.supplements import depth, exogenous
from model_code.features.venues import Quotes, crossings, siblings
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import MarketStore, open_market
from model_code.settings import FeatureSpec, MlpSpec, TrainingSpec
from model_code.training import loop
from tests.support.frames import write_depth, write_series
from tests.support.market import DATES, SYMBOLS, epoch_ns, hive, ticks
from tests.support.tables import build_table, write_clean

Tables = dict[tuple[dt.date, str], pa.Table]
LEADER, FOLLOWER = SYMBOLS
LEADERS = {FOLLOWER: (LEADER,)}
COLUMNS = [name for name in FeatureTable.__dataclass_fields__ if name != "meta"]
NAMES = ("macro.vix", "macro.rate")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def tables() -> Tables:
    """Two instruments on two dates: own labels on one day, two segments on another."""
    found = {
        (date, symbol): ticks(300, 1, symbol, date)
        for symbol in SYMBOLS
        for date in reversed(DATES)
    }
    stamps = found[DATES[0], LEADER]["timestamp"].to_numpy().astype(np.int64).copy()
    stamps[200:] += 60_000_000_000
    found[DATES[0], LEADER] = found[DATES[0], LEADER].set_column(
        0, TICKS.field(0), pa.array(stamps, TICKS.field(0).type)
    )
    own = pa.array([1, 0, None] * 100, pa.int8())
    found[DATES[1], FOLLOWER] = found[DATES[1], FOLLOWER].set_column(
        TICKS.get_field_index("label"), TICKS.field("label"), own
    )
    return found


@pytest.fixture
def market(tmp_path: Path) -> MarketStore:
    uri = hive(tmp_path / "store", n=300, seed=1)
    write_depth(uri, n=300, seed=1)
    stamps = [epoch_ns(date) + 10**9 * k for date in DATES for k in range(12)]
    write_series(uri, "macro", stamps, vix=np.arange(24.0), rate=np.ones(24))
    return open_market(uri)


def whole_table(
    tables: Tables,
    spec: FeatureSpec,
    leaders: Mapping[str, tuple[str, ...]],
    market: MarketStore | None,
) -> dict[str, NDArray[Any]]:
    """All days in one pass, whole days in memory, into one array for each column."""
    days: list[dict[str, NDArray[Any]]] = []
    segments = 0
    symbols = sorted({symbol for _, symbol in tables})
    for date, symbol in sorted(tables):
        source = tables[date, symbol]
        present = {name: table for (day, name), table in tables.items() if day == date}
        others = [
            batch.compute(present[name], spec.with_set("solo")).states_N
            if name in present
            else batch.compute(source.slice(0, 0), spec).states_N
            for name in leaders.get(symbol, ())[: look_at(spec.chosen_set)]
        ]
        book_S = depth.EMPTY
        if looks_at_depth(spec.chosen_set):
            book_S, _ = depth.read_depth(market, InstrumentDay(date, symbol))
        series = exogenous.read_series(market, spec.exogenous)
        rows = batch.compute(source, spec, others, book_S, series)
        bid, ask = source["bid_price"].to_numpy(), source["ask_price"].to_numpy()
        if spec.chosen_label == "cross-venue":
            venues = [symbol, *siblings(list(present))[symbol]]
            begins_E = crossings({name: quotes(present[name]) for name in venues}, 0.0, 10**10)
            label_N = labels.crossing_begins(
                rows.timestamp_N, begins_E, spec.horizon_ms, rows.segment_N
            )
        else:
            label_N = labels.round_trip(
                rows.timestamp_N, bid, ask, spec.horizon_ms, 0.0, rows.segment_N
            )
        own = source["label"].fill_null(-9).to_numpy()
        days.append(
            {
                "features_NF": rows.features_NF,
                "timestamp_N": rows.timestamp_N,
                "label_N": np.where(own == -9, label_N, own).astype(np.int8),
                "segment_N": (rows.segment_N + segments).astype(np.int32),
                "symbol_N": np.full(len(bid), symbols.index(symbol), np.int16),
                "spread_bps_N": (2e4 * (ask - bid) / (ask + bid)).astype(np.float32),
                "bid_N": bid,
                "ask_N": ask,
            }
        )
        segments += int(rows.segment_N[-1]) + 1
    return {name: np.concatenate([day[name] for day in days]) for name in COLUMNS}


def quotes(table: pa.Table) -> Quotes:
    return Quotes(
        table["timestamp"].to_numpy().astype(np.int64),
        table["bid_price"].to_numpy(),
        table["ask_price"].to_numpy(),
    )


def digest(column: Any) -> str:
    array = np.ascontiguousarray(np.asarray(column))
    return hash_bytes(f"{array.dtype} {array.shape}".encode() + array.tobytes())


def _absent_leader(tables: Tables) -> Tables:
    return {key: table for key, table in tables.items() if key != (DATES[1], LEADER)}


def _venues(_: Tables) -> Tables:
    return {
        (date, f"E.{venue}"): ticks(300, seed, f"E.{venue}", date)
        for seed, venue in enumerate("xy")
        for date in DATES
    }


@pytest.mark.parametrize(
    ("spec", "leaders", "change"),
    [
        (FeatureSpec(), LEADERS, dict),
        (FeatureSpec(), {FOLLOWER: ("absent", LEADER)}, dict),
        (FeatureSpec(), LEADERS, _absent_leader),
        (FeatureSpec(feature_set="solo"), LEADERS, dict),
        (FeatureSpec(feature_set="depth"), {}, dict),
        (FeatureSpec(feature_set="exogenous", exogenous=NAMES), {}, dict),
        (
            FeatureSpec(feature_set="venues", label="cross-venue", horizon_ms=500.0),
            {"E.x": ("E.y",), "E.y": ("E.x",)},
            _venues,
        ),
    ],
    ids=["leader", "second leader", "absent leader", "solo", "depth", "exogenous", "venues"],
)
def test_every_column_has_the_bytes_of_one_pass_over_all_days(
    tmp_path: Path,
    store: ArtifactStore,
    tables: Tables,
    market: MarketStore,
    spec: FeatureSpec,
    leaders: dict[str, tuple[str, ...]],
    change: Callable[[Tables], Tables],
) -> None:
    tables = change(tables)
    inputs = write_clean(tmp_path, tables)
    built = build_table(store, inputs, spec, leaders=leaders, market=market, chunk_rows=70)
    table = FeatureTable.open(store, built)
    expected = whole_table(tables, spec, leaders, market)
    assert {name: digest(getattr(table, name)) for name in COLUMNS} == {
        name: digest(column) for name, column in expected.items()
    }
    assert [(day.date, day.symbol) for day in table.meta.days] == sorted(tables)
    own = leaders.get(FOLLOWER, ())[: look_at(spec.chosen_set)]
    if own:  # of an absent leader nothing is seen
        last = table.meta.days[-1]
        seen_N = table.features_NF[last.first : last.first + last.rows][:, 8:13]
        assert seen_N.any() == (own[0] == LEADER and (DATES[1], LEADER) in tables)


def test_the_manifest_says_what_the_table_holds(
    tmp_path: Path, store: ArtifactStore, tables: Tables
) -> None:
    inputs = write_clean(tmp_path, tables)
    built = build_table(store, inputs, FeatureSpec(), leaders=LEADERS, simulated=True)
    meta = read_manifest(store, built).meta
    assert FeatureTable.open(store, built).meta == meta
    assert meta.symbols == SYMBOLS
    assert meta.dates == DATES
    assert [(day.date, day.symbol) for day in meta.days] == sorted(tables)
    assert [(day.first, day.rows) for day in meta.days] == [(300 * k, 300) for k in range(4)]
    assert meta.simulated
    assert meta.spec == FeatureSpec()
    assert meta.leaders == LEADERS
    assert meta.features_version == FEATURES_VERSION
    assert meta.given_labels == 200
    assert meta.mirrored_spec is None
    assert [path.name for path in store.path(built).iterdir()] == ["meta.json"]


def test_tables_of_other_days_share_their_shards(
    tmp_path: Path, store: ArtifactStore, tables: Tables
) -> None:
    newest = {key: table for key, table in tables.items() if key[0] == DATES[1]}
    both, one = (
        read_manifest(store, build_table(store, write_clean(tmp_path, days), FeatureSpec()))
        for days in (tables, newest)
    )
    assert one.shards == both.shards[2:]


def test_training_on_shards_gives_the_losses_of_training_on_arrays(
    tmp_path: Path, store: ArtifactStore
) -> None:
    tables = {(date, symbol): ticks(900, 1, symbol, date) for date in DATES for symbol in SYMBOLS}
    built = build_table(store, write_clean(tmp_path, tables), FeatureSpec(), leaders=LEADERS)
    table = FeatureTable.open(store, built)
    whole = whole_table(tables, FeatureSpec(), LEADERS, None)
    ends = np.flatnonzero(table.label_N >= 0)
    ends = ends[(ends % 900 >= 63)]
    runs = [
        loop.train(
            features_NF,
            label_N,
            ends[: len(ends) // 2],
            ends[len(ends) // 2 :],
            network_spec=MlpSpec(hidden=16, layers=1),
            training_spec=TrainingSpec(epochs=2, batch_size=64, windows_per_epoch=1024),
            checkpoints=tmp_path / f"checkpoints-{number}",
        )
        for number, (features_NF, label_N) in enumerate(
            [(table.features_NF, table.label_N), (whole["features_NF"], whole["label_N"])]
        )
    ]
    losses = [[(e.train_loss, e.validation_auc) for e in run.history] for run in runs]
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]


def _without(inputs: Any) -> Any:
    return []


def _twice(inputs: Any) -> Any:
    return [*inputs, inputs[0]]


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        (_without, 30, "no rows in the features of 0 instrument-days"),
        (list, 0, "no rows in the features of 1 instrument-days"),
        (_twice, 30, f"{LEADER} on 2024-08-08 is given twice"),
    ],
    ids=["nothing", "empty day", "twice"],
)
def test_a_table_without_rows_or_with_a_day_twice_is_refused(
    tmp_path: Path, store: ArtifactStore, change: Callable[..., Any], rows: int, message: str
) -> None:
    inputs = write_clean(tmp_path, {(DATES[0], LEADER): ticks(30).slice(0, rows)})
    with pytest.raises(DataError, match=message):
        build_table(store, change(inputs), FeatureSpec())


def test_an_empty_day_among_others_has_no_rows(tmp_path: Path, store: ArtifactStore) -> None:
    days = {(DATES[0], LEADER): ticks(30).slice(0, 0), (DATES[1], LEADER): ticks(30)}
    table = FeatureTable.open(store, build_table(store, write_clean(tmp_path, days), FeatureSpec()))
    assert [(day.first, day.rows) for day in table.meta.days] == [(0, 0), (0, 30)]
    np.testing.assert_array_equal(
        np.asarray(table.features_NF), batch.compute(ticks(30), FeatureSpec()).features_NF
    )


def test_a_changed_or_missing_shard_is_not_opened(
    tmp_path: Path, store: ArtifactStore, tables: Tables
) -> None:
    built = build_table(store, write_clean(tmp_path, tables), FeatureSpec())
    folder = store.path(read_manifest(store, built).shards[2].folder)
    data = bytearray((folder / "features.npy").read_bytes())
    data[-1] ^= 1
    (folder / "features.npy").write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{folder.name} was changed after it was written"):
        FeatureTable.open(store, built)
    folder.rename(tmp_path / "gone")
    with pytest.raises(IntegrityError, match=f"{folder.name} is missing"):
        FeatureTable.open(store, built)


def test_another_artefact_is_no_table(tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / dataset.META_FILE).write_text("{}")
    other: ArtifactRef = store.put(tmp_path / "split")
    with pytest.raises(DataError, match="not a feature table"):
        FeatureTable.open(store, other)


def test_too_many_shards_for_the_process_say_what_to_allow(
    tmp_path: Path, store: ArtifactStore, tables: Tables
) -> None:
    built = build_table(store, write_clean(tmp_path, tables), FeatureSpec())
    real = np.load

    def refuse(path: Path, *rest: Any, **more: Any) -> Any:
        if path.name == "label.npy":
            raise OSError(24, "Too many open files")
        return real(path, *rest, **more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(np, "load", refuse)
        with pytest.raises(DataError, match="Too many open files") as error:
            FeatureTable.open(store, built)
    assert "ulimit -n" in error.value.remedy
