"""Feature tables of the same ticks, as versions of different features see them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.market.schema import TICKS, InstrumentDay
from model_code.settings import FeatureSpec, Settings
from tasks.caching.stage import RunRef
from tests.support.market import DATES, SYMBOLS, ticks
from tests.support.tables import build_table

Build = Callable[..., ArtifactRef]


@pytest.fixture
def run(tmp_path: Path) -> RunRef:
    """A run whose home is the test's folder."""
    settings = Settings(home=tmp_path).resolved()
    return RunRef(settings=settings, mlflow_run_id="m", flow_run_id="f")


@pytest.fixture
def store(run: RunRef) -> ArtifactStore:
    """The artefacts of that home."""
    return run.store


@pytest.fixture
def build(tmp_path: Path, store: ArtifactStore) -> Build:
    """Feature tables of the same ticks of two instruments, one looking at the other."""

    def make(name: str, feature_set: str, rows: int = 400, late_ns: int = 0) -> ArtifactRef:
        inputs = []
        for symbol in SYMBOLS:
            table = ticks(rows, 1, symbol, DATES[0])
            stamps = table["timestamp"].to_numpy().astype(np.int64) + late_ns
            table = table.set_column(0, TICKS.field(0), pa.array(stamps, TICKS.field(0).type))
            path = tmp_path / f"{name}-{symbol}.parquet"
            pq.write_table(table, path)
            inputs.append((InstrumentDay(DATES[0], symbol), path))
        spec = FeatureSpec.model_validate({"feature_set": feature_set})
        leaders = {SYMBOLS[1]: (SYMBOLS[0],)}
        return build_table(store, inputs, spec, simulated=True, leaders=leaders)

    return make
