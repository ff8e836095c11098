"""One table of features and labels over many instrument-days: a manifest of their shards.

The stored table is a folder with `meta.json`, which names the shards. It holds no rows: a shard
(`shard`) is an artefact of its own, shared by the tables of many nights.

Shapes: N rows of all instrument-days, concatenated, F features (16).
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import ArtifactRef, ArtifactStore, storage_error
from model_code.errors import DataError
from model_code.features.column import Column, ShardedColumn
from model_code.features.definition import FEATURES_VERSION
from model_code.features.shard import Shard
from model_code.settings import FeatureSpec, Leaders

META_FILE = "meta.json"


class TableDay(BaseModel):
    """One instrument's session: rows `first .. first + rows - 1` of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: dt.date
    symbol: str
    first: int
    rows: int


class TableMeta(BaseModel):
    """Inputs of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: tuple[str, ...]
    dates: tuple[dt.date, ...]
    days: tuple[TableDay, ...]
    spec: FeatureSpec
    leaders: Leaders = {}
    features_version: str
    simulated: bool
    given_labels: int = 0  # rows that keep the source's own label
    notes: tuple[str, ...] = ()  # what was left out of depth rows

    @property
    def mirrored_spec(self) -> FeatureSpec | None:
        """What a window's mirror image needs; None if labels of the source may have a direction."""
        return None if self.given_labels else self.spec


class Manifest(BaseModel):
    """The stored table.

    Attributes:
        spec: feature set and label of every shard.
        leaders: whom each instrument looks at, the strongest first.
        shards: sorted by (date, symbol).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: FeatureSpec
    leaders: Leaders = {}
    features_version: str
    simulated: bool
    shards: tuple[Shard, ...]

    @property
    def meta(self) -> TableMeta:
        """Inputs of the table, and which rows each instrument-day has."""
        days = [shard.meta for shard in self.shards]
        firsts = accumulate((day.rows for day in days), initial=0)
        return TableMeta(
            symbols=tuple(sorted({day.symbol for day in days})),
            dates=tuple(sorted({day.date for day in days})),
            days=tuple(
                TableDay(date=day.date, symbol=day.symbol, first=first, rows=day.rows)
                for day, first in zip(days, firsts, strict=False)
            ),
            spec=self.spec,
            leaders=self.leaders,
            features_version=self.features_version,
            simulated=self.simulated,
            given_labels=sum(day.given_labels for day in days),
            notes=tuple(note for day in days for note in day.notes),
        )


@dataclass(frozen=True)
class FeatureTable:
    """The table, its larger columns memory-mapped.

    Attributes:
        features_NF: float32, columns as in `definition.FEATURE_SETS`, not standardised.
        timestamp_N: int64, ns UTC.
        label_N: int8, 1, 0 or -1 (not observed).
        segment_N: int32, non-decreasing over the whole table; a window stays within one segment.
        symbol_N: int16, index into `meta.symbols`.
        spread_bps_N: float32, spread over mid.
        bid_N: float64, best bid.
        ask_N: float64, best ask.
        meta: inputs of the table.
    """

    features_NF: Column
    timestamp_N: Column
    label_N: npt.NDArray[np.int8]
    segment_N: npt.NDArray[np.int32]
    symbol_N: npt.NDArray[np.int16]
    spread_bps_N: Column
    bid_N: Column
    ask_N: Column
    meta: TableMeta

    @classmethod
    def open(cls, store: ArtifactStore, table: ArtifactRef) -> "FeatureTable":
        """Open a stored table: the manifest and every shard, after checking their bytes.

        One file descriptor stays open for each shard. In memory are 7 bytes a row.

        Raises:
            IntegrityError: the manifest or a shard is missing or was changed.
            DataError: not a table, or more shards than this process may have files open.
        """
        manifest = read_manifest(store, table)
        folders = [store.open(shard.folder) for shard in manifest.shards]
        meta, days = manifest.meta, [shard.meta for shard in manifest.shards]
        segments = accumulate((day.segments for day in days), initial=0)
        try:
            columns = {
                name: ShardedColumn(
                    [folder / f"{name}.npy" for folder in folders], stays_open=name == "features"
                )
                for name in ("features", "timestamp", "spread_bps", "bid", "ask")
            }
            label_N = np.concatenate([np.load(folder / "label.npy") for folder in folders])
            segment_N = np.concatenate(
                [
                    np.load(folder / "segment.npy") + np.int32(before)
                    for folder, before in zip(folders, segments, strict=False)
                ]
            )
        except OSError as error:
            raise DataError(
                f"cannot open the feature table: {error}",
                where=str(store.path(table)),
                remedy=f"allow {len(folders)} more open files and run again: ulimit -n 65536",
            ) from error
        return cls(
            features_NF=columns["features"],
            timestamp_N=columns["timestamp"],
            label_N=label_N,
            segment_N=segment_N,
            symbol_N=np.repeat(
                np.array([meta.symbols.index(day.symbol) for day in days], np.int16),
                [day.rows for day in days],
            ),
            spread_bps_N=columns["spread_bps"],
            bid_N=columns["bid"],
            ask_N=columns["ask"],
            meta=meta,
        )


def read_manifest(store: ArtifactStore, table: ArtifactRef) -> Manifest:
    """Read a stored table's manifest after checking its bytes; its shards are not opened.

    Raises:
        IntegrityError: it is missing or was changed.
        DataError: the artefact is not a feature table.
    """
    path = store.open(table)
    try:
        return Manifest.model_validate_json((path / META_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"not a feature table: {error}",
            where=str(path),
            remedy="compute it again: tickline nightly --refresh",
        ) from error


def write_manifest(
    shards: Sequence[Shard],
    spec: FeatureSpec,
    out: Path,
    *,
    simulated: bool,
    leaders: Mapping[str, tuple[str, ...]] | None = None,
) -> Manifest:
    """Write the table of `shards` into the new folder `out`, sorted by (date, symbol).

    Args:
        shards: one for each instrument-day, all computed with `spec` and `leaders`.
        spec: feature set and label.
        out: new folder.
        simulated: the ticks are simulated.
        leaders: whom each instrument looks at, the strongest first.

    Raises:
        DataError: no rows, or an instrument-day is given twice.
        StorageError: the disk is full or the folder not writable.
    """
    ordered = sorted(shards, key=lambda shard: (shard.meta.date, shard.meta.symbol))
    for before, shard in pairwise(ordered):
        if (before.meta.date, before.meta.symbol) == (shard.meta.date, shard.meta.symbol):
            raise DataError(f"{shard.meta.symbol} on {shard.meta.date} is given twice")
    if not any(shard.meta.rows for shard in ordered):
        raise DataError(
            f"no rows in the features of {len(ordered)} instrument-days",
            where=", ".join(f"{shard.meta.symbol} {shard.meta.date}" for shard in ordered[:3]),
            remedy="check dates and instruments with: tickline data describe",
        )
    manifest = Manifest(
        spec=spec,
        leaders=dict(leaders or {}),
        features_version=FEATURES_VERSION,
        simulated=simulated,
        shards=tuple(ordered),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / META_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise storage_error(error, out) from error
    return manifest
