"""Feature tables of clean files, as a nightly builds them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.features import dataset, shard
from model_code.features.batch import CHUNK_ROWS
from model_code.features.shard import Shard
from model_code.features.supplements.others import needed
from model_code.market.schema import InstrumentDay
from model_code.market.supplements import SupplementStore
from model_code.settings import FeatureSpec

Inputs = Sequence[tuple[InstrumentDay, Path]]


def write_clean(folder: Path, tables: Mapping[tuple[dt.date, str], pa.Table]) -> Inputs:
    """One clean file for each (date, symbol)."""
    inputs = []
    for (date, symbol), table in tables.items():
        path = folder / f"{symbol}_{date}.parquet"
        pq.write_table(table, path, row_group_size=100)
        inputs.append((InstrumentDay(date, symbol, len(table)), path))
    return inputs


def build_table(
    store: ArtifactStore,
    inputs: Inputs,
    spec: FeatureSpec,
    *,
    simulated: bool = False,
    leaders: Mapping[str, tuple[str, ...]] | None = None,
    market: SupplementStore | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> ArtifactRef:
    """The stored table; each instrument-day sees of the others only what it needs."""
    shards = []
    with store.scratch() as scratch:
        for day, path in inputs:
            present = {other.symbol: file for other, file in inputs if other.date == day.date}
            seen = (leaders or {}).get(day.symbol, ())
            out = scratch / f"{day.symbol}-{day.date}"
            meta = shard.build(
                day,
                path,
                spec,
                out,
                leaders=seen,
                others={name: present[name] for name in needed(day.symbol, present, spec, seen)},
                market=market,
                chunk_rows=chunk_rows,
            )
            shards.append(Shard(meta=meta, folder=store.put(out)))
        out = scratch / "features"
        dataset.write_manifest(shards, spec, out, simulated=simulated, leaders=leaders)
        return store.put(out)
