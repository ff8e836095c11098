"""Instrument-days of any length: a block of ticks repeated, written as Hive Parquet in chunks.

The clock of each copy goes on from the one before it. Rows are `SPACING_NS` apart on average
whatever the length, so that a longer day is more of the same ticks: 100M rows take 22 hours.
"""

import datetime as dt
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.market import epoch_ns, quotes, trades

SPACING_NS = 800_000
CHUNK_ROWS = 1 << 20


def write_long_day(folder: Path, block: pa.Table, rows: int, symbol: str, date: dt.date) -> None:
    """Write `rows` rows of `block` (TICKS of one instrument), repeated, under `folder`.

    Memory is that of one chunk. A row with trades becomes one trade at the row's own instant.
    """
    stamps = block["timestamp"].cast(pa.int64()).to_numpy()
    copy_ns = block.num_rows * SPACING_NS
    elapsed = stamps - stamps[0]
    stamps = (elapsed * (copy_ns / (elapsed[-1] + SPACING_NS))).astype(np.int64)
    copies = max(1, CHUNK_ROWS // block.num_rows)
    paths = _paths(folder, symbol, date)
    writers: dict[str, pq.ParquetWriter] = {}
    try:
        for first in range(0, rows, copies * block.num_rows):
            count = min(copies, -(-(rows - first) // block.num_rows))
            chunk = pa.concat_tables([block] * count)
            at_N = (stamps + np.arange(count)[:, None] * copy_ns).ravel() + first * SPACING_NS
            timestamp = pa.array(at_N + epoch_ns(date, 0.0), block.schema.field("timestamp").type)
            chunk = chunk.set_column(0, "timestamp", timestamp).slice(0, rows - first)
            for kind, part in (("quotes", quotes(chunk)), ("trades", trades(chunk))):
                part = part.drop_columns("symbol")  # noqa: PLW2901  the folder names it
                if kind not in writers:
                    paths[kind].parent.mkdir(parents=True, exist_ok=True)
                    writers[kind] = pq.ParquetWriter(paths[kind], part.schema, compression="zstd")
                writers[kind].write_table(part)
    finally:
        for writer in writers.values():
            writer.close()


def copy_day(folder: Path, symbol: str, other: str, date: dt.date) -> None:
    """Give another instrument the same day; no byte is copied."""
    for source, target in zip(
        _paths(folder, symbol, date).values(), _paths(folder, other, date).values(), strict=True
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def _paths(folder: Path, symbol: str, date: dt.date) -> dict[str, Path]:
    return {
        kind: folder / kind / f"symbol={symbol}" / f"date={date}.parquet"
        for kind in ("quotes", "trades")
    }
