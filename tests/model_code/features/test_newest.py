"""The newest windows of a store, against the feature table of the same ticks."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from model_code.artifacts import ArtifactStore
from model_code.errors import ConfigError
from model_code.features.dataset import FeatureTable
from model_code.features.newest import NewestWindows
from model_code.features.served import SOLO, SeenFeatures
from model_code.features.windows import gather
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import FeatureSpec
from tests.support.frames import write_depth, write_series
from tests.support.market import DATES, SYMBOLS, epoch_ns, hive
from tests.support.tables import build_table

PAIRED = SeenFeatures(feature_set="paired", leaders={SYMBOLS[1]: (SYMBOLS[0],)})
DEPTH = SeenFeatures(feature_set="depth")
SERIES = SeenFeatures(feature_set="exogenous", exogenous=("macro.vix",))


@pytest.fixture
def store(tmp_path: Path) -> str:
    uri = hive(tmp_path / "store", n=300)
    write_depth(uri, n=300)
    write_series(uri, "macro", [epoch_ns(DATES[1]) + 10**9 * s for s in range(9)], vix=range(9))
    return uri


def trained_on(store: str, folder: Path, seen: SeenFeatures) -> NDArray[np.float32]:
    """The last three windows of the second instrument, as the nightly computes them."""
    inputs = []
    for symbol in SYMBOLS:
        day = InstrumentDay(DATES[1], symbol)
        path = folder / f"{symbol}.parquet"
        pq.write_table(open_market(store).read(day), path)
        inputs.append((day, path))
    spec = FeatureSpec(feature_set=seen.feature_set, exogenous=seen.exogenous)
    artifacts = ArtifactStore(folder / "artifacts")
    market = open_market(store)
    built = build_table(artifacts, inputs, spec, leaders=seen.leaders, market=market)
    table = FeatureTable.open(artifacts, built)
    last = table.meta.days[1].first + table.meta.days[1].rows - 1
    return gather(table.features_NF, np.arange(last - 2, last + 1))


@pytest.mark.parametrize("seen", [SOLO, PAIRED, DEPTH, SERIES])
def test_windows_are_those_that_a_version_is_trained_on(
    store: str, tmp_path: Path, seen: SeenFeatures
) -> None:
    newest = NewestWindows(store, SYMBOLS[1], 3)
    found, names = newest.windows(seen)
    np.testing.assert_array_equal(found, trained_on(store, tmp_path, seen))
    assert len(names) == 3
    assert names[-1].startswith(f"{SYMBOLS[1]} {DATES[1]}T12:00:")
    assert newest.windows(seen)[0] is found, "computed once"


def test_each_version_gets_windows_of_its_own_features(store: str) -> None:
    newest = NewestWindows(store, SYMBOLS[1], 3)
    (solo, names), (paired, same) = newest.windows(SOLO), newest.windows(PAIRED)
    assert names == same
    assert not np.array_equal(solo, paired)


def test_what_is_seen_of_an_absent_leader_is_0(store: str) -> None:
    absent = SeenFeatures(feature_set="paired", leaders={SYMBOLS[1]: ("CCC.test",)})
    nobody = SeenFeatures(feature_set="paired")
    newest = NewestWindows(store, SYMBOLS[1], 3)
    np.testing.assert_array_equal(newest.windows(absent)[0], newest.windows(nobody)[0])


def test_too_few_ticks_and_unknown_instruments_are_refused(tmp_path: Path) -> None:
    store = hive(tmp_path / "short", n=40)
    with pytest.raises(ConfigError, match="fewer than 64 consecutive ticks"):
        NewestWindows(store, None, 3).windows(SOLO)
    with pytest.raises(ConfigError, match="no instrument CCC"):
        NewestWindows(store, "CCC", 3)
