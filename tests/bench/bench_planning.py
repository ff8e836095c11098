"""Seconds that `find days` takes: `python -m tests.bench.bench_planning [--instruments N]`.

A Hive store of tiny quotes, hard-linked: 1,000 instruments of 250 days. Every day is chosen. The
floor is the operating system's own walk of the folders. `first` hashes every file, `again` finds
every digest in the home folder; `desk-csv` and `binance-archive` are folders with an instrument-day
a file. Each figure is elapsed time and, in brackets, processor time, which a busy machine changes
less.
"""

import argparse
import datetime as dt
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from model_code.settings import NightlySpec
from tasks.nightly.find_days import find_days
from tests.support import market

FIRST = dt.date(2024, 1, 1)
LINKS = 50_000  # to one file; ext4 allows 65,000
BOOK = b"1,100.0,1.0,100.1,1.0,1723118400000,0\n"


def quotes(path: Path, seed: int) -> None:
    """Write five rows of quotes."""
    pq.write_table(market.quotes(market.ticks(5, seed)).drop_columns("symbol"), path)


def desk(path: Path, seed: int) -> None:
    """Write one row of the desk's CSV."""
    day = FIRST + dt.timedelta(days=seed)
    path.write_text(f"{market.DESK_HEADER}\n{day}T12:00:00Z,99,101,1,1,100,100,0.5,1\n")


def archive(path: Path, _: int) -> None:
    """Write one row of a bookTicker archive."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("book.csv", BOOK)


def linked(
    root: Path, name: str, write: Callable[[Path, int], None], instruments: int, days: int
) -> None:
    """Make a file of each instrument-day; of the desk's CSV each date has a file of its own."""
    sources = root.parent / "sources"
    sources.mkdir(exist_ok=True)
    for day in range(days):
        for i in range(instruments):
            number = day if write is desk else (day * instruments + i) // LINKS
            source = sources / f"{write.__name__}-{number}"
            if not source.exists():
                write(source, number)
            path = root / name.format(symbol=f"S{i:04d}", date=FIRST + dt.timedelta(days=day))
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)


def timed(work: Callable[[], int]) -> tuple[str, int]:
    """Elapsed seconds (and processor seconds) of `work`, and its result."""
    started, used = time.perf_counter(), time.process_time()
    found = work()
    return f"{time.perf_counter() - started:.1f} ({time.process_time() - used:.1f})", found


def walked(root: Path) -> int:
    """Ask for the names and states of all files; return their number."""
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118  cheaper than a Path
        count += len(names)
    return count


def planned(uri: str, home: Path, days: int) -> int:
    """Plan; return how many instrument-days are chosen."""
    return len(find_days.fn(NightlySpec(market=uri, train_days=days - 1), home).days)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instruments", type=int, default=1000)
    parser.add_argument("--days", type=int, default=250)
    options = parser.parse_args()
    few = max(1, options.instruments // 50), options.days
    layouts = {
        "hive": (
            "quotes/symbol={symbol}/date={date}.parquet",
            quotes,
            options.instruments,
            options.days,
        ),
        "desk-csv": ("{symbol}/{symbol}_{date}.csv", desk, *few),
        "binance-archive": ("{symbol}/{symbol}-bookTicker-{date}.zip", archive, *few),
    }
    table = Table("store", "instrument-days", "floor s", "first s", "again s")
    with tempfile.TemporaryDirectory() as name:
        for kind, (pattern, write, instruments, days) in layouts.items():
            root = Path(name) / kind
            linked(root, pattern, write, instruments, days)
            time.sleep(2.5)  # younger files are not remembered
            plan = partial(planned, str(root), Path(name) / "home", days)
            floor, _ = timed(partial(walked, root))
            first, chosen = timed(plan)
            again, _ = timed(plan)
            table.add_row(kind, f"{chosen:,}", floor, first, again)
        uri = f"simulated:?instruments=20&days={options.days}"
        first, chosen = timed(partial(planned, uri, Path(name) / "home", options.days))
        table.add_row("simulated", f"{chosen:,}", "", first, "")
    Console().print(table)


if __name__ == "__main__":
    main()
