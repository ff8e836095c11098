"""Feature tables of the same ticks, as versions of different features see them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.artifacts import ArtifactRef, hash_path
from model_code.features import dataset
from model_code.market.schema import TICKS, InstrumentDay
from model_code.settings import FeatureSpec
from tests.support.market import DATES, SYMBOLS, ticks

Build = Callable[..., ArtifactRef]


@pytest.fixture
def build(tmp_path: Path) -> Build:
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
        dataset.build(inputs, spec, tmp_path / name, simulated=True, leaders=leaders)
        return ArtifactRef(name=name, path=str(tmp_path / name), sha256=hash_path(tmp_path / name))

    return make
