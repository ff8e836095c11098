"""Recorded Binance frames through a local WebSocket server, every row beside the batch reader's.

`python -m tests.bench.bench_binance FOLDER [--lines N]`
"""

import argparse
import asyncio
import time
from pathlib import Path

from rich.console import Console

from model_code.live.messages import Quote
from model_code.market.readers.binance_frames import BinanceFramesStore
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.exchange import Exchange, gaps, play, recorded, values


def main() -> None:
    """Play every file and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int)
    options = parser.parse_args()
    store = open_market(str(options.folder))
    assert isinstance(store, BinanceFramesStore)
    console, begun = Console(), time.perf_counter()
    quotes = trades = 0
    for day in store.catalog():
        path = Path(store._path(day))
        steps, books = recorded([path], options.lines)
        exchange = Exchange([*steps], books=books)
        kept, feed, said = asyncio.run(play(exchange, [day.symbol], retry_most_s=60.0))
        assert gaps(kept.ticks) == []
        rows = [values(one) for one in kept.ticks]
        assert rows == batch(store, day, len(rows)), day
        found = sum(isinstance(one, Quote) for one in kept.ticks)
        quotes, trades = quotes + found, trades + len(rows) - found
        console.print(f"{day.date} {day.symbol}: {feed.state}", *said[:1])
    seconds = time.perf_counter() - begun
    console.print(f"{quotes:,} quotes and {trades:,} trades, all equal, {seconds:.0f} s")


def batch(store: BinanceFramesStore, day: InstrumentDay, count: int) -> list[tuple[object, ...]]:
    """The first quotes and trades of a day, as the batch reader reads the file."""
    found: list[tuple[object, ...]] = []
    for _, _, event in store._events(store._path(day), day):
        if type(event).__name__ == "QuoteFrame":
            found.append(tuple(event[1:5]))
        elif type(event).__name__ == "TradeFrame":
            found.append(tuple(event[2:5]))
        if len(found) == count:
            break
    return found


if __name__ == "__main__":
    main()
