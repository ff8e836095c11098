"""Small two-day markets, written in each layout that a reader knows.

Quotes: timestamp (ns), bid_price, ask_price, bid_size, ask_size. Trades: timestamp (ns), price,
size, buyer_is_maker, trade_id. Stamps are whole milliseconds, as Binance's are.
"""

import datetime as dt
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model_code.market.quality import quarantine
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import ValidationSpec

DATES = (dt.date(2025, 3, 3), dt.date(2025, 3, 4))
ROWS, DEALS = 400, 120
SPEC = ValidationSpec(minimum_rows=10)
Days = Mapping[dt.date, pl.DataFrame]


def start_ns(date: dt.date, hour: float = 14.0) -> int:
    return (date - dt.date(1970, 1, 1)).days * 86_400 * 10**9 + round(hour * 3600) * 10**9


def book(
    date: dt.date, n: int = ROWS, *, tick: float = 0.01, mid: int = 10_000, hour: float = 14.0
) -> pl.DataFrame:
    """`n` quotes one tick wide; about every seventh moves the price by one tick."""
    rng = np.random.default_rng([n, abs(mid), date.toordinal()])
    time = start_ns(date, hour) + np.cumsum(rng.integers(1, 40, n)) * 10**6
    move = np.where(rng.random(n) < 0.15, rng.choice([-1, 1], n), 0)
    # pulled towards the start, so that a coarse tick stays a small part of the price
    bid = mid + np.clip(np.cumsum(move), -5, 5)
    sizes = rng.integers(1, 50, (2, n)) / 10
    return pl.DataFrame(
        {
            "timestamp": time,
            "bid_price": np.round(bid * tick, 10),
            "ask_price": np.round((bid + 1) * tick, 10),
            "bid_size": sizes[0],
            "ask_size": sizes[1] + np.arange(n) % 2 * 5,  # no row repeats the row above
        }
    )


def deals(quotes: pl.DataFrame, n: int = DEALS) -> pl.DataFrame:
    """`n` trades at the bid or ask, 1 ms after a quote."""
    rng = np.random.default_rng(n)
    rows = np.sort(rng.choice(np.arange(1, quotes.height - 1), n, replace=False))
    sell = rng.random(n) < 0.5
    bid, ask = (quotes[name].to_numpy()[rows] for name in ("bid_price", "ask_price"))
    return pl.DataFrame(
        {
            "timestamp": quotes["timestamp"].to_numpy()[rows] + 10**6,
            "price": np.where(sell, bid, ask),
            "size": rng.integers(1, 9, n) / 10,
            "buyer_is_maker": sell,
            "trade_id": np.arange(n) + 500,
        }
    )


def market(n: int = ROWS, **how: float) -> tuple[dict[dt.date, pl.DataFrame], ...]:
    """The quotes and the trades of both dates."""
    quotes = {date: book(date, n, **how) for date in DATES}  # type: ignore[arg-type]
    return quotes, {date: deals(table, min(DEALS, n // 3)) for date, table in quotes.items()}


def arrow(frame: pl.DataFrame) -> pa.Table:
    """The frame with its stamps as UTC times."""
    stamp = pl.col("timestamp").cast(pl.Datetime("ns", "UTC"))
    return frame.with_columns(stamp).to_arrow()


def put(root: Path, kind: str, symbol: str, name: str, table: pa.Table) -> Path:
    """Write one file of a Hive store; `name` is the path below the symbol's folder."""
    path = root / kind / f"symbol={symbol}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def hive(root: Path, quotes: Days, trades: Days | None = None, symbol: str = "ABC") -> Path:
    for kind, days in (("quotes", quotes), ("trades", trades or {})):
        for date, frame in days.items():
            put(root, kind, symbol, f"date={date}.parquet", arrow(frame))
    return root


def zipped(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", text)
    return path


def lines(header: str, rows: Iterable[Iterable[object]]) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def book_text(frame: pl.DataFrame) -> str:
    """Binance's bookTicker CSV; a column `update_id` is used if there is one."""
    ids = frame["update_id"] if "update_id" in frame.columns else range(frame.height)
    header = (
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,"
        "event_time"
    )
    rows = zip(ids, frame.iter_rows(named=True), strict=True)
    return lines(
        header,
        (
            (i, r["bid_price"], r["bid_size"], r["ask_price"], r["ask_size"], ms, ms + 3)
            for i, r in rows
            for ms in [r["timestamp"] // 10**6]
        ),
    )


def trades_text(frame: pl.DataFrame) -> str:
    """Binance's trades CSV."""
    return lines(
        "id,price,qty,quote_qty,time,is_buyer_maker",
        (
            (i, price, size, 1, ms // 10**6, str(maker).lower())
            for ms, price, size, maker, i in frame.iter_rows()
        ),
    )


def aggregate_text(frame: pl.DataFrame) -> str:
    """Binance's aggTrades CSV."""
    return lines(
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
        (
            (i, price, size, i, i, ms // 10**6, str(maker).lower())
            for ms, price, size, maker, i in frame.iter_rows()
        ),
    )


def binance(
    root: Path,
    quotes: Days,
    trades: Days | None = None,
    symbol: str = "ABC",
    kind: str = "trades",
) -> Path:
    write = trades_text if kind == "trades" else aggregate_text
    for date, frame in quotes.items():
        zipped(root / f"{symbol}-bookTicker-{date}.zip", book_text(frame))
    for date, frame in (trades or {}).items():
        zipped(root / f"{symbol}-{kind}-{date}.zip", write(frame))
    return root


def aggregated(root: Path, quotes: Days, trades: Days | None = None, symbol: str = "ABC") -> Path:
    return binance(root, quotes, trades, symbol, "aggTrades")


DESK = "timestamp,bid_price,ask_price,bid_size,ask_size,last_trade,vwap,feature_ema_1min"


def desk_text(frame: pl.DataFrame, header: str = DESK) -> str:
    """The desk's CSV; other columns of the frame are used where the header names them."""
    stamp = pl.col("timestamp").cast(pl.Datetime("ns")).dt.strftime("%Y-%m-%dT%H:%M:%S%.9fZ")
    usual = {"last_trade": pl.col("bid_price"), "vwap": pl.col("bid_price").first()}
    usual["feature_ema_1min"] = pl.lit(0.5)
    new = {name: value for name, value in usual.items() if name not in frame.columns}
    table = frame.with_columns(stamp, **new).select(header.split(","))
    return table.write_csv()


def desk(root: Path, quotes: Days, trades: Days | None = None, symbol: str = "ABC") -> Path:
    """The desk's CSV has no trades: the argument is there to be like the others."""
    root.mkdir(parents=True, exist_ok=True)
    for date, frame in quotes.items():
        (root / f"{symbol}_{date}.csv").write_text(desk_text(frame))
    return root


Writer = Callable[..., Path]
WRITERS: dict[str, Writer] = {"hive": hive, "binance": binance, "desk": desk}
WITH_TRADES: dict[str, Writer] = {"hive": hive, "trades": binance, "aggTrades": aggregated}


def days_of(root: Path) -> list[InstrumentDay]:
    return list(open_market(str(root)).catalog())


def day_of(root: Path, date: dt.date) -> InstrumentDay:
    """The store's only instrument on `date`."""
    (day,) = [day for day in days_of(root) if day.date == date]
    return day


def sift(root: Path, day: InstrumentDay) -> tuple[int, int, int, int, dict[str, int]]:
    """Rows, clean, quarantined, repeated, and rows by fault."""
    ticks = open_market(str(root)).load(day).ticks
    clean, bad, faults = quarantine(ticks, day, SPEC)
    repeated = ticks.num_rows - clean.num_rows - bad.num_rows
    return ticks.num_rows, clean.num_rows, bad.num_rows, repeated, faults
