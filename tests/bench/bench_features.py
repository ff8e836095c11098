"""Rows a second of joins, features and labels: `python -m tests.bench.bench_features [--data URI]`.

Medians of interleaved rounds. The physical limit shown beside them is memory: copying the bytes
that the stage reads and writes, on the same rows in the same run.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from model_code.features.batch import compute
from model_code.features.incremental import FeatureState
from model_code.features.labels import round_trip
from model_code.machine import facts
from model_code.market.store import open_market
from model_code.settings import FEATURE_COUNT, FeatureSpec

ROUNDS = 7
ONE_BY_ONE = 50_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="simulated:?minutes=30&instruments=1&days=1")
    store = open_market(parser.parse_args().data)
    day = max(store.catalog(), key=lambda found: found.rows or 0)
    ticks = store.read(day)
    ticks = pa.concat_tables([ticks] * max(1, 1_000_000 // ticks.num_rows)).combine_chunks()
    # one long session: the same rows again and again, the clock going on
    stamps = np.arange(ticks.num_rows, dtype=np.int64) * 10_000_000
    ticks = ticks.set_column(0, "timestamp", pa.array(stamps, pa.timestamp("ns", "UTC")))
    spec = FeatureSpec()
    bid, ask = (ticks[name].to_numpy() for name in ("bid_price", "ask_price"))
    rows = list(zip(stamps.tolist(), bid.tolist(), ask.tolist(), strict=True))[:ONE_BY_ONE]
    source, copy = ticks.nbytes, np.empty(ticks.nbytes + 4 * FEATURE_COUNT * ticks.num_rows, "u1")

    def one_by_one() -> None:
        state = FeatureState(spec)
        for row in rows:
            state.update(*row)

    def memory() -> None:
        copy[:source] = 1
        copy[source:] = 2

    work: dict[str, tuple[Callable[[], object], int]] = {
        "features, batch": (lambda: compute(ticks, spec), ticks.num_rows),
        "features, tick by tick": (one_by_one, len(rows)),
        "labels": (lambda: round_trip(stamps, bid, ask, 100.0, 0.0), ticks.num_rows),
        "limit: touch the same bytes once": (memory, ticks.num_rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS + 1):
        for name, (run, _count) in work.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    table = Table("stage", "rows/s", "us/row", title=f"{ticks.num_rows:,} rows of {day.symbol}")
    for name, (_run, count) in work.items():
        median = statistics.median(seconds[name][1:])  # the first round compiles
        table.add_row(name, f"{count / median:,.0f}", f"{1e6 * median / count:.3f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in facts().items()))


if __name__ == "__main__":
    main()
