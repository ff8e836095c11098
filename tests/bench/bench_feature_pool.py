"""Ticks of several instruments in one thread and in a pool of threads.

    python -m tests.bench.bench_feature_pool [--data URI]

Microseconds of wall time for each message, from its bytes to its window; medians of three turns.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.runs.live import short_pauses
from model_code.features.served import SOLO
from model_code.live.messages import encode
from model_code.live.path import LivePath
from model_code.live.recorded import endless
from model_code.live.state import Group
from model_code.market.store import open_market

Message = tuple[str, bytes, int]
SIZES, THREADS, TURNS = (4, 24, 200), (0, 1, 2, 4), 3


def main(
    data: Annotated[str, typer.Option(help="Market store.")] = "simulated:?days=1&minutes=30",
    ticks: Annotated[int, typer.Option(help="Messages of each measurement.")] = 40_000,
) -> None:
    """Print a row for each number of messages that arrive at once."""
    store = open_market(data)
    messages = [
        (one.symbol, encode(one), one.local_ns)
        for one in islice(endless(store, store.catalog(), 1), ticks)
    ]
    table = Table("at once", "one thread", *(f"pool of {n}" for n in THREADS[1:]))
    with short_pauses():
        for size in SIZES:
            found: dict[int, list[float]] = {n: [] for n in THREADS}
            for _ in range(TURNS):
                for threads in THREADS:
                    found[threads].append(measure(messages, size, threads))
            table.add_row(str(size), *(f"{median(found[n]):.1f}" for n in THREADS))
    Console().print(table)


def measure(messages: Sequence[Message], size: int, threads: int) -> float:
    """Microseconds a message; 0 threads: in this one."""
    paths = {
        symbol: LivePath(Group(SOLO, (symbol,), 10.0), threshold=0.5, model_version=1)
        for symbol, _, _ in messages
    }
    spent = 0.0
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for first in range(0, len(messages), size):
            parts: dict[str, list[Message]] = {}
            for one in messages[first : first + size]:
                parts.setdefault(one[0], []).append(one)
            begun = time.perf_counter()
            if threads:
                for each in [pool.submit(take, paths[one], parts[one]) for one in parts]:
                    each.result()
            else:
                for symbol, some in parts.items():
                    take(paths[symbol], some)
            spent += time.perf_counter() - begun
            for path in paths.values():
                while path.ready(0) is not None:
                    pass
    return 1e6 * spent / len(messages)


def take(path: LivePath, messages: Sequence[Message]) -> None:
    """Let a path take messages."""
    for _, payload, at_ns in messages:
        path.take(payload, at_ns)


if __name__ == "__main__":
    typer.run(main)
