"""Seconds and peak memory of validating one large instrument-day.

Run: python tests/bench/bench_validation.py --rows 10000000
"""

import argparse
import datetime as dt
import resource
import sys
import time

import numpy as np
import pyarrow as pa

from model_code.market.schema import TICKS, InstrumentDay
from model_code.settings import ValidationSpec
from tasks.validation import expectations
from tasks.validation.day import validate_day

DAY = InstrumentDay(dt.date(2024, 8, 8), "BTCUSDT.spot")


def ticks(rows: int, fault_fraction: float) -> pa.Table:
    """A day of ticks with a random walk's prices; a share of rows is crossed."""
    rng = np.random.default_rng(7)
    midnight = int(dt.datetime.combine(DAY.date, dt.time(), dt.UTC).timestamp()) * 10**9
    stamps = rng.integers(0, 86_400 * 10**9, rows)
    stamps.sort()
    stamps += midnight
    bid = rng.choice(np.array([-0.01, 0.0, 0.0, 0.01]), rows).cumsum() + 60_000.0
    ask = bid + np.where(rng.random(rows) < fault_fraction, -0.01, 0.01)
    columns = {
        "timestamp": pa.array(stamps, pa.timestamp("ns", "UTC")),
        "symbol": pa.DictionaryArray.from_arrays(
            np.zeros(rows, np.int32), [DAY.symbol]
        ).dictionary_decode(),
        "bid_price": bid,
        "ask_price": ask,
        "bid_size": rng.random(rows) + 0.001,
        "ask_size": rng.random(rows) + 0.001,
        "last_trade": bid,
        "vwap": np.full(rows, bid[0]),
        "feature_ema_1min": rng.random(rows),
        "buy_volume": np.zeros(rows),
        "sell_volume": np.zeros(rows),
        "trade_count": np.zeros(rows, np.int32),
        "label": pa.nulls(rows, pa.int8()),
    }
    return pa.table(columns, schema=TICKS)


def peak_gb() -> float:
    """Peak resident memory of this process, 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Build the day, validate it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--fault-fraction", type=float, default=0.005)
    options = parser.parse_args()
    table = ticks(options.rows, options.fault_fraction)
    sys.stdout.write(
        f"ticks: {table.num_rows:,} rows, {table.nbytes / 1e9:.2f} GB, peak {peak_gb():.2f} GB\n"
    )
    started = time.perf_counter()
    expectations.schema_outcomes(table.schema)
    sys.stdout.write(f"import of Great Expectations: {time.perf_counter() - started:.1f} s\n")
    started = time.perf_counter()
    report = validate_day(table, DAY, ValidationSpec()).report
    sys.stdout.write(
        f"validate_day: {time.perf_counter() - started:.1f} s, peak {peak_gb():.2f} GB, "
        f"faults {report.faults}, passed {report.passed}\n"
    )


if __name__ == "__main__":
    main()
