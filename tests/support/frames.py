"""Recorded WebSocket frames and depth rows for tests."""

import datetime as dt
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.market.level2.rows import LEVELS, DepthRows, to_table
from tests.support.market import DATES, SYMBOLS, ticks, trades

Pairs = list[list[str]]
STEP = 0.01  # between levels
BOOK_EVERY = 4  # quotes


def depth_rows(table: pa.Table, seed: int = 0, every: int = BOOK_EVERY) -> DepthRows:
    """A book at every `every`-th row of TICKS, a millisecond after it; some have fewer levels."""
    rng = np.random.default_rng(seed)
    stamp_N = table["timestamp"].to_numpy().astype(np.int64)[::every] + 1_000_000
    bid_N, ask_N = (table[name].to_numpy()[::every] for name in ("bid_price", "ask_price"))
    away_L = STEP * np.arange(LEVELS)
    bid_NL, ask_NL = bid_N[:, None] - away_L, ask_N[:, None] + away_L
    sizes = rng.integers(1, 50, (2, len(stamp_N), LEVELS)).astype(np.float64)
    thin_N = rng.random(len(stamp_N)) < 0.1
    for values_NL in (ask_NL, sizes[1]):
        values_NL[thin_N, 7:] = np.nan
    return DepthRows(stamp_N, (bid_NL, sizes[0], ask_NL, sizes[1]))


def write_depth(
    folder: str | Path,
    n: int = 2000,
    seed: int = 0,
    symbols: Sequence[str] = SYMBOLS,
    dates: Sequence[dt.date] = DATES,
) -> None:
    """Add the family `depth` to the Hive store of the same arguments (`market.hive`)."""
    for symbol in symbols:
        for date in dates:
            path = Path(folder) / "depth" / f"symbol={symbol}" / f"date={date}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(to_table(depth_rows(ticks(n, seed, symbol, date))), path)


def write_series(folder: str | Path, name: str, times: Iterable[int], **columns: Any) -> Path:
    """Write an exogenous table; times in ns UTC."""
    path = Path(folder) / "exogenous" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = pa.array(list(times), pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"timestamp": stamp} | columns), path)
    return path


def frame(stream: str, **data: Any) -> str:
    """One frame of a combined stream."""
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))


def levels(values_L: np.ndarray, sizes_L: np.ndarray) -> Pairs:
    """Levels as the exchange writes them; without missing ones."""
    found = zip(values_L.tolist(), sizes_L.tolist(), strict=True)
    return [[repr(price), repr(size)] for price, size in found if size > 0]


class Recorder:
    """The lines of one instrument's recording, from one date to the next.

    Args:
        symbol: as the exchange writes it, e.g. `AAA`.
        futures: whether difference events have `pu`.
    """

    def __init__(self, symbol: str, *, futures: bool) -> None:
        self.symbol, self.futures = symbol, futures
        self.last = 100  # update id
        self.shown: tuple[Pairs, Pairs] = ([], [])

    def day(self, table: pa.Table, *, snapshot: bool) -> list[tuple[int, str]]:
        """Quotes, trades and depth of the day's TICKS, each at its stamp."""
        found = []
        quotes = table.select(["bid_price", "bid_size", "ask_price", "ask_size"])
        stamp_N = table["timestamp"].to_numpy().astype(np.int64).tolist()
        for place, (stamp, row) in enumerate(zip(stamp_N, quotes.to_pylist(), strict=True)):
            bid, bid_size, ask, ask_size = map(repr, row.values())
            found.append((stamp, frame(
                "x@bookTicker", u=place, s=self.symbol, b=bid, B=bid_size, a=ask, A=ask_size,
            )))  # fmt: skip
        for place, row in enumerate(trades(table).to_pylist()):
            found.append((row["timestamp"].value, frame(
                "x@trade", e="trade", s=self.symbol, t=place, p=repr(row["price"]),
                q=repr(row["size"]), m=row["buyer_is_maker"],
            )))  # fmt: skip
        rows = depth_rows(table)
        for place, stamp in enumerate(rows.timestamp_N.tolist()):
            bids, asks = (levels(rows.levels[k][place], rows.levels[k + 1][place]) for k in (0, 2))
            text = self.update(bids, asks)
            if snapshot and place == 0:
                text = json.dumps({"lastUpdateId": self.last, "bids": bids, "asks": asks})
            found.append((stamp, text))
        return sorted(found, key=lambda line: line[0])

    def update(self, bids: Pairs, asks: Pairs) -> str:
        """The difference event that turns the book shown before into this one."""
        first, self.last = self.last + 1, self.last + 3
        changes = [
            [[price, "0.00"] for price, _ in old if price not in {p for p, _ in new}] + new
            for old, new in zip(self.shown, (bids, asks), strict=True)
        ]
        self.shown = (bids, asks)
        previous = {"pu": first - 1} if self.futures else {}
        return frame(
            "x@depth", e="depthUpdate", s=self.symbol, U=first, u=self.last, **previous,
            b=changes[0], a=changes[1],
        )  # fmt: skip


def write_lines(path: Path, lines: Iterable[tuple[int, str]]) -> None:
    """Write a recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(f"{stamp} {text}\n" for stamp, text in lines)


def recording(
    folder: Path,
    n: int = 600,
    dates: Sequence[dt.date] = DATES,
    names: Sequence[str] = ("spot_aaa",),
) -> str:
    """Record `n` rows of `market.ticks` a date, a snapshot on the first only; return the URI."""
    for name in names:
        venue, _, symbol = name.partition("_")
        recorder = Recorder(symbol.upper(), futures=venue != "spot")
        for date in dates:
            lines = recorder.day(ticks(n, 0, name, date), snapshot=date == dates[0])
            write_lines(folder / f"{name}_{date:%Y%m%d}.gz", lines)
    return str(folder)
