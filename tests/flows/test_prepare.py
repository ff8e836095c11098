"""From a store to the split feature table with sets that need more than ticks."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows import candidate
from model_code.artifacts import ArtifactRef
from model_code.errors import DataError, MarketError
from model_code.features.dataset import FeatureTable
from model_code.features.definition import names
from model_code.features.split import Split
from model_code.settings import FeatureSpec, NightlySpec, Settings, SplitSpec, ValidationSpec
from tasks.caching.fingerprint import stage_key
from tasks.caching.stage import RunRef
from tasks.nightly.find_days import find_days
from tasks.nightly.records import CleanDay, Plan, Prepared, Supplements
from tasks.nightly.split import split
from tests.support.frames import recording, write_series
from tests.support.market import DATES, epoch_ns, hive

DEPTH = FeatureSpec(feature_set="depth")
SERIES = FeatureSpec(feature_set="exogenous", exogenous=("macro.vix",))
PARTS = SplitSpec(
    validation_fraction=0.4,
    embargo_ms=100.0,
    train_windows=100,
    validation_windows=50,
    test_windows=200,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunRef:
    """A run without servers: the stages are plain functions."""
    for name in ("validate", "find_leaders", "features", "feature_table"):
        monkeypatch.setattr(candidate, name, getattr(candidate, name).fn)
    monkeypatch.setattr(candidate, "publish_validation", lambda *_: None)
    settings = Settings(home=tmp_path / "home").resolved()
    return RunRef(settings=settings, mlflow_run_id="x", flow_run_id="x")


def prepared(run: RunRef, market: str, features: FeatureSpec) -> tuple[Plan, Prepared]:
    spec = NightlySpec(
        market=market, features=features, split=PARTS, validation=ValidationSpec(minimum_rows=100)
    )
    plan = find_days.fn(spec)
    return plan, candidate.prepare(run, spec, plan, plan.test_date)


def series(folder: str, scale: float = 1.0) -> None:
    stamps = [epoch_ns(date) + 10**9 * k for date in DATES for k in range(20)]
    write_series(folder, "macro", stamps, vix=scale * np.arange(40.0))


@pytest.mark.parametrize("spec", [DEPTH, SERIES], ids=lambda spec: spec.chosen_set)
def test_a_nights_table_and_split(run: RunRef, tmp_path: Path, spec: FeatureSpec) -> None:
    market = recording(tmp_path / "store", 500)
    series(market)
    plan, made = prepared(run, market, spec)
    assert plan.warnings == ()
    assert made.features.chosen_set == spec.chosen_set
    assert made.leading.note == "leaders (the instruments' names): nobody looks at another"
    table = FeatureTable.open(run.store, made.table)
    assert table.features_NF.shape == (1000, 16)
    own = [name.startswith(("depth_", "exogenous_1")) for name in names(spec.chosen_set)]
    assert (np.asarray(table.features_NF)[:, own].std(axis=0) > 0).all()
    found = split.fn(run, made.table, PARTS, plan.test_date)
    parts = Split.load(run.store.open(found.windows))
    assert len(parts.train_ends) == 100
    assert len(parts.test_ends) == 200


def test_what_was_left_out_of_the_book_is_noted(run: RunRef, tmp_path: Path) -> None:
    market = recording(tmp_path / "store", 500)
    (tmp_path / "store" / "spot_aaa_20240808.gz").rename(tmp_path / "first.gz")
    recording(tmp_path / "other", 500, dates=(DATES[1], DATES[0]))  # the snapshot is on the second
    (tmp_path / "other" / "spot_aaa_20240808.gz").rename(tmp_path / "store/spot_aaa_20240808.gz")
    _, made = prepared(run, market, DEPTH)
    assert made.notes[-2:] == (
        "AAA.spot 2024-08-08: depth events left out, no book: 125",
        "AAA.spot 2024-08-09: depth events left out, no book: 125",
    )


def test_a_changed_table_has_another_key(run: RunRef, tmp_path: Path) -> None:
    keys = []
    for scale in (1.0, 2.0):
        market = hive(tmp_path / "store", 500)
        series(market, scale)
        plan = find_days.fn(NightlySpec(market=market))
        day = plan.days[0]
        clean = CleanDay(
            date=day.date, symbol=day.symbol, ticks=ArtifactRef.of(name="clean", sha256="0" * 64)
        )
        inputs: dict[str, Any] = {"run": run, "supplements": Supplements.of(plan, SERIES, clean)}
        keys.append((plan.digest, stage_key("tasks.nightly.features", inputs)))
        other = Supplements.of(plan, FeatureSpec(), clean)
        assert other is None
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] != keys[1][1]


def test_a_store_that_lacks_what_the_set_needs_is_refused(run: RunRef, tmp_path: Path) -> None:
    market = hive(tmp_path / "store", 500)
    with pytest.raises(DataError, match="needs depth rows, and the store has none of AAA"):
        prepared(run, market, DEPTH)
    with pytest.raises(MarketError, match="no exogenous table macro: the store has none"):
        prepared(run, market, SERIES)
    series(market)
    path = Path(market) / "exogenous" / "macro.parquet"
    table = pq.read_table(path).rename_columns(["timestamp", "vx"])
    pq.write_table(table, path)
    with pytest.raises(DataError, match="column 'vix' is missing"):
        prepared(run, market, SERIES)
