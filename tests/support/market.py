"""Small synthetic markets for tests."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model_code.market.schema import TICKS

SYMBOLS = ("AAA.test", "BBB.test")
DATES = (dt.date(2024, 8, 8), dt.date(2024, 8, 9))
DESK_HEADER = (
    "timestamp,bid_price,ask_price,bid_size,ask_size,last_trade,vwap,feature_ema_1min,label"
)


def epoch_ns(date: dt.date, hour: float = 12.0) -> int:
    """Nanoseconds UTC of `hour` o'clock on `date`."""
    days = (date - dt.date(1970, 1, 1)).days
    return days * 86_400_000_000_000 + round(hour * 3_600_000_000_000)


def ticks(n: int, seed: int = 0, symbol: str = SYMBOLS[0], date: dt.date = DATES[0]) -> pa.Table:
    """`n` clean rows of TICKS, about 20 a second from 12:00; imbalance foretells the next move."""
    rng = np.random.default_rng([seed, sum(symbol.encode()), date.toordinal()])
    timestamp = epoch_ns(date) + np.cumsum(rng.exponential(50e6, n).astype(np.int64) + 1)
    bid_size, ask_size = rng.lognormal(0.0, 1.0, (2, n)).round(3) + 0.001
    imbalance = bid_size / (bid_size + ask_size)
    move = np.where(rng.random(n) < 0.25, np.where(rng.random(n) < imbalance, 1, -1), 0)
    bid_ticks = 10_000 + np.cumsum(move) - move
    bid = bid_ticks / 100
    ask = (bid_ticks + np.where(rng.random(n) < 0.9, 1, 2)) / 100
    traded = rng.random(n) < 0.3
    traded[:1] = True
    volume = np.where(traded, rng.lognormal(0.0, 1.0, n), 0.0)
    bought = rng.random(n) < 0.5
    newest = np.maximum.accumulate(np.where(traded, np.arange(n), 0))
    price = np.where(bought, ask, bid)[newest]
    ema = np.empty(n)
    value = imbalance[0] if n else 0.0
    for i in range(n):
        weight = 0.0 if i == 0 else 1 - np.exp(-(timestamp[i] - timestamp[i - 1]) / 60e9)
        value += weight * (imbalance[i] - value)
        ema[i] = value
    columns = {
        "timestamp": pa.array(timestamp, pa.timestamp("ns", "UTC")),
        "symbol": [symbol] * n,
        "bid_price": bid,
        "ask_price": ask,
        "bid_size": bid_size,
        "ask_size": ask_size,
        "last_trade": price,
        "vwap": np.cumsum(price * volume) / np.cumsum(volume),
        "feature_ema_1min": ema,
        "buy_volume": np.where(bought, volume, 0.0),
        "sell_volume": np.where(bought, 0.0, volume),
        "trade_count": traded.astype(np.int32),
        "label": pa.nulls(n, pa.int8()),
    }
    return pa.table(columns, schema=TICKS)


def quotes(table: pa.Table) -> pa.Table:
    """The quote columns of `table`, as Hive files hold them."""
    return table.select(
        ["timestamp", "symbol", "bid_price", "ask_price", "bid_size", "ask_size"]
    ).replace_schema_metadata(None)


def trades(table: pa.Table) -> pa.Table:
    """One trade for each row of `table` with trades, at the row's own instant."""
    rows = table.filter(pc.greater(table["trade_count"], 0))
    buy, sell = rows["buy_volume"], rows["sell_volume"]
    return pa.table(
        {
            "timestamp": rows["timestamp"],
            "symbol": rows["symbol"],
            "price": rows["last_trade"],
            "size": pc.add(buy, sell),
            "buyer_is_maker": pc.equal(buy, 0.0),
        }
    )


def write_hive(folder: Path, table: pa.Table, symbol: str, date: dt.date) -> None:
    """Write one instrument-day of TICKS as `quotes` and `trades` under `folder`."""
    for kind, part in (("quotes", quotes(table)), ("trades", trades(table))):
        path = folder / kind / f"symbol={symbol}" / f"date={date}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path, compression="zstd")


def hive(
    folder: Path,
    n: int = 2000,
    seed: int = 0,
    symbols: Sequence[str] = SYMBOLS,
    dates: Sequence[dt.date] = DATES,
) -> str:
    """Write a Hive store of `n` rows per instrument-day; return its URI."""
    for date in dates:
        for symbol in symbols:
            write_hive(folder, ticks(n, seed, symbol, date), symbol, date)
    return str(folder)


def desk_csv(
    folder: Path,
    n: int = 2000,
    seed: int = 0,
    symbols: Sequence[str] = ("AAA", "BBB"),
    dates: Sequence[dt.date] = DATES,
    *,
    label: bool = True,
) -> str:
    """Write `<SYMBOL>_<date>.csv` files in the desk's format, 100 ms stamps; return the folder.

    The label (is the next mid more than a tick away?) is there so that the column is used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for date in dates:
        for symbol in symbols:
            table = ticks(n, seed, symbol, date)
            start = np.datetime64(epoch_ns(date), "ns")
            columns = [table[name].to_numpy() for name in DESK_HEADER.split(",")[1:-1]]
            move = np.abs(np.diff(columns[0], append=columns[0][-1])) > 0.005
            lines = [DESK_HEADER if label else DESK_HEADER.removesuffix(",label")]
            for i in range(n):
                stamp = str((start + np.timedelta64(i * 100, "ms")).astype("datetime64[ms]"))
                cells = [f"{stamp[:-2]}Z", *(f"{float(column[i])!r}" for column in columns)]
                lines.append(",".join([*cells, str(int(move[i]))] if label else cells))
            (folder / f"{symbol}_{date}.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def equities(folder: Path, n: int = 3000, dates: Sequence[dt.date] = DATES) -> str:
    """A Hive store like a US-equity feed, profile stated; return its URI.

    Millisecond stamps, 3% locked quotes, 0.5% one-sided ones, repeated rows, trades without an
    aggressor flag but with sale conditions.
    """
    rng = np.random.default_rng(5)
    for date in dates:
        table = ticks(n, 1, "XYZ", date)
        whole = quotes(table)
        bid, ask = (whole[name].to_numpy().copy() for name in ("bid_price", "ask_price"))
        locked = rng.random(n) < 0.03
        ask[locked] = bid[locked]
        bid[rng.random(n) < 0.005] = 0.0
        time = pa.array(table["timestamp"].to_numpy(), pa.timestamp("ns", "UTC"))
        time = pc.floor_temporal(time, unit="millisecond")
        whole = whole.set_column(0, "timestamp", time)
        whole = whole.set_column(2, "bid_price", pa.array(bid))
        whole = whole.set_column(3, "ask_price", pa.array(ask))
        repeats = np.sort(np.concatenate([np.arange(n), rng.integers(0, n, n // 10)]))
        done = trades(table).drop_columns(["buyer_is_maker"])
        done = done.append_column("conditions", pa.array(["@ F"] * done.num_rows))
        for kind, part in (("quotes", whole.take(pa.array(repeats))), ("trades", done)):
            path = folder / kind / "symbol=XYZ" / f"date={date}" / "part-0.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, path)
    (folder / "tickline.yaml").write_text("profile: us-equities\n")
    return str(folder)


def fx(folder: Path, n: int = 3000, dates: Sequence[dt.date] = DATES) -> str:
    """A Hive store like an indicative FX feed, no profile stated; return its URI.

    Millisecond stamps, no sizes, no trades, 10% crossed rows.
    """
    rng = np.random.default_rng(6)
    for date in dates:
        table = ticks(n, 2, "EURUSD.test", date)
        bid, ask = (table[name].to_numpy().copy() for name in ("bid_price", "ask_price"))
        crossed = rng.random(n) < 0.1
        bid[crossed], ask[crossed] = ask[crossed], bid[crossed]
        time = pa.array(table["timestamp"].to_numpy(), pa.timestamp("ns", "UTC"))
        path = folder / "quotes" / "symbol=EURUSD.test" / f"date={date}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = {
            "timestamp": pc.floor_temporal(time, unit="millisecond"),
            "bid_price": bid,
            "ask_price": ask,
        }
        pq.write_table(pa.table(part), path)
    return str(folder)
