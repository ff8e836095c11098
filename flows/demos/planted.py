"""A recorded day again, one day later, with bid sizes in another unit: a fault of a feed."""

import datetime as dt
from pathlib import Path

import polars as pl

from model_code.errors import DataError

TIMES = 1e6


def planted(store: Path, date: dt.date, folder: Path) -> dt.date:
    """Write the day's quotes and trades into another store, bid sizes `TIMES` as large.

    Args:
        store: in the hive layout of docs/data.md.
        date: of the day.
        folder: of the new store.

    Returns:
        The new date.

    Raises:
        DataError: the store has no quotes of that date in that layout.
    """
    later = date + dt.timedelta(days=1)
    files = sorted(store.glob(f"*/symbol=*/date={date}.parquet"))
    files = [file for file in files if file.parts[-3] in ("quotes", "trades")]
    if not any(file.parts[-3] == "quotes" for file in files):
        raise DataError(
            f"no quotes/symbol=*/date={date}.parquet",
            where=str(store),
            remedy="give a store in the hive layout: docs/data.md",
        )
    for file in files:
        ticks = pl.read_parquet(file)
        sizes = [pl.col(name) * TIMES for name in ("bid_size",) if name in ticks.columns]
        target = folder / file.relative_to(store).with_name(f"date={later}.parquet")
        target.parent.mkdir(parents=True, exist_ok=True)
        ticks.with_columns(pl.col("timestamp") + pl.duration(days=1), *sizes).write_parquet(target)
    return later
