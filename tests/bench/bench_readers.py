"""Rows a second of each market reader: `python -m tests.bench.bench_readers [--rounds N]`.

The same day of ticks in each layout, read whole, trades folded in where the layout has them.
Processor time, medians of interleaved rounds. To compare two versions, run it in turns in both
checkouts.
"""

import argparse
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from model_code.market.store import open_market
from tests.support import market

ROWS = 200_000


def binance(folder: Path, table: pa.Table) -> str:
    """Write the quotes and trades of `table` as one day of Binance's archives."""
    folder.mkdir()
    quotes, trades = market.quotes(table).to_pydict(), market.trades(table).to_pydict()
    book = [
        f"{i},{bid},{bid_size},{ask},{ask_size},{int(at.timestamp() * 1000)},0"
        for i, (at, bid, ask, bid_size, ask_size) in enumerate(
            zip(
                *(quotes[name] for name in ("timestamp", "bid_price", "ask_price")),
                *(quotes[name] for name in ("bid_size", "ask_size")),
                strict=True,
            )
        )
    ]
    done = [
        f"{i},{price},{size},0,{int(at.timestamp() * 1000)},{str(maker).lower()}"
        for i, (at, price, size, maker) in enumerate(
            zip(
                *(trades[name] for name in ("timestamp", "price", "size", "buyer_is_maker")),
                strict=True,
            )
        )
    ]
    for kind, lines in (("bookTicker", book), ("trades", done)):
        name = f"ABCUSDT-{kind}-{market.DATES[0]}"
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.csv", "\n".join(lines) + "\n")
    return str(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        one = {"symbols": ("AAA",), "dates": market.DATES[:1]}
        stores = {
            "hive": open_market(market.hive(root / "hive", ROWS, **one)),  # type: ignore[arg-type]
            "desk-csv": open_market(market.desk_csv(root / "csv", ROWS, **one)),  # type: ignore[arg-type]
            "binance-archive": open_market(binance(root / "zip", market.ticks(ROWS))),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in stores}
        days = {kind: store.catalog()[0] for kind, store in stores.items()}
        for _ in range(rounds + 1):
            for kind, store in stores.items():
                fresh = open_market(store.uri)
                fresh.catalog()
                started = time.process_time()
                fresh.read(days[kind])
                seconds[kind].append(time.process_time() - started)
    table = Table("reader", "rows/s", "ms", title=f"{ROWS:,} rows of one day")
    for kind, found in seconds.items():
        median = statistics.median(found[1:])  # the first round compiles
        table.add_row(kind, f"{ROWS / median:,.0f}", f"{1e3 * median:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
