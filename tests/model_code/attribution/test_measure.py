"""The profile of a planted model on a feature table."""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from model_code.attribution.heat_map import draw_heat_map
from model_code.attribution.measure import measure
from model_code.errors import DataError
from model_code.features.dataset import FeatureTable, TableMeta
from model_code.features.split import PartReport, Split, SplitReport
from model_code.settings import AttributionSpec, FeatureSpec
from tests.support.attribution import Planted

ROWS = 800
SPEC = AttributionSpec(windows=12, background=2)


@pytest.fixture
def rows() -> FeatureTable:
    """Two instruments, the second's features 100 higher."""
    rng = np.random.default_rng(5)
    symbol_N = np.repeat([0, 1], ROWS // 2).astype(np.int16)
    meta = TableMeta(
        symbols=("A", "B"), dates=(), days=(), spec=FeatureSpec(), features_version="0",
        simulated=True,
    )  # fmt: skip
    return FeatureTable(
        features_NF=rng.normal(size=(ROWS, 16)).astype(np.float32) + 100 * symbol_N[:, None],
        timestamp_N=np.arange(ROWS),
        label_N=(np.arange(ROWS) % 4 == 0).astype(np.int8),
        segment_N=symbol_N.astype(np.int32),
        symbol_N=symbol_N,
        spread_bps_N=np.zeros(ROWS, np.float32),
        bid_N=np.ones(ROWS),
        ask_N=np.ones(ROWS),
        meta=meta,
    )


@pytest.fixture
def parts() -> Split:
    first, second = np.arange(100, 200), np.arange(500, 600)
    train, test = np.concatenate([first, second]), np.concatenate([first + 150, second + 150])
    part = PartReport(
        candidates=200, purged=0, embargoed=0, kept=200, windows=200, label_rate=0.25, first="",
        last="",
    )  # fmt: skip
    report = SplitReport(
        test_date=dt.date(2024, 8, 9), validation_from="", train=part, validation=part, test=part
    )
    return Split(train, train, test, report)


def test_the_planted_feature_and_lag_are_found_within_each_instrument(
    rows: FeatureTable, parts: Split, tmp_path: Path
) -> None:
    model = Planted(lambda x_BTF: 3 * x_BTF[:, -1, 3] + x_BTF[:, -3:-1, 4].sum(axis=1))
    found = measure(model, rows, parts, SPEC)
    assert found.windows == 12
    assert list(found.shares)[:2] == ["mid_move", "volatility"]  # columns 3 and 4 of "paired"
    assert sum(list(found.shares.values())[:2]) == pytest.approx(1.0)
    lags = found.lag_shares
    assert lags["newest"] + lags["1-3"] == pytest.approx(1.0)
    assert [(each.dimension, each.name, each.windows) for each in found.slices] == [
        ("all", "all", 12), ("instrument", "A", 6), ("instrument", "B", 6),
        ("label", "0", 6), ("label", "1", 6),
    ]  # fmt: skip
    # the background is the instrument's own: the level 100 attributes nothing
    assert max(each.mean_abs[3][0] for each in found.slices) < 10
    assert found == measure(model, rows, parts, SPEC)
    assert draw_heat_map(found, tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_no_windows_are_an_error(rows: FeatureTable, parts: Split) -> None:
    with pytest.raises(DataError, match="nothing to explain"):
        measure(Planted(lambda x: x[:, 0, 0]), rows, parts, AttributionSpec(windows=0))
